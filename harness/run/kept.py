"""Tensors in a file that says what they are: nothing in it is executed when it is read.

A safetensors file whose header holds a block of JSON, as records are: a run's weights, and the
detector that is made of them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import harness
from harness.errors import InputError, unread, warn
from harness.experiment.measured import Block
from harness.experiment.record import Data, Record, Weights
from harness.features.views import Shapes
from harness.files import write_whole

SCHEMA = 1


class Said(Block):
    """Say what the tensors of a file are.

    >>> Kept.what
    'weights'
    """

    what: ClassVar[str]  # as in the file's header


class Kept(Said, kw_only=True):
    """Say whose weights a file holds.

    >>> Kept.__struct_fields__[:4]
    ('variant', 'dataset', 'category', 'seed')
    """

    what: ClassVar[str] = "weights"

    variant: dict[str, Any]
    dataset: str
    category: str
    seed: int
    epoch: int
    shapes: list[tuple[int, int, int]]  # (C, H, W) of the features
    weights: Weights  # of the backbone
    data: Data


class DamagedTensors(InputError):
    """Say that a file was read and is not, or no longer, what it should be.

    >>> issubclass(DamagedTensors, InputError)
    True
    """


def kept_of(record: Record, shapes: Shapes) -> Kept:
    """Say whose weights are kept, by the run's record."""
    return Kept(
        variant=record.variant,
        dataset=record.dataset,
        category=record.category,
        seed=record.seed,
        epoch=record.selection.epoch,
        shapes=list(shapes),
        weights=record.weights,
        data=record.data,
    )


About = TypeVar("About", bound=Said)


def write_tensors(path: Path, about: Said, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with what is said of them; the file is seen whole or not at all."""
    whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    said = json.dumps(msgspec.to_builtins(about), allow_nan=False)
    header = {
        "format": f"fastflow-harness {about.what}",
        "schema": str(SCHEMA),
        "harness": harness.__version__,
        "about": said,
        "sha256": _digest(said, whole),
    }
    write_whole(path, save(whole, header))


def read_tensors(path: Path, kind: type[About]) -> tuple[About, dict[str, Tensor]]:
    """Read what :func:`write_tensors` has written.

    Raises:
        DamagedTensors: no such file, a damaged or foreign one, or one of a newer version.
        InputError, RunFailed: the system did not let it be read, which says nothing of the file.
        MemoryError: there is too little for it.
    """
    what = f"fastflow-harness {kind.what}"
    if not path.is_file():
        raise DamagedTensors(f"{path}: expected a file of {what}; found none")
    try:
        header, tensors = _read(path)
    except (SafetensorError, ValueError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise DamagedTensors(
            f"{path}: expected a file of {what}; it cannot be read ({reason[:120]}); remove it "
            "and make it anew by `harness train`"
        ) from None
    except OSError as error:
        raise unread(path, error) from None
    if header.get("format") != what:
        raise DamagedTensors(
            f"{path}: expected a file of {what}; got {header.get('format', 'other tensors')}; "
            "make one by `harness train`"
        )
    if header.get("schema") != str(SCHEMA):
        raise DamagedTensors(
            f"{path}: expected schema {SCHEMA}; got {header.get('schema')}, of harness "
            f"{header.get('harness')}; this is {harness.__version__}: install that version"
        )
    found = _digest(header.get("about", ""), tensors)
    if header.get("sha256", found) != found:  # the first files had none
        raise DamagedTensors(
            f"{path}: expected the content that was written; it has changed since; remove it and "
            "make it anew by `harness train`"
        )
    try:
        return msgspec.json.decode(header["about"], type=kind, strict=True), tensors
    except (msgspec.MsgspecError, KeyError, RecursionError) as error:
        raise DamagedTensors(
            f"{path}: expected a file of {what}; got {error}; make it anew"
        ) from None


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """A file's header and its tensors."""
    # It takes two descriptors, and of one that the system refuses it says that there is no file.
    with path.open("rb"), path.open("rb"):
        pass
    try:
        with safe_open(path, "pt") as file:
            # Copies: a mapped file that is cut while it is in use would end the process.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            return file.metadata() or {}, tensors
    except (RuntimeError, FileNotFoundError) as error:  # the system refused it something
        raise (MemoryError if "memory" in str(error) else OSError)(str(error)) from None


def is_kept(path: Path) -> bool:
    """Tell whether a run's weights are there and sound; damaged ones are named.

    Raises:
        InputError, RunFailed: the system did not let them be read.

    >>> is_kept(Path("nowhere.safetensors"))
    False
    """
    try:
        return path.is_file() and bool(read_tensors(path, Kept))
    except DamagedTensors as error:
        warn(error)
        return False


def restore(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a freshly built model its tensors; buffers take the size that they were fitted to.

    Raises:
        InputError: they are not this model's.
    """
    modules = dict(model.named_modules())
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        if module is not None and leaf in module._buffers:
            module.register_buffer(leaf, torch.empty_like(tensor))
    try:
        model.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise InputError(
            f"{path}: expected the weights of its own variant; {lines[:200]}; make it anew"
        ) from None


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file says, so that one that was damaged is not taken at its word."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.flatten().clone(memory_format=torch.contiguous_format)  # of one stride
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()

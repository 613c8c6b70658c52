"""Where the time goes: shares of a training step and of inference, by kind of operator.

Of torch.profiler's self time of every operator: the processor's, or that of the kernels which it
started on an accelerator.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import epoch, inference
from benchmarks.common import Options, Part, Row, cores, has_peer, in_child
from benchmarks.turns import WARMUP, clocked, wait
from harness.methods.flow import compiled

PASSES = [
    name for name, kind in vars(compiled).items()
    if isinstance(kind, type) and issubclass(kind, torch.autograd.Function)
]  # fmt: skip
KINDS = {  # the first that matches an operator's name
    "convolution backward": r"conv\w*backward",
    "convolution forward": r"(aten|mkldnn)::\w*conv",
    "coupling pass backward": rf"^({'|'.join(PASSES)})Backward$",
    "coupling pass forward": rf"^({'|'.join(PASSES)})$",
    "norms": r"aten::\w*(layer|batch)_norm",
    "copies and casts": r"aten::(copy_|_to_copy|clone|cat|index|gather|contiguous|fill_|zero_|"
    r"select_backward|slice_backward|index_put|index_add|repeat)",
    "other elementwise": r"aten::(mul|add|sub|rsub|div|neg|exp|log|tanh|sigmoid|atan|pow|square|"
    r"sqrt|reciprocal|sum|mean|max|amax|clamp|hardtanh|relu|threshold|where|softplus|lerp|abs|"
    r"sgn|le|ge|lt|gt|eq|bitwise|logical)",
}
OPTIMISER, REST, OUTSIDE = "optimiser", "rest", "outside operators"
TRAINING = {  # side of the table → side of the epoch part
    "ours, bfloat16": "ours, bfloat16", "ours, float32": "ours, float32",
    "anomalib": epoch.PEER, "FrEIA": epoch.FREIA,
}  # fmt: skip
INFERENCE = {k: k for k in ("ours, fast, bfloat16", "ours, fast, float32", inference.PEER)}


def measure(options: Options) -> Part:
    """A table for every case, a column for every side; each in a process of its own."""
    part = Part(
        protocol=[
            "Share of torch.profiler's self time by kind of operator, %; every side in a process "
            f"of its own, {cores()} threads, {WARMUP} steps of warm-up. Wall time an image "
            "without the profiler, and with it: what it costs itself.",
            f"{OUTSIDE}: wall time under the profiler that no operator accounts for (Python, "
            "waiting for kernels to start, and at inference the compiled coupling pass), as a "
            "share of the whole.",
        ]
    )
    tables: dict[str, dict[str, Row]] = {}  # case → side → kind → share
    for function, sides in (("training", TRAINING), ("inferring", INFERENCE)):
        for name, side in sides.items():
            if "anomalib" not in name or has_peer():
                cases = in_child(options, "profile", function, side=side).result
                for case, shares in cases.items():
                    tables.setdefault(case, {})[name] = shares
    for case, found in tables.items():
        kinds = dict.fromkeys(k for shares in found.values() for k in shares)
        part.tables[f"Where the time goes, {case}"] = [
            {"kind": kind, **{name: shares.get(kind) for name, shares in found.items()}}
            for kind in kinds
        ]
    return part


def training(options: Options) -> dict[str, Row]:
    """A step of one side of the epoch part, for each layout of the kernels."""
    found = {}
    for label, kernels in epoch.layouts(options).items():
        options.extra["kernels"] = kernels
        images = epoch.batch(options)
        case = f"training step, {label}, batch {images}"
        found[case] = _shares(epoch.side(options), images, options)
    return found


def inferring(options: Options) -> dict[str, Row]:
    """A batch of one side of the inference part, for each size."""
    step = inference.side(options)
    return {
        f"inference, batch {batch}": _shares(partial(step, batch), batch, options)
        for batch in (32, 1)
    }


def _shares(step: Callable[[], object], images: int, options: Options) -> Row:
    """Kind → share in %, and both wall times, ms an image."""
    turn = clocked(step, options.device)
    for _ in range(WARMUP):
        turn()
    plain = median(turn() for _ in range(options.turns(3)))
    profiled(step, options.device)  # the profiler's own first time
    wall, seconds = profiled(step, options.device)
    total = sum(seconds.values())
    whole = max(wall, total)
    ordered = (*KINDS, OPTIMISER, REST)
    return {
        **{k: round(100 * seconds[k] / whole, 1) for k in ordered},
        OUTSIDE: round(100 * (1 - total / whole), 1),
        "ms an image without the profiler": round(1e3 * plain / images, 3),
        "ms an image with it": round(1e3 * wall / images, 3),
    }


def profiled(step: Callable[[], object], device: str) -> tuple[float, Counter[str]]:
    """Wall seconds of a step under the profiler, and its operators' self seconds by kind."""
    accelerated = device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if accelerated else [])]
    with profile(activities=activities) as record:
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        wall = time.perf_counter() - start
    seconds: Counter[str] = Counter()
    for event in record.events() or ():
        if event.device_type == torch.autograd.DeviceType.CPU:  # kernels count for their operator
            own = event.self_device_time_total if accelerated else event.self_cpu_time_total
            seconds[_kind_of(event)] += 1e-6 * own
    return wall, seconds


def kind(name: str) -> str:
    """The kind of an operator.

    >>> kind("aten::mkldnn_convolution"), kind("aten::convolution_backward"), kind("aten::view")
    ('convolution forward', 'convolution backward', 'rest')
    """
    return next((k for k, pattern in KINDS.items() if re.search(pattern, name)), REST)


def _kind_of(event: Any) -> str:
    """The optimiser's are all that it calls; the others go by their own name."""
    above = event
    while above is not None:
        if above.name.startswith("Optimizer."):
            return OPTIMISER
        above = above.cpu_parent
    return kind(event.name)

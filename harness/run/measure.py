"""What a variant costs: parameters, multiply-accumulates, and the time from image to map.

Parameters and MACs are counted on the meta device, so they need neither weights nor time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.features.backbone import Backbone
from harness.methods.contract import Method
from harness.methods.fastflow import FastFlow
from harness.methods.flow.step import FlowStep

WARMUP, ROUNDS = 1, 5
BUDGET_SECONDS = 1.5  # per path: a slow one gets fewer rounds, and its record says so


def count_parameters(model: Method, backbone: Backbone) -> dict[str, int]:
    """Parameters by kind; the paper's "A.d. params" are flow + norm.

    A memory bank is none of them: see :attr:`Method.bank_bytes`.

    Returns:
        ``flow`` and ``norm``: trainable. ``frozen``: the permutations' indices, drawn once.
        ``backbone``: the frozen network up to its last tap.
    """
    steps = [m for m in model.modules() if isinstance(m, FlowStep)]
    norm = _trainable(model.norms) if isinstance(model, FastFlow) else 0
    return {
        "flow": _trainable(model) - norm,
        "norm": norm,
        "frozen": sum(s.perm.numel() for s in steps if s.permutes),
        "backbone": sum(p.numel() for p in backbone.parameters()),
    }


def count_macs(model: Method, backbone: Backbone, *, views: int = 0) -> dict[str, int]:
    """Multiply-accumulates of one image in {backbone, flow}: convolutions and matrix products.

    ``flow`` is whatever the method does with the features; ``step``, where it is less, what a
    training step does forward. All arguments live on the meta device.

    Args:
        model: fitted or filled, where it keeps a bank.
        backbone: the frozen network.
        views: see :func:`look`.
    """
    size = backbone.image_size
    with FlopCounterMode(display=False) as counter:
        features = look(backbone, torch.empty(1, 3, size, size, device="meta"), views)
    flow = flow_macs(model, features)
    macs = {"backbone": counter.get_total_flops() // 2, "flow": flow}
    share = model.step_share(features)
    return macs if share == 1 else {**macs, "step": round(share * flow)}


def look(backbone: Backbone, images: Tensor, views: int) -> list[Tensor]:
    """What a method is given of images (B, 3, S, S), at its cost: a turned view costs a pass.

    ``views``: copies of an image that are pooled; 0: the features themselves.
    """
    if not views:
        return list(backbone(images))
    copies = [backbone.pooled(images) for _ in range(views)]
    return [torch.stack(tap, dim=2)[..., None] for tap in zip(*copies, strict=True)]


def flow_macs(model: Method, features: Sequence[Tensor]) -> int:
    """Multiply-accumulates of scoring features (B, C, H, W), all on the meta device."""
    with FlopCounterMode(display=False) as counter:
        model.scores(features)
    return int(counter.get_total_flops()) // 2


def measure_speed(
    paths: Mapping[Any, Callable[[Tensor], object]], images: Mapping[Any, Tensor], *, device: str
) -> dict[Any, dict[str, float | int | str]]:
    """Latency and FPS of several image → map paths, side by side.

    The paths take turns (A B C, A B C, …), so that a machine that slows down slows them all.

    Args:
        paths: name → the whole path from a batch of images to its anomaly maps.
        images: name → that path's batch (B, 3, S, S); one image of it gives the latency.
        device: as in torch.

    Returns:
        name → ``latency_ms`` (median time of one image alone), ``fps`` (images a second in
        batches), and the protocol.
    """
    singles = {name: batch[:1] for name, batch in images.items()}
    latency = _take_turns(paths, singles, device)
    batched = _take_turns(paths, images, device)
    return {
        name: {
            "latency_ms": round(1e3 * median(latency[name]), 4),
            "latency_ms_min": round(1e3 * min(latency[name]), 4),
            "latency_ms_max": round(1e3 * max(latency[name]), 4),
            "fps": round(len(images[name]) / median(batched[name]), 4),
            "fps_batch_size": len(images[name]),
            "rounds": len(batched[name]),
            "threads": torch.get_num_threads(),
            "device": device,
            "measures": "normalised image in memory to map, or to score where there is none: "
            "backbone, method, map; no cache, no turning of views",
        }
        for name in paths
    }


def _take_turns(
    paths: Mapping[Any, Callable[[Tensor], object]], images: Mapping[Any, Tensor], device: str
) -> dict[Any, list[float]]:
    """Seconds of every path in every round after the warm-up, within the time budget."""
    seconds: dict[Any, list[float]] = {name: [] for name in paths}
    began = time.perf_counter()
    for turn in range(WARMUP + ROUNDS):
        for name, path in paths.items():
            _synchronise(device)
            start = time.perf_counter()
            path(images[name])
            _synchronise(device)
            if turn >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
        if turn >= WARMUP and time.perf_counter() - began > BUDGET_SECONDS * len(paths):
            break
    return seconds


def _trainable(modules: nn.Module) -> int:
    return sum(p.numel() for p in modules.parameters() if p.requires_grad)


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)

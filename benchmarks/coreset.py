"""PatchCore's greedy coreset beside anomalib's KCenterGreedy, in one process and on one input.

Both reduce the features by a sparse random projection (epsilon 0.9) and pick 10 % of them. What
anomalib does at a pick does not depend on how many came before, so its time is taken from its
first picks and scaled. The picks are compared too: ours on anomalib's own projection and first
pick.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Options, Part, Row, columns, cores, has_peer
from benchmarks.turns import clocked
from harness.methods.memory.coreset import greedy_coreset
from harness.methods.patchcore import sparse_projection

COUNT, CHANNELS, SHARE, PEER_PICKS = 163_840, 384, 0.1, 300
QUICK = {"count": 2000, "peer_picks": 20}
PEAK = "grown by, MiB"


def measure(options: Options) -> Part:
    """Ours to the end; anomalib's first picks where it is installed."""
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    count, peer_picks = QUICK.values() if options.quick else (COUNT, PEER_PICKS)
    picks = int(count * SHARE)
    features = torch.randn(count, CHANNELS, device=options.device)
    _ours(features[: count // 20], count // 200)  # warm-up
    found: dict[str, list[Row]] = {"ours": []}
    equal = 0
    for _ in range(options.turns(1)):
        found["ours"].append(_grown(lambda: _ours(features, picks), options.device)[1])
        if has_peer():
            from anomalib.models.components import KCenterGreedy

            peer = KCenterGreedy(features, (peer_picks + 0.5) / count)
            order, cost = _grown(peer.select_coreset_idxs, options.device)
            once = clocked(partial(peer.model.fit_transform, features), options.device)()
            cost["s"] = once + (cost["s"] - once) * picks / peer_picks
            found.setdefault("anomalib", []).append(cost)
            same = greedy_coreset(peer.features, peer_picks, start=order[0]).tolist()
            equal = sum(a == b for a, b in zip(same, order, strict=True))
    part = Part(
        protocol=[
            f"{count} × {CHANNELS} random normal features, {picks} picks; projection included; "
            f"{cores()} threads. Memory: what the process, or the accelerator, grew by at most."
        ]
    )
    if has_peer():
        part.protocol.append(
            f"anomalib's time is that of {peer_picks} picks, scaled but for the projection; "
            f"{equal} of them are ours too."
        )
    part.tables["Coreset"] = [
        {"side": name, **columns([c["s"] for c in costs], "s"), PEAK: costs[-1][PEAK]}
        for name, costs in found.items()
    ]
    return part


def _ours(features: Tensor, picks: int) -> Tensor:
    """Projection and selection."""
    projection = sparse_projection(*features.shape, np.random.RandomState(0))
    return greedy_coreset(features @ projection.to(features.device), picks).cpu()


def _grown(work: Callable[[], Any], device: str) -> tuple[Any, Row]:
    """What the work returns, its seconds, and the MiB by which memory grew at most."""
    kept: list[Any] = []
    before = _memory(device, reset=True)
    seconds = clocked(lambda: kept.append(work()), device)()
    grown = None if before is None else round(((_memory(device) or 0) - before) / 2**20)
    return kept[0], {"s": seconds, PEAK: grown}


def _memory(device: str, *, reset: bool = False) -> int | None:
    """Peak bytes since the last reset; at a reset, those in use; None where nothing tells."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # peak := in use
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])

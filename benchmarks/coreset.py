"""Time the greedy coreset beside anomalib's KCenterGreedy, in one process and on one input.

    python benchmarks/coreset.py [--features FILE.npy] [--peer-picks 500]

Both reduce the features by a sparse random projection (epsilon 0.9) and pick 10 % of them. What
anomalib does at a pick does not depend on how many came before, so its time may be taken from its
first picks and scaled; the result says so. The picks are compared too: ours on anomalib's own
projection and first pick. Prints a JSON line and a row of a table. Peak memory is what the
process grew by: that of the CPU (Linux), or of the GPU.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy
from torch import Tensor

from harness.baselines.coreset import greedy_coreset
from harness.baselines.patchcore import sparse_projection


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=Path, help="(n, d); default: random normal numbers")
    parser.add_argument("--count", type=int, default=163_840)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--peer-picks", type=int, help="of anomalib; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.features:
        features = torch.from_numpy(np.load(options.features)[: options.count])
    else:
        features = torch.randn(options.count, options.dimensions)
    features = features.to(options.device)
    total = len(features)
    picks = int(total * options.share)
    peer_picks = min(picks, options.peer_picks or picks)
    measure(lambda: ours(features[:5000], 500), options.device)  # warm-up
    _, mine = measure(lambda: ours(features, picks), options.device)
    peer = KCenterGreedy(features, (peer_picks + 0.5) / total)
    order, theirs = measure(peer.select_coreset_idxs, options.device)
    theirs["picks"] = peer_picks
    theirs["seconds_for_all"] = round(theirs["seconds"] * picks / peer_picks, 1)
    same = greedy_coreset(peer.features, peer_picks, start=order[0]).tolist()
    equal = sum(a == b for a, b in zip(same, order, strict=True))
    name = options.features.name if options.features else "random"
    speedup = round(theirs["seconds_for_all"] / mine["seconds"], 1)
    result = {
        "features": name, "shape": list(features.shape), "picks": picks, "device": options.device,
        "threads": options.threads, "torch": torch.__version__, "ours": mine, "anomalib": theirs,
        "speedup": speedup, "equal_picks": f"{equal} of {peer_picks}",
    }  # fmt: skip
    print(json.dumps(result))
    print(
        f"| {name} | {total} x {features.shape[1]} | {picks} | {mine['seconds']} s, "
        f"{mine['peak_mib']} MiB | {theirs['seconds_for_all']} s (from {peer_picks} picks), "
        f"{theirs['peak_mib']} MiB | {speedup} x |"
    )


def ours(features: Tensor, picks: int) -> list[int]:
    """Projection and selection."""
    projection = sparse_projection(*features.shape, np.random.RandomState(0))
    return greedy_coreset(features @ projection.to(features.device), picks).tolist()


def measure(work: Callable[[], Any], device: str) -> tuple[Any, dict[str, float]]:
    """What the work returns, its seconds, and the MiB by which memory grew at most."""
    before = _memory(device, reset=True)
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    grown = _memory(device) - before
    return result, {"seconds": round(seconds, 1), "peak_mib": round(grown / 2**20)}


def _memory(device: str, *, reset: bool = False) -> int:
    """Peak bytes since the last reset; at a reset, those in use."""
    if device != "cpu":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # peak := in use
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


if __name__ == "__main__":
    main()

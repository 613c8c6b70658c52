"""What the machine can do at most: convolution, matrix product and memory rates.

Prints a markdown table; ``--json FILE`` keeps the figures::

    python benchmarks/ceiling.py --threads 2

The best of the rounds is shown: on a machine shared with other work it is the rate of the
machine, not of its load.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

CASES = ((32, 64, 64), (64, 128, 32), (128, 256, 16))  # channels in and out, side: resnet18's taps
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
DTYPES = (torch.float32, torch.bfloat16)


def best(function: Callable[[], object], budget: float) -> float:
    """Seconds of the fastest call within the budget."""
    function()
    seconds, began = [], time.perf_counter()
    while time.perf_counter() - began < budget or len(seconds) < 3:
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def convolutions(budget: float) -> Iterator[dict]:
    """GFLOP/s forward, and by input and by weight backward."""
    backward = torch.ops.aten.convolution_backward
    cases = product(CASES, (3, 1), (1, 8, 32), DTYPES, LAYOUTS.items())
    for (given, out, side), kernel, batch, dtype, (layout, memory) in cases:
        x = torch.randn(batch, given, side, side).to(dtype).to(memory_format=memory)
        w = torch.randn(out, given, kernel, kernel).to(dtype).to(memory_format=memory)
        g = torch.randn(batch, out, side, side).to(dtype).to(memory_format=memory)
        pad, work = kernel // 2, 2e-9 * batch * side**2 * given * out * kernel**2

        def back(mask, g=g, x=x, w=w, out=out, pad=pad):
            return backward(
                g, x, w, [out], [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, mask
            )  # fmt: skip

        functions = {
            "forward": lambda x=x, w=w, pad=pad: F.conv2d(x, w, padding=pad),
            "by input": lambda back=back: back([True, False, False]),
            "by weight": lambda back=back: back([False, True, False]),
        }
        yield {
            "what": f"{given}→{out} {kernel}×{kernel} at {side}², batch {batch}",
            "kind": f"{str(dtype)[6:]} {layout}",
            **{name: round(work / best(f, budget)) for name, f in functions.items()},
        }


def memory(budget: float) -> Iterator[dict]:
    """GB/s read and written together."""
    for mebibytes in (1, 16, 64):
        x = torch.randn(mebibytes * 2**18)
        y = torch.empty_like(x)
        moved = 8e-9 * x.numel()
        functions = {
            "copy": lambda y=y, x=x: y.copy_(x),
            "exp": lambda y=y, x=x: torch.exp(x, out=y),
            "tanh": lambda y=y, x=x: torch.tanh(x, out=y),
        }
        rates = {name: round(moved / best(f, budget)) for name, f in functions.items()}
        yield {"what": f"{mebibytes} MiB", "kind": "float32", **rates}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=0.05, help="seconds a figure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = []
    with torch.inference_mode():
        for part, unit in ((memory, "GB/s"), (convolutions, "GFLOP/s")):
            rows = []
            for row in part(options.budget):
                if not rows:
                    print("\n| " + " | ".join(row) + f" ({unit}) |\n" + "|---" * len(row) + "|")
                print("| " + " | ".join(str(v) for v in row.values()) + " |", flush=True)
                rows.append(row | {"unit": unit, "threads": options.threads})
            found += rows
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What the machine can do at most: convolution and memory rates.

The best of many calls counts: on a machine shared with other work it is the rate of the machine,
not of its load.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Options, Part, Row, cores
from benchmarks.turns import clocked

CASES = ((32, 64, 64), (64, 128, 32), (128, 256, 16))  # channels in and out, side: resnet18's taps
BATCHES, MEBIBYTES = (1, 8, 32), (1, 16, 64)
ACCELERATOR = (256,), (1024,)  # the same, beside them: what fills one
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
DTYPES = (torch.float32, torch.bfloat16)
BUDGET = 0.05  # seconds a figure


def measure(options: Options) -> Part:
    """Memory first, then every convolution."""
    torch.set_num_threads(cores())
    part = Part(
        protocol=[
            f"The best of the calls within {BUDGET} s, at least {_least(options)}; {cores()} "
            "threads. Memory: read and written together."
        ]
    )
    if options.device != "cpu":
        tf32 = "with" if torch.backends.cudnn.allow_tf32 else "without"
        part.protocol.append(f"float32 convolutions {tf32} TF32, torch's default.")
    with torch.inference_mode():
        part.tables = {
            "Rates, GB/s": list(memory(options)),
            "Rates, GFLOP/s": list(convolutions(options)),
        }
    return part


def memory(options: Options) -> Iterator[Row]:
    """GB/s read and written together."""
    sizes = MEBIBYTES + (() if options.device == "cpu" else ACCELERATOR[1])
    for mebibytes in sizes[:1] if options.quick else sizes:
        x = torch.randn(mebibytes * 2**18, device=options.device)
        y = torch.empty_like(x)
        functions = {
            "copy": partial(y.copy_, x),
            "exp": partial(torch.exp, x, out=y),
            "tanh": partial(torch.tanh, x, out=y),
        }
        rates = {name: _rate(8 * x.numel(), f, options) for name, f in functions.items()}
        yield {"what": f"{mebibytes} MiB", "kind": "float32", **rates}


def convolutions(options: Options) -> Iterator[Row]:
    """GFLOP/s forward, and by input and by weight backward."""
    batches = BATCHES + (() if options.device == "cpu" else ACCELERATOR[0])
    cases, batches = (CASES[-1:], batches[:1]) if options.quick else (CASES, batches)
    grid = product(cases, (3, 1), batches, DTYPES, LAYOUTS.items())
    for (given, out, side), kernel, batch, dtype, (layout, order) in grid:

        def draw(*shape: int, dtype: torch.dtype = dtype, order: object = order) -> Tensor:
            return torch.randn(*shape, device=options.device).to(dtype).to(memory_format=order)

        x, g = draw(batch, given, side, side), draw(batch, out, side, side)
        w, pad = draw(out, given, kernel, kernel), kernel // 2
        back = partial(
            torch.ops.aten.convolution_backward,
            g, x, w, [out], [1, 1], [pad, pad], [1, 1], False, [0, 0], 1,
        )  # fmt: skip
        functions = {
            "forward": partial(F.conv2d, x, w, padding=pad),
            "by input": partial(back, [True, False, False]),
            "by weight": partial(back, [False, True, False]),
        }
        work = 2 * batch * side**2 * given * out * kernel**2
        yield {
            "what": f"{given}→{out} {kernel}×{kernel} at {side}², batch {batch}",
            "kind": f"{str(dtype)[6:]} {layout}",
            **{name: _rate(work, f, options) for name, f in functions.items()},
        }


def _least(options: Options) -> int:
    return options.turns(3)


def _rate(work: float, call: Callable[[], object], options: Options) -> int:
    """So much work a call, at the fastest: 10⁹ a second."""
    repeats = 1 if options.device == "cpu" else 20  # the wait costs as much as a short call

    def several() -> None:
        for _ in range(repeats):
            call()

    turn = clocked(several, options.device)
    turn()
    seconds, began = [turn() for _ in range(_least(options))], time.perf_counter()
    while not options.quick and time.perf_counter() - began < BUDGET:
        seconds.append(turn())
    return round(1e-9 * work * repeats / min(seconds))

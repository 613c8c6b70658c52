"""Several trainings at once with few threads each, or one after the other on all cores.

It is the evidence for the harness's default, jobs × threads = cores.
"""

from contextlib import ExitStack

from benchmarks.common import Options, Part, columns, cores, ratio
from benchmarks.turns import WARMUP, Side, clocked, take_turns

JOBS, STEPS = 8, 3  # at most, as the harness by default; optimiser steps of a training
SIDE = "ours, bfloat16"


def measure(options: Options) -> Part:
    """The same trainings both ways, in turns, all prepared beforehand."""
    jobs = min(cores(), JOBS)
    threads = max(1, cores() // jobs)
    steps = 1 if options.quick else STEPS

    def prepared(count: int) -> Side:
        extra = {"side": SIDE, "kernels": (3,), "threads": count}
        return stack.enter_context(Side(options, "epoch", "side", **extra))

    def at_once() -> None:
        for _ in range(steps):
            for child in beside:
                child.start()
        for _ in range(steps):
            for child in beside:
                child.finish()

    def in_sequence() -> None:
        for _ in range(steps * jobs):
            alone.turn()

    with ExitStack() as stack:
        beside = [prepared(threads) for _ in range(jobs)]
        alone = prepared(cores())
        names = (
            f"at once, processes × threads: {jobs} × {threads}",
            f"one after the other, processes × threads: 1 × {cores()}",
        )
        calls = dict(zip(names, map(clocked, (at_once, in_sequence)), strict=True))
        seconds = take_turns(calls, rounds=options.turns(3), warmup=WARMUP)
    part = Part(
        protocol=[
            f"{jobs} trainings of {steps} optimiser steps: resnet18's features at {options.size} "
            "px in memory, 8 steps of 3×3, batch 32, bfloat16; without the processes' starts."
        ],
        tables={"Side by side": [{"way": n, **columns(s, "s")} for n, s in seconds.items()]},
    )
    beside_s, alone_s = seconds.values()
    part.claim("Side by side, at once against one after the other", ratio(alone_s, beside_s), 1)
    return part

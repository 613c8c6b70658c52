"""Sides that take turns, in one process or each in a process of its own.

A process of its own keeps what one side sets (the C allocator's options, threads) and holds
(memory, caches) from the others. Imports no torch: see common.py.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from benchmarks.common import Options, child_environment, child_failed, child_words

WARMUP = 2  # rounds that do not count: the first steps pay for memory touched first
PATIENCE = 30  # seconds for a child to end once it is told to


def take_turns(
    sides: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of every side in every round; the sides alternate (A B C, A B C, …).

    Args:
        sides: name → a turn, which returns its seconds: see :func:`clocked` and :class:`Side`.
        rounds: after ``warmup`` rounds that do not count.
        warmup: see there.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, side in sides.items():
            took = side()
            if turn >= warmup:
                seconds[name].append(took)
    return seconds


def clocked(call: Callable[..., object], device: str = "cpu") -> Callable[..., float]:
    """The same call returning its seconds, from an idle device to an idle device."""

    def turn(*given: Any) -> float:
        wait(device)
        start = time.perf_counter()
        call(*given)
        wait(device)
        return time.perf_counter() - start

    return turn


def wait(device: str) -> None:
    """Until the accelerator has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


class Side:
    """A child process that prepares a step once and does it at every turn.

    Args:
        options: handed over, with ``extra`` added to its own.
        module: of this package.
        function: takes the options, prepares, and returns the step.
        extra: what only this side is told.
    """

    def __init__(self, options: Options, module: str, function: str, **extra: Any) -> None:
        options = replace(options, extra={**options.extra, **extra})
        options.work.mkdir(parents=True, exist_ok=True)
        self.name = module, function
        self._folder = tempfile.TemporaryDirectory(dir=options.work)
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                child_words(options, module, function), text=True, env=child_environment(options),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def turn(self, *given: Any) -> float:
        """Seconds of one step, by the child's clock; the arguments are what JSON can hold.

        Raises:
            InputError: the child ended; its last line says why.
        """
        self.start(*given)
        return self.finish()

    def start(self, *given: Any) -> None:
        """Tell the child to do a step, and do not wait for it."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(given) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise child_failed(*self.name, self._process.wait(), self._log) from None

    def finish(self) -> float:
        """Wait for the step; see :meth:`turn`."""
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return float(line)
        raise child_failed(*self.name, self._process.wait(), self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=PATIENCE)  # its stdin ends, and so does it
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        finally:
            self._folder.cleanup()


@contextmanager
def own_processes(
    options: Options, module: str, names: Iterable[str], **extra: Any
) -> Iterator[dict[str, Side]]:
    """Inside the context, ``module.side`` for every name, told as ``options.extra["side"]``."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Side(options, module, "side", side=name, **extra))
            for name in names
        }

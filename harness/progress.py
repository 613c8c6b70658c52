"""Progress of long work: a moving bar on a terminal, plain lines anywhere else."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from harness.escape import in_line

if TYPE_CHECKING:
    from rich.progress import Progress

QUIET = 15.0  # seconds between two plain lines


class Bar(Protocol):
    """Show how far a piece of work has come."""

    def advance(self, done: float) -> None:
        """Count so much more as done."""
        ...

    def note(self, text: str) -> None:
        """Say what is being worked on."""
        ...

    def rename(self, what: str) -> None:
        """Say anew what the work is."""
        ...


@contextmanager
def progress(
    what: str, total: float | None, *, unit: str = "", stream: TextIO | None = None
) -> Iterator[Bar]:
    """Show the progress of a piece of work while it lasts.

    Args:
        what: the work, in a word or two.
        total: how much there is to do; None: not known.
        unit: of ``total``, as in ``images``; none: the share is shown, in %.
        stream: where to write; None: standard error.

    >>> with progress("features", 2, unit="images", stream=sys.stdout) as bar:
    ...     bar.note("grass")
    ...     bar.advance(2)
    features: 0/2 images, 0:00 elapsed; grass
    features: 2/2 images, 0:00 elapsed; grass
    """
    stream = stream or sys.stderr
    bar = (
        _Moving(what, total, unit, stream)
        if stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        else _Lines(what, total, unit, stream)
    )
    try:
        yield bar
    finally:
        bar.end()


class _Moving:
    """A bar that moves, drawn by rich."""

    def __init__(self, what: str, total: float | None, unit: str, stream: TextIO) -> None:
        self.shown: Progress = _rich(unit, total, stream)
        self.task = self.shown.add_task(what, total=total, note="")
        self.shown.start()

    def advance(self, done: float) -> None:
        self.shown.advance(self.task, done)

    def note(self, text: str) -> None:
        self.shown.update(self.task, note=in_line(text))

    def rename(self, what: str) -> None:
        self.shown.update(self.task, description=what)

    def end(self) -> None:
        self.shown.stop()


def _rich(unit: str, total: float | None, stream: TextIO) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    of = "" if total is None else f"/{total:.0f}"
    share = f"{{task.completed:.0f}}{of} {unit}" if unit else "{task.percentage:3.0f} %"
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn(share),
        TimeElapsedColumn(),
        Left(),
        TextColumn("left  {task.fields[note]}", markup=False),  # a folder may be named [/x]
        console=Console(file=getattr(stream, "stream", stream)),  # past OnTerminal
        redirect_stdout=False,
        speed_estimate_period=3600,  # an epoch may take longer than rich's half minute
    )


class _Lines:
    """A line at the first note, then one now and then, and one at the end.

    What is done before anything is said needs no line.
    """

    def __init__(self, what: str, total: float | None, unit: str, stream: TextIO) -> None:
        self.what, self.total, self.unit, self.stream = what, total, unit, stream
        self.done, self.text = 0.0, ""
        self.began, self.said = time.monotonic(), 0.0
        self.last = ""

    def advance(self, done: float) -> None:
        self.done += done
        self._say()

    def note(self, text: str) -> None:
        self.text = in_line(text)
        self._say(now=not self.last)

    def rename(self, what: str) -> None:
        self.what = what

    def end(self) -> None:
        if self.last:
            self._say(now=True)

    def _say(self, *, now: bool = False) -> None:
        spent = time.monotonic() - self.began
        line = f"{self.what}: {self._amount()}, {_clock(spent)} elapsed{self._left(spent)}"
        line += f"; {self.text}" if self.text else ""
        if line != self.last and (now or spent - self.said >= QUIET):
            print(line, file=self.stream, flush=True)
            self.said, self.last = spent, line

    def _amount(self) -> str:
        if self.total is None:
            return f"{self.done:.0f} {self.unit}"
        if self.unit:
            return f"{self.done:.0f}/{self.total:.0f} {self.unit}"
        return f"{100 * self.done / max(1, self.total):.0f} %"

    def _left(self, spent: float) -> str:
        """The time left, where it can be told."""
        if not self.total or not 0 < self.done < self.total:
            return ""
        return f", {_clock(spent * (self.total - self.done) / self.done)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

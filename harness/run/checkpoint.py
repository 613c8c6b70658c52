"""Where a training is, written down now and then, so that a kill costs minutes and no epochs.

A checkpoint is ``seed-0.checkpoint``: tensors and a block of JSON, as weights are kept; nothing
in it is executed when it is read. It holds whatever a training changes: parameters, buffers, the
optimiser's and the schedule's state, averages, generators, losses, and how far it has come. What
is drawn for batches and copies follows from the seed, and is drawn again. The energies of
evaluated epochs are in the file that grows beside it, ``seed-0.checkpoint-<start>-<any>.npz``:
the checkpoint lists what of it counts, and a resumed training copies that into a file of its own,
so that whoever else may still be writing to the old one changes nothing. What no checkpoint names
of a dead start's is removed like its temporary files (:mod:`harness.claims`).

A training that is taken up gives what an unbroken one gives, bit for bit. Therefore a checkpoint
of other code, data, weights or machine is not taken up; and it is taken up with its own number of
threads, which may decide the last digits.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

import harness
from harness.claims import TakenOver
from harness.errors import FULL, RunFailed, unread, unwritten
from harness.files import UNREADABLE, growing
from harness.files import token as own_token
from harness.run.growing import members, take_over
from harness.run.kept import DamagedTensors, read_tensors, write_tensors
from harness.run.memory import out_of_memory
from harness.run.stop import Stopped, deferred, is_asked
from harness.run.training import Position, Training

Say = Callable[[str], object]
Result = TypeVar("Result")
# Modules of this package that decide what a training gives, or how it is written down.
CODE = (
    *(
        "averaging",
        "checkpoint",
        "energies",
        "growing",
        "history",
        "learn",
        "model",
        "noise",
        "process",
    ),
    *("schedule", "train", "training", "turns", "watch"),
)
MINUTES = 5.0  # between two checkpoints, where nothing else is said


@dataclass
class Checkpoint:
    """Write down where a run's training is, and take it up there.

    Attributes:
        path: of the checkpoint; None: none is ever written.
        identity: what the training is of, word by word; one of another is not taken up.
        minutes: between two of them; 0: only where the training is asked to end.
        say: is told in one line what could not be taken up or written.
        check: raises TakenOver where another start has the training, and with it the checkpoint.
        granted: says how many threads the training may have, where it stands; 0: as before.
        before: seconds that the training took before it was taken up.

    >>> Checkpoint().position is None
    True
    """

    path: Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    minutes: float = MINUTES
    say: Say = lambda text: None
    check: Callable[[], object] = lambda: None
    granted: Callable[[Training], int] = lambda training: 0
    before: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.began = self.written = time.monotonic()
        self.warned = self.hopeless = False
        self.growing = Path()
        self._until_seen = ExitStack()
        self.position: Position | None = None
        self.tensors: dict[str, Tensor] = {}
        if self.path is not None and self.path.is_file():
            self._open(self.path)

    @property
    def threads(self) -> int:
        """Give the number of threads that it was trained with so far; 0: nothing is taken up."""
        return self.position.threads if self.position else 0

    def carry_on(self, work: Callable[[], Result]) -> Result:
        """Do work that takes this checkpoint up; from the start where it does not fit."""
        try:
            return work()
        except Unusable as why:
            self.discard(str(why))
        return work()

    @contextmanager
    def grow(self, path: Path | None = None) -> Iterator[Path]:
        """Give the file to which energies are written, seen whole at ``path`` afterwards.

        The checkpoint and what it needs are removed then, and where the run failed for good; where
        it was stopped, what the last checkpoint needs stays.

        Args:
            path: where; None: nowhere, they are only looked at inside.

        Raises:
            TakenOver: another start has the training by now; what lies there is that one's.
        """
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_own(but=self.position.energies if self.position else "")
        self.growing = growing(self.path)
        with ExitStack() as self._until_seen:
            try:
                yield self.growing
                self._publish(path)
            except BaseException as error:
                if self.hopeless:
                    with suppress(TakenOver):
                        self._remove()
                if self.position is None or self.position.energies != self.growing.name:
                    self.growing.unlink(missing_ok=True)
                if isinstance(error, OSError) and error.errno in FULL:
                    raise unwritten(path or self.growing, error) from None
                raise

    def _publish(self, path: Path | None) -> None:
        """Let the energies be seen; a look at the claim on both sides of whatever takes time."""
        self.check()
        if path is not None:
            with self.growing.open("rb") as file:
                os.fsync(file.fileno())
            self.check()
            self.growing.replace(path)
        self._remove()

    def take_up(self, training: Training) -> None:
        """Let a training that has just begun stand where the checkpoint left it, if there is one.

        Raises:
            Unusable: what the checkpoint holds does not fit; the training has to begin anew.
        """
        if self.position is None or self.path is None:
            return
        try:
            energies = self.path.with_name(self.position.energies)
            take_over(training.history.energies, energies, self.position.members)
            training.restore(self.position, self.tensors)
        except UNREADABLE as error:
            if out_of_memory(error):  # which says nothing of the checkpoint: it stays
                raise
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise error if error.errno in FULL else unread(energies, error) from None
            raise Unusable(_one_line(error)) from error
        self.before = self.position.seconds
        self.tensors = {}

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Let a request to end wait for the next :meth:`look`, if there are checkpoints.

        After the last one it waits until :meth:`grow` is done: what is trained is not thrown away.
        A training that fails inside would fail again.
        """
        if self.path is None:
            yield
            return
        self._until_seen.enter_context(deferred())
        try:
            yield
        except TakenOver:  # what lies there is the other's
            raise
        except RunFailed:
            self.hopeless = True
            raise

    def look(self, training: Training) -> None:
        """Write the checkpoint if it is time, between two batches; take threads that are granted.

        Raises:
            Stopped: this process was asked to end; it is written before.
        """
        if (threads := self.granted(training)) > (had := torch.get_num_threads()):
            grown = training.history.grown
            grown += [] if grown else [(1, 0, had)]
            grown.append((training.epoch, training.batches, threads))
            torch.set_num_threads(threads)
        if self.path is None:
            return
        if is_asked():
            self._write(training)
            raise Stopped
        if self.minutes and time.monotonic() - self.written >= 60 * self.minutes:
            self._write(training)

    @contextmanager
    def around(self, training: Training) -> Iterator[None]:
        """Let an evaluation inside count only when it is whole."""
        training.evaluated = len(training.history.energies.members())
        try:
            yield
        except Stopped:
            if self.path is not None:
                self._write(training)
            raise
        training.evaluated = None

    def _write(self, training: Training) -> None:
        """Write it; what hinders that is said once, and ends no training."""
        assert self.path is not None
        self.check()
        history, epoch = training.history, training.epoch
        try:
            history.energies.settle()
            position = Position(
                identity=dict(self.identity),
                threads=torch.get_num_threads(),
                seconds=self.before + time.monotonic() - self.began,
                epoch=epoch,
                batches=training.batches,
                total=training.total,
                loss=history.loss[: epoch - 1],
                holdout={e: loss for e, loss in history.holdout.items() if e < epoch},
                bank_bytes=history.bank_bytes,
                grown=list(history.grown),
                steps=training.average.steps,
                turns=training.turns.steps,
                rates=[group["lr"] for group in training.optimiser.param_groups],
                schedule=training.schedule.state_dict(),
                energies=self.growing.name,
                members=members(history.energies, training.evaluated),
            )
            tensors = training.tensors()
            write_tensors(self.path, position, tensors)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            if not self.warned:
                self.say(
                    f"no checkpoint could be written: {_one_line(error)}; the training goes on"
                )
            self.warned = True
        else:
            before, self.position = self.position, position
            if before and before.energies != position.energies:
                self.path.with_name(before.energies).unlink(missing_ok=True)
        self.written = time.monotonic()

    def _open(self, path: Path) -> None:
        """Read the checkpoint, if it is of this training; else say why it is not taken up."""
        try:
            position, tensors = read_tensors(path, Position)
        except DamagedTensors as error:
            self.discard(_one_line(error))
            return
        if not position.energies.startswith(f"{path.name}-") or "/" in position.energies:
            self.discard("it is damaged: its energies are no file of its own")
            return
        self.position, self.tensors = position, tensors
        other = [w for w, v in self.identity.items() if position.identity.get(w) != v]
        if other:
            self.discard(f"it is of other {' and '.join(other)}")

    def discard(self, why: str) -> None:
        """Say why the checkpoint is not taken up, and remove it.

        Raises:
            TakenOver: it is another start's by now.
        """
        self._remove()
        self.say(f"{self.path}: not taken up, as {why}; it is trained from the start")
        self.position, self.tensors = None, {}

    def _remove(self) -> None:
        """Remove the checkpoint and what it names, unless another start has the training."""
        assert self.path is not None
        self.check()
        self.path.unlink(missing_ok=True)
        if self.position is not None:
            self.path.with_name(self.position.energies).unlink(missing_ok=True)
        self._remove_own()

    def _remove_own(self, *, but: str = "") -> None:
        """Remove what a worker of this start left that was killed; never another start's."""
        assert self.path is not None
        for file in self.path.parent.glob(f"{self.path.name}-{own_token()}-*.npz"):
            if file.name != but:
                file.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a checkpoint and all beside it, where its training's energies are whole."""
    for file in (path, *path.parent.glob(f"{path.name}-*.npz")):
        file.unlink(missing_ok=True)


class Unusable(Exception):
    """Say that a checkpoint that fitted by its words did not fit in fact.

    >>> str(Unusable("a member is missing"))
    'a member is missing'
    """


@cache
def code_digest() -> str:
    """Name the code that decides what a training gives: of methods, and of the training core."""
    root = Path(harness.__file__).parent
    files = [*(root / "methods").rglob("*.py"), *(root / "methods").rglob("*.cpp")]
    files += [root / "run" / f"{name}.py" for name in CODE]
    sources = (f.read_bytes() for f in sorted(files) if f.is_file())
    return hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]

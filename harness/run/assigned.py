"""A task that a node of a cluster has, as the driver follows it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.run import checkpoint
from harness.run.arriving import Arriving
from harness.run.executors.contract import Event
from harness.run.job import Job
from harness.run.node import News


@dataclass(eq=False)
class Assigned:
    """Hold a task that a node has, or will have.

    Attributes:
        left: jobs of it that have not ended.
        given: jobs that the node was given, which speaks of them by number.
        at: which node, once it is known.
        host: the node's name.
        lost: times that a worker with it was lost.
        trained: whether the node is told that the driver has its energies.
        energies: those, where the node asked for them.
        alone: whether it needs all memory of a node, as with less it was killed.
        again: whether it is to be given out anew when the node has ended it.
        refused: node → why it cannot run this.
        epochs: the last one that was told, by variant.
        files: what arrives of it.

    >>> Assigned([]).at
    ''
    """

    left: list[Job]
    given: Sequence[Job] = ()
    at: str = ""
    host: str = ""
    lost: int = 0
    trained: bool = False
    energies: bytes = b""
    alone: bool = False
    again: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    files: Arriving = field(default_factory=Arriving)

    def fail(self, reason: str, traceback: str = "") -> Iterator[Event]:
        """Yield that all that is left of it has failed."""
        left, self.left = self.left, []
        yield from (Event(j, "failed", reason=reason, traceback=traceback) for j in left)

    def take(self, job: Job, news: News) -> None:
        """Write a piece of what a run leaves; an empty one says that the file is whole.

        Raises:
            RunFailed: no room, or another start took the training over.
            InputError: it cannot be written for another reason.
        """
        place = job.training_place if news.text == "energies" else job.place
        path: Path = getattr(place, news.text)
        if news.content:
            self.files.add(path, news.content)
            return
        job.check_claim()
        self.files.finish(path)
        if news.text == "record":
            place.failure.unlink(missing_ok=True)
        if news.text == "energies":
            job.check_claim()  # again, as what was written may have taken long
            checkpoint.remove(place.checkpoint)

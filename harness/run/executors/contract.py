"""What an executor is: it takes tasks, tells what happens to them, and owns nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol

from harness.experiment.settings import Settings
from harness.run.job import Job

Task = Sequence[Job]  # jobs that share one training, run one after the other in one process


@dataclass(frozen=True)
class Event:
    """Tell what happened to a job.

    Attributes:
        job: which one.
        kind: ``begun`` (on another machine; one that was lost there begins anew), ``epoch`` (one
            more is trained), ``said`` (something a person should know), ``done``, or ``failed``
            (with the reason).
        epoch: its number, from 1.
        host: the machine on which it has begun.
        reason: why it failed, or what is said, in one line.
        traceback: of a failure that nobody foresaw.
    """

    job: Job
    kind: Literal["begun", "epoch", "said", "done", "failed"]
    epoch: int = 0
    reason: str = ""
    traceback: str = ""
    host: str = ""


class Executor(Protocol):
    """Run tasks somewhere.

    A module of this package with a function ``open_executor(settings)`` that returns one is all
    that a new executor takes.
    """

    def prepare(self) -> None:
        """Begin to start up, beside what this process does; once is enough."""
        ...

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Run the tasks and yield what happens, every job's end among it.

        A task is asked for when somebody is free to run it, and is this start's from then on. In
        place of one comes None while other starts hold all that is left: ask again in a moment;
        and an empty one where nothing is left: ask again when something ends, as it may be lost.
        Where the tasks are a generator, whoever asks may send it the digests of features that are
        near: of these comes the next task, if there is one.

        A job that fails takes those after it with it where their training failed, and only
        there: where the energies are saved (:meth:`Job.is_trained`), they are still run.

        Leaving the iteration early (Ctrl-C) ends what is running: trainings write a checkpoint,
        which the next start takes up; records are written whole or not at all.
        """
        ...


class Elsewhere(Executor, Protocol):
    """Run tasks on other machines: their devices, their number, and features made there.

    Its module has ``ELSEWHERE = True``.

    Attributes:
        passes: images that passed a backbone there.
        reused: images whose features were there.
    """

    passes: int
    reused: int

    @property
    def where(self) -> str:
        """Say which runs were recorded where."""
        ...

    def settle(self, settings: Settings) -> Settings:
        """Resolve the settings' device where the runs will be.

        Raises:
            InputError: there is no such device there, or nobody answers.
        """
        ...


def executor_elsewhere(settings: Settings) -> Elsewhere | None:
    """Open the executor that settings name if it runs on other machines; None: it does not."""
    module = import_module(f"harness.run.executors.{settings.executor}")
    there: Elsewhere | None = (
        module.open_executor(settings) if getattr(module, "ELSEWHERE", False) else None
    )
    return there


def open_executor(settings: Settings) -> Executor:
    """Open the executor that settings name, a module of this package.

    Args:
        settings: where and how a study is run; ``jobs`` is how many tasks go at a time.
    """
    module = import_module(f"harness.run.executors.{settings.executor}")
    executor: Executor = module.open_executor(settings)
    return executor

"""Trainings shared with other starts of the harness: each is run by whoever claims it first."""

import json
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from harness.claims import Claim, Claims
from harness.errors import InputError, RunFailed
from harness.experiment.store import write_failure
from harness.heartbeat import Holder, Running, now
from harness.progress import Bar, progress
from harness.run.executors.contract import Event, Executor, Task
from harness.run.job import Job
from harness.run.order import longest_first
from harness.run.outcome import Outcome
from harness.run.plan import Plan

Say = Callable[[str], object]


@dataclass
class _Held:
    """A training that is run here: its claim, and its jobs that have not ended."""

    claim: Claim
    jobs: list[Job]
    said: Running
    epochs: int = 0  # seen here; 0: its energies were there
    done: int = 0
    lost: list[Job] = field(default_factory=list)  # ended after another start took it over


class Shares:
    """Hand out tasks that no other start runs, as an executor asks for them.

    The longest trainings come first, so that no core waits long for the last one. Jobs that
    another start has recorded meanwhile, or found to fail, are not run again.

    Args:
        claims: in the folder of results.
        jobs: what this start would run were it alone.
        ended: is told of a job that another start ended, and the reason if it failed there.
        waiting: is told what others hold, when nothing is left to do here but wait for them.

    >>> list(Shares(Claims(Path("nowhere")), [], print, print).tasks())
    []
    """

    def __init__(
        self,
        claims: Claims,
        jobs: Iterable[Job],
        ended: Callable[[Job, str], object],
        waiting: Callable[[list[str]], object],
    ) -> None:
        self.claims, self.ended, self.waiting = claims, ended, waiting
        self.left: dict[str, list[Job]] = {}  # jobs that differ in scoring alone: trained once
        self.held: dict[str, _Held] = {}
        self.trained = 0  # trainings, here
        self.reused = 0  # runs recorded here of a training that was there
        for job in longest_first(jobs, lambda job: job.training_work):
            self.left.setdefault(work_of(job), []).append(job)
        self._notes = {job.place.failure: _note(job) for t in self.left.values() for job in t}

    def tasks(self) -> Generator[Task | None, Collection[str] | None]:
        """Yield tasks, claimed; None while others hold all that is left: ask again in a moment.

        An empty one says that there is nothing to wait for but what this start itself runs.
        Sent digests of features, it prefers the longest training that needs one of these.
        """
        near: Collection[str] | None = None
        lost: set[str] = set()  # to starts that were faster, since None was yielded last
        while self.left or self.held:
            taken = self.claims.taken() | lost if self.left else lost
            free = [n for n in self.left if n not in taken]
            close = (n for n in free if near and self.left[n][0].key.digest in near)
            name = next(close, free[0] if free else None)
            if name is not None and self._is_ended(name):
                continue
            if name is None:  # other starts hold all that is left
                if not self.held:
                    self.waiting(list(self.left))
                lost.clear()
                near = yield None if self.left else ()
            elif (claim := self.claims.take(name)) is None:
                lost.add(name)
            elif self._is_ended(name):  # before the claim was won
                self.claims.release(claim)
            else:
                near = yield self._start(name, claim)

    def note(self, event: Event) -> bool:
        """Follow what happens to a job; false for a failure that is none: the claim was lost."""
        name = work_of(event.job)
        held = self.held[name]
        if event.kind == "begun":
            held.said = msgspec.structs.replace(held.said, host=event.host, since=now())
            self._say()
            return True
        if event.kind == "epoch":
            held.epochs += 1
            held.said = msgspec.structs.replace(held.said, epoch=event.epoch)
            self._say()
            return True
        held.jobs.remove(event.job)
        lost = event.kind == "failed" and not held.claim.is_held()
        if lost:
            held.lost.append(replace(event.job, claim=None))
        if event.kind == "done":
            held.done += 1
            self.reused += not held.epochs
        return not lost

    def give_back(self, job: Job) -> None:
        """Let the claim of a job's training go, if that was its last one; all is written then."""
        name = work_of(job)
        held = self.held[name]
        if held.jobs:
            return
        if held.epochs and not held.lost and (held.done or job.is_trained()):
            self.trained += 1
        if held.lost:
            self.left[name] = held.lost
        del self.held[name]
        self.claims.release(held.claim)
        self._say()

    def _start(self, name: str, claim: Claim) -> Task:
        jobs = [replace(job, claim=claim) for job in self.left.pop(name)]
        place = jobs[0].place
        said = Running(
            digest=place.digest,
            dataset=place.dataset,
            category=place.category,
            seed=place.seed,
            epochs=jobs[0].epochs,
            since=now(),
        )
        self.held[name] = _Held(claim, list(jobs), said)
        self._say()
        return jobs

    def _is_ended(self, name: str) -> bool:
        """Whether all of a training's jobs were ended by other starts; each is told of."""
        left = []
        for job in self.left[name]:
            recorded = job.is_recorded()
            if not recorded and _note(job) == self._notes[job.place.failure]:
                left.append(job)
            else:
                self.ended(job, "" if recorded else _reason(job))
        self.left[name] = left
        if not left:
            del self.left[name]
        return not left

    def _say(self) -> None:
        """Let others know what runs here."""
        self.claims.signs.say(running=tuple(held.said for held in self.held.values()))


def work_of(job: Job) -> str:
    """Name a job's training, the same on every machine that shares the folder of results."""
    return job.training_place.energies.relative_to(job.results / "runs").as_posix()


def _note(job: Job) -> tuple[int, int] | None:
    """Which note of a failure there is, to see whether another one comes."""
    with suppress(OSError):
        about = job.place.failure.stat()
        return about.st_ino, about.st_mtime_ns
    return None


def _reason(job: Job) -> str:
    """Why a job failed in another start."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        note = json.loads(job.place.failure.read_text(encoding="utf-8"))
        return f"{note['reason']} (in another start)"
    return "it failed in another start"


def train_shared(
    jobs: Sequence[Job],
    plan: Plan,
    executor: Executor,
    claims: Claims,
    outcome: Outcome,
    say: Say = print,
) -> None:
    """Run jobs, shared with other starts; the outcome counts them, ``say`` is told what they say.

    The bar counts multiply-accumulates, so that its time left is fair.
    """
    left: dict[Path, float] = {}
    for job in jobs:
        left.setdefault(job.training_place.energies, job.training_work)
    with progress(f"training 0/{len(jobs)} runs", sum(left.values())) as bar:
        ended = _Ended(bar, left, len(jobs))

        def elsewhere(job: Job, reason: str) -> None:
            ended.count(job)
            if reason:
                outcome.failed.append((_name(job, plan), reason))
            else:
                outcome.taken_up += 1

        def waiting(names: list[str]) -> None:
            holder = name_of(claims.holder(names[0]))
            bar.note(f"waiting for {len(names)} trainings of others: {names[0]} by {holder}")

        shares = Shares(claims, jobs, elsewhere, waiting)
        events = executor.run(shares.tasks())
        try:
            for event in events:
                if event.kind == "said":
                    say(f"{_name(event.job, plan)}: {event.reason}")
                    continue
                counts = shares.note(event)
                if event.kind == "begun":
                    continue
                if event.kind == "epoch":
                    epochs = f"epoch {event.epoch}/{event.job.epochs}"
                    bar.note(f"{_name(event.job, plan)}, {epochs}")
                    ended.advance(event.job, event.job.epoch_work)
                    continue
                if counts:
                    ended.count(event.job)
                    _count(event, plan, outcome)
                else:
                    bar.note(f"{_name(event.job, plan)}: {event.reason}")
                shares.give_back(event.job)
        finally:
            if isinstance(events, Generator):  # what runs ends before its claims are given back
                events.close()
    outcome.trained += shares.trained
    outcome.taken_up += shares.reused


@dataclass
class _Ended:
    """How many of the runs have ended, and how much work is left of each training."""

    bar: Bar
    left: dict[Path, float]
    runs: int
    ended: int = 0

    def advance(self, job: Job, work: float) -> None:
        self.left[job.training_place.energies] -= work
        self.bar.advance(work)

    def count(self, job: Job) -> None:
        """Count a run; what it took up, or was left when it failed, is done."""
        self.ended += 1
        self.bar.rename(f"training {self.ended}/{self.runs} runs")
        self.advance(job, self.left[job.training_place.energies])


def _count(event: Event, plan: Plan, outcome: Outcome) -> None:
    """Note the end of a run."""
    if event.kind == "done":
        outcome.recorded += 1
        return
    outcome.failed.append((_name(event.job, plan), event.reason))
    with suppress(RunFailed, InputError):  # a full disk, of which the reason is most likely too
        write_failure(event.job.place, event.reason, traceback=event.traceback)


def _name(job: Job, plan: Plan) -> str:
    return f"{job.category.name}, {plan.study.named[job.variant]}, seed {job.seed}"


def name_of(holder: Holder | None) -> str:
    """Say who another start is, as far as is known.

    >>> name_of(Holder(host="a", process=7))
    'another start (a, process 7)'
    """
    return f"another start ({holder.where})" if holder else "another start"

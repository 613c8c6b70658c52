"""Runs on a Ray cluster, a task of Ray's for each training; docs/ray.md says how to start one.

The driver, which is the start of the harness, keeps claims, counts and progress. Through Ray go
descriptions of runs and what runs leave, never features. A task of Ray's does as
:mod:`harness.run.node` says and yields what happens; an error of a run is an event like any other,
so what Ray itself raises means that a worker or a node was lost.
"""

import inspect
import pickle
import socket
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.claims import PAUSE
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.run import node
from harness.run.assigned import Assigned
from harness.run.cluster import Share, connected, device_there, share_of, why
from harness.run.executors.contract import Event, Task
from harness.run.job import Job
from harness.run.memory import PROCESS

ELSEWHERE = True
RETRIES = 3  # times that a task is given to another worker where one was lost
PATIENCE = 60.0  # seconds in which a worker that is told to end writes its checkpoint
NEWS = 4  # pieces of news of a task that Ray keeps until the driver has read them
LOOK = 5.0  # seconds between two looks at which nodes there are

Told = Any  # a generator of Ray's, which is untyped, of the news of a task
Running = dict[Told, Assigned]


class RayPool:
    """Run tasks on the nodes of a Ray cluster.

    Args:
        settings: ``ray_address`` is the cluster's, ``jobs`` how many runs go at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ray = connected(settings)
        self.near: dict[str, set[str]] = defaultdict(set)  # node → features that are there
        self.freed: list[str] = []  # nodes whose run has ended, and that have no other yet
        self.unfit: set[str] = set()  # nodes that refused a run, while others do not
        self.passes = self.reused = 0
        self.ran: Counter[str] = Counter()
        self._looked, self._share = 0.0, Share(1, 0.0, 1, 0)

    def settle(self, settings: Settings) -> Settings:
        """See :class:`Elsewhere`: a node says whether it has the device."""
        self.settings = device_there(self.ray, settings, list(self._alive().values()))
        return self.settings

    @property
    def where(self) -> str:
        """See :class:`Elsewhere`."""
        return "runs by node: " + ", ".join(f"{at} {n}" for at, n in sorted(self.ran.items()))

    def prepare(self) -> None:
        """See :class:`Executor`: the cluster is there already."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """See :class:`Executor`."""
        source, again = iter(tasks), list[Assigned]()
        running: Running = {}
        try:
            while True:
                more = self._hand_out(again, source, running)
                if not running and not more:
                    return
                if not running:
                    time.sleep(PAUSE)
                    continue
                asks = more and len(running) < self._share.runs
                for told in self._ready(running, PAUSE if asks else LOOK):
                    yield from self._news(told, running, again)
        except BaseException:  # Ctrl-C, or a claim that could not be written
            with suppress(RunFailed, self.ray.exceptions.RayError):  # the cluster may be gone
                self._stop(running)
            raise
        finally:
            self._end(running)

    def _hand_out(
        self, again: list[Assigned], source: Iterator[Task | None], running: Running
    ) -> bool:
        """Submit tasks as long as there is room; false: there are none left, not even later.

        None is submitted ahead: a claimed task that waits is one that no other start can take.
        """
        self._look()
        while len(running) < self._share.runs:
            run, at = again.pop() if again else None, self.freed.pop() if self.freed else ""
            if run is None:
                task = _next(source, self.near.get(at, set()))
                if not task:
                    if at:
                        self.freed.append(at)
                    return task is None
                run = Assigned(list(task), trained=task[0].is_trained())
            running[self._submit(run, at)] = run
        return True

    def _submit(self, run: Assigned, at: str) -> Told:
        """Give a task to Ray; to this node where its features are there."""
        run.given, run.at, run.again = list(run.left), "", False
        job, settings = run.left[0], self.settings
        order = node.Order(
            jobs=[self._described(job) for job in run.given],
            weights=settings.weights.absolute() if settings.weights else None,
            cache_limit=settings.cache_limit,
            driver=f"{socket.gethostname()} {job.results.absolute()}",
            folder=Path.cwd(),
            trained=run.trained,
            energies=run.energies,
            recorded=node.recorded(run.given),
        )
        need = PROCESS + (job.memory if job.device == "cpu" else PROCESS)
        # A process that has used a GPU is not given another: torch keeps to the one it saw first.
        remote = self.ray.remote(max_calls=1) if self._share.gpus else self.ray.remote
        task = remote(_on_node).options(
            num_returns="streaming",
            num_cpus=self._share.threads,
            num_gpus=self._share.gpus,
            memory=(self._share.memory if run.alone else min(need, self._share.memory)) or None,
            max_retries=0,  # which would repeat news; a lost one is given out anew below
            name=f"{job.category.name} {job.place.digest} seed {job.seed}",
            scheduling_strategy=self._strategy(run, at),
            _generator_backpressure_num_objects=NEWS,
        )
        return task.remote(node.versions(), pickle.dumps(order))

    def _strategy(self, run: Assigned, at: str) -> Any:  # noqa: ANN401
        """Where Ray is to run a task: here if its features are; nowhere that it is refused."""
        strategies, able = self.ray.util.scheduling_strategies, set(self._able())
        wide, narrow = self.unfit | set(run.refused), set(run.refused)
        bad = next((bad for bad in (wide, narrow) if able - bad), set())
        if at not in bad and run.left[0].key.digest in self.near.get(at, ()):
            return strategies.NodeAffinitySchedulingStrategy(at, soft=True)
        if not bad:
            return "SPREAD"
        others = strategies.NotIn(*sorted(bad))
        return strategies.NodeLabelSchedulingStrategy(hard={"ray.io/node-id": others})

    def _described(self, job: Job) -> Job:
        """A job as a node is told of it: by absolute paths, with its share of the cluster."""
        claim = job.claim and replace(job.claim, file=job.claim.file.absolute())
        return replace(
            job,
            results=job.results.absolute(),
            cache=job.cache.absolute(),
            claim=claim,
            threads=self._share.threads,
            parallel=self._share.runs,
        )

    def _ready(self, running: Running, seconds: float) -> list[Told]:
        """A task that has something to say, if one has so soon."""
        try:
            ready: list[Told] = self.ray.wait(list(running), timeout=seconds)[0]
        except self.ray.exceptions.RayError as error:
            raise RunFailed(
                f"the Ray cluster answers no more ({why(error)}); start again when it does: what "
                "is recorded stays"
            ) from None
        return ready

    def _news(self, told: Told, running: Running, again: list[Assigned]) -> Iterator[Event]:
        """What a task says next, or that it has ended, in whichever way."""
        run, errors = running[told], self.ray.exceptions
        try:
            said = self.ray.get(next(told))
        except StopIteration:
            self._forget(told, running)
            if run.again:
                again.append(run)
            else:
                yield from run.fail("its worker ended without a word")
            return
        except errors.RayTaskError as error:
            self._forget(told, running)
            yield from run.fail(why(error), str(error))
            return
        except errors.RayError as error:
            yield from self._lost(told, running, again, error)
            return
        if isinstance(said, node.News):
            try:
                yield from self._follow(run, said)
            except (RunFailed, InputError, OSError) as error:  # a full disk, a claim that is lost
                self.ray.cancel(told, force=True)
                self._forget(told, running)
                yield from run.fail(str(error))
        else:
            run.at, run.host = said
            yield Event(run.left[0], "begun", host=run.host)

    def _follow(self, run: Assigned, news: node.News) -> Iterator[Event]:
        """What a node tells of a task, as events."""
        job = run.given[news.job]
        if news.kind == "here":
            self.near[run.at].add(news.text)
            self.passes, self.reused = self.passes + news.passes, self.reused + news.reused
        elif news.kind == "refused":
            yield from self._refused(run, news.text)
        elif news.kind == "wants":
            run.again, run.energies = True, job.training_place.energies.read_bytes()
        elif news.kind == "file":
            run.take(job, news)
        elif news.kind == "epoch":
            if news.epoch > run.epochs[job.place.digest]:  # not told by a worker that was lost
                run.epochs[job.place.digest] = news.epoch
                yield Event(job, "epoch", news.epoch)
        elif news.kind == "said":
            yield Event(job, "said", reason=news.text)
        else:
            run.left.remove(job)
            if news.kind == "done":
                self.ran[f"{run.host} ({run.at[:6]})"] += 1
                yield Event(job, "done")
            else:
                yield Event(job, "failed", reason=news.text, traceback=news.traceback)

    def _lost(
        self, told: Told, running: Running, again: list[Assigned], error: Exception
    ) -> Iterator[Event]:
        """A worker or a node is gone: another takes the task, a few times.

        One that was killed for want of memory is given all of a node's, once.
        """
        run = self._forget(told, running)
        self.near.pop(run.at, None)
        run.lost += 1
        where = f"its worker on node {run.host or '?'} was lost ({type(error).__name__})"
        memory = isinstance(error, self.ray.exceptions.OutOfMemoryError)
        if memory and run.alone:
            yield from run.fail(f"node {run.host} ran out of memory, with all of it for this run")
        elif run.lost > RETRIES:
            yield from run.fail(f"{where}, {run.lost} times in all; out of memory?")
        elif run.left:
            yield Event(run.left[0], "said", reason=f"{where}; it is given to another")
            run.trained, run.energies = run.left[0].is_trained(), b""
            run.alone = run.alone or memory
            again.append(run)

    def _refused(self, run: Assigned, reason: str) -> Iterator[Event]:
        """A node cannot run a task: others are asked, and it is asked for no more while they can.

        What all of them refuse is the task's fault.
        """
        able, first = set(self._able()), run.at not in self.unfit
        run.refused[run.at] = reason
        self.unfit.add(run.at)
        if able <= self.unfit:
            self.unfit.clear()
        self._looked = 0.0
        run.again = bool(able - set(run.refused))
        if not run.again:
            yield from run.fail(reason)
        elif first:
            yield Event(run.left[0], "said", reason=f"{reason}; other nodes are asked")

    def _forget(self, told: Told, running: Running) -> Assigned:
        run = running.pop(told)
        if run.at:
            self.freed.append(run.at)
        run.files.drop()
        return run

    def _stop(self, running: Running) -> None:
        """Tell all workers to end, and wait until those in a run have written where they are."""
        if running:
            with suppress(OSError):  # of a terminal that is gone
                print(
                    f"harness: stopping {len(running)} tasks of Ray, which the next start takes "
                    "up; Ctrl-C again ends at once",
                    file=sys.stderr,
                )
        for told in running:
            self.ray.cancel(told, force=False)
        until = time.monotonic() + PATIENCE
        while running and (left := until - time.monotonic()) > 0:
            for told in self._ready(running, left):
                try:
                    self.ray.get(next(told))
                except (StopIteration, self.ray.exceptions.RayError):
                    self._forget(told, running)

    def _end(self, running: Running) -> None:
        for told in list(running):
            with suppress(self.ray.exceptions.RayError):
                self.ray.cancel(told, force=True)
            self._forget(told, running)

    def _alive(self) -> dict[str, dict[str, float]]:
        return {n["NodeID"]: n["Resources"] for n in self.ray.nodes() if n["Alive"]}

    def _able(self) -> dict[str, dict[str, float]]:
        """Nodes that have what a run needs."""
        kinds = {"CPU", "CPU" if self.settings.device == "cpu" else "GPU"}
        return {
            at: has for at, has in self._alive().items() if all(has.get(k, 0) >= 1 for k in kinds)
        }

    def _look(self) -> None:
        """See now and then what the cluster has; nodes come and go."""
        if self._looked and time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        with suppress(RunFailed):  # none now: what is submitted waits for one
            able, asked = self._able(), self.settings
            fit = [has for at, has in able.items() if at not in self.unfit] or [*able.values()]
            self._share = share_of(fit, jobs=asked.jobs, device=asked.device)


def open_executor(settings: Settings) -> RayPool:
    """Open the pool; see :func:`harness.run.executors.contract.open_executor`."""
    return RayPool(settings)


def _on_node(expected: Mapping[str, str], order: bytes) -> Iterator[Any]:
    """A task of Ray's: first which node it is on, then the news."""
    context = import_module("ray").get_runtime_context()
    # Else every process that is started from here would run Ray's own main file first.
    vars(sys.modules["__main__"]).pop("__file__", None)
    yield context.get_node_id(), socket.gethostname()
    yield from node.work(expected, order)


def _next(source: Iterator[Task | None], near: set[str]) -> Task | None:
    """The next task, of near features if there are any; an empty one: no more."""
    if near and isinstance(source, Generator):
        if inspect.getgeneratorstate(source) != inspect.GEN_CREATED:
            with suppress(StopIteration):
                task: Task | None = source.send(near)
                return task
            return ()
    return next(source, ())

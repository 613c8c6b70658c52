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
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.claims import PAUSE
from harness.errors import InputError, RunFailed, unwritten
from harness.experiment.settings import Settings
from harness.files import temporary, written_whole
from harness.run import checkpoint, node
from harness.run.cluster import Share, connected, share_of
from harness.run.executors.contract import Event, Task
from harness.run.job import Job
from harness.run.machine import has_tf32, torch_device
from harness.run.memory import PROCESS

ELSEWHERE = True
RETRIES = 3  # times that a task is given to another worker where one was lost
PATIENCE = 60.0  # seconds in which a worker that is told to end writes its checkpoint
NEWS = 4  # pieces of news of a task that Ray keeps until the driver has read them
LOOK = 5.0  # seconds between two looks at which nodes there are


@dataclass(eq=False)
class _Run:
    """A task that a node has, or will have: its jobs that have not ended, by their numbers."""

    left: dict[int, Job]
    at: str = ""  # which node, once it is known
    host: str = ""
    lost: int = 0
    trained: bool = False  # whether the node is told that the driver has its energies
    wants: bool = False  # whether it is to be given out anew with them
    energies: bytes = b""
    epochs: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    parts: dict[Path, Path] = field(default_factory=dict)  # files that are not whole yet

    @property
    def first(self) -> Job:
        return next(iter(self.left.values()))


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
        self.passes = self.reused = 0
        self.ran: Counter[str] = Counter()
        self._looked, self._share = 0.0, Share(1, 0.0, 1, 0)

    def settle(self, settings: Settings) -> Settings:
        """See :class:`Elsewhere`: a node says whether it has the device."""
        names = self.ray.cluster_resources()
        device = settings.device
        if device == "auto":
            device = "cuda" if names.get("GPU", 0) >= 1 else "cpu"
        if device not in ("cpu", "cuda"):
            raise InputError(
                f"--device: expected auto, cpu or cuda with --executor ray, which chooses among a "
                f"node's; got {device}"
            )
        settings = replace(settings, device=device)
        try:
            share_of(self._nodes(), jobs=settings.jobs, device=device)
        except RunFailed as error:
            raise InputError(str(error)) from None
        if device == "cuda":
            ask = self.ray.remote(_settled).options(num_cpus=1, num_gpus=1, max_retries=RETRIES)
            device, tf32 = self.ray.get(ask.remote(settings))
            if not device or tf32 < settings.tf32:
                raise InputError(
                    f"--device {settings.device}{' --tf32' if settings.tf32 else ''}: expected "
                    "nodes whose GPU torch can use so; the one that was asked cannot"
                )
        self.settings = settings
        return settings

    @property
    def where(self) -> str:
        """See :class:`Elsewhere`."""
        return "runs by node: " + ", ".join(f"{at} {n}" for at, n in sorted(self.ran.items()))

    def prepare(self) -> None:
        """See :class:`Executor`: the cluster is there already."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """See :class:`Executor`."""
        source, again = iter(tasks), list[_Run]()
        running: dict[Any, _Run] = {}
        try:
            while True:
                more = self._hand_out(again, source, running)
                if not running and not more:
                    return
                if not running:
                    time.sleep(PAUSE)
                    continue
                asks = more and len(running) < self._share.runs
                ready, _ = self.ray.wait(list(running), timeout=PAUSE if asks else LOOK)
                for told in ready:
                    yield from self._news(told, running, again)
        except (KeyboardInterrupt, GeneratorExit):
            self._stop(running)
            raise
        finally:
            self._end(running)

    def _hand_out(
        self, again: list[_Run], source: Iterator[Task | None], running: dict[Any, _Run]
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
                run = _Run(dict(enumerate(task)), trained=task[0].is_trained())
            running[self._submit(run, at)] = run
        return True

    def _submit(self, run: _Run, at: str) -> Any:  # noqa: ANN401 - Ray is untyped
        """Give a task to Ray; to this node where its features are there."""
        job, settings = run.first, self.settings
        order = node.Order(
            jobs=[self._described(job) for job in run.left.values()],
            weights=settings.weights.absolute() if settings.weights else None,
            cache_limit=settings.cache_limit,
            driver=f"{socket.gethostname()} {job.results.absolute()}",
            folder=Path.cwd(),
            trained=run.trained,
            energies=run.energies,
        )
        need = PROCESS + (job.memory if job.device == "cpu" else PROCESS)
        scheduling = import_module("ray.util.scheduling_strategies")
        there = job.key.digest in self.near.get(at, ())
        task = self.ray.remote(_on_node).options(
            num_returns="streaming",
            num_cpus=self._share.threads,
            num_gpus=self._share.gpus,
            memory=min(need, self._share.memory) or None,
            max_retries=0,  # which would repeat news; a lost one is given out anew below
            name=f"{job.category.name} {job.place.digest} seed {job.seed}",
            scheduling_strategy=scheduling.NodeAffinitySchedulingStrategy(at, soft=True)
            if there
            else "SPREAD",
            _generator_backpressure_num_objects=NEWS,
        )
        return task.remote(node.versions(), pickle.dumps(order))

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

    def _news(self, told: Any, running: dict[Any, _Run], again: list[_Run]) -> Iterator[Event]:  # noqa: ANN401
        """What a task says next, or that it has ended, in whichever way."""
        run, errors = running[told], self.ray.exceptions
        try:
            said = self.ray.get(next(told))
        except StopIteration:
            self._forget(told, running)
            if run.wants:
                run.wants = False
                again.append(run)
            else:
                yield from _failed(run, "its worker ended without a word")
            return
        except errors.RayTaskError as error:
            self._forget(told, running)
            yield from _failed(run, _why(error), str(error))
            return
        except errors.OutOfMemoryError:
            self._forget(told, running)
            yield from _failed(run, f"node {run.host} ran out of memory; try fewer --jobs")
            return
        except errors.RayError as error:
            yield from self._lost(told, running, again, error)
            return
        if isinstance(said, node.News):
            try:
                yield from self._follow(run, said)
            except (RunFailed, InputError) as error:  # a full disk, a claim that is lost
                self.ray.cancel(told, force=True)
                self._forget(told, running)
                yield from _failed(run, str(error))
        else:
            run.at, run.host = said

    def _follow(self, run: _Run, news: node.News) -> Iterator[Event]:
        """What a node tells of a task, as events."""
        job = run.left.get(news.job, run.first) if run.left else None
        if news.kind == "here":
            self.near[run.at].add(news.text)
            self.passes, self.reused = self.passes + news.passes, self.reused + news.reused
        elif news.kind == "refused":
            yield from _failed(run, news.text)
        elif news.kind == "wants" and job:
            run.wants, run.energies = True, job.training_place.energies.read_bytes()
        elif news.kind == "file" and job:
            _take(run, job, news)
        elif news.kind == "epoch" and job:
            if news.epoch > run.epochs[news.job]:  # not told before by a worker that was lost
                run.epochs[news.job] = news.epoch
                yield Event(job, "epoch", news.epoch)
        elif news.kind == "said" and job:
            yield Event(job, "said", reason=news.text)
        elif job:
            del run.left[news.job]
            kind = "done" if news.kind == "done" else "failed"
            self.ran[f"{run.host} ({run.at[:6]})"] += kind == "done"
            yield Event(job, kind, news.epoch, news.text, news.traceback)

    def _lost(
        self,
        told: Any,
        running: dict[Any, _Run],
        again: list[_Run],
        error: Exception,  # noqa: ANN401
    ) -> Iterator[Event]:
        """A worker or a node is gone: another takes the task, a few times."""
        run = self._forget(told, running)
        self.near.pop(run.at, None)
        run.lost += 1
        where = f"its worker on node {run.host or '?'} was lost ({type(error).__name__})"
        if run.lost > RETRIES:
            yield from _failed(run, f"{where}, {run.lost} times in all; out of memory?")
        elif run.left:
            yield Event(run.first, "said", reason=f"{where}; it is given to another")
            run.trained, run.energies = run.first.is_trained(), b""
            again.append(run)

    def _forget(self, told: Any, running: dict[Any, _Run]) -> _Run:  # noqa: ANN401
        run = running.pop(told)
        if run.at:
            self.freed.append(run.at)
        for part in run.parts.values():
            part.unlink(missing_ok=True)
        run.parts.clear()
        return run

    def _stop(self, running: dict[Any, _Run]) -> None:
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
            ready, _ = self.ray.wait(list(running), timeout=left)
            for told in ready:
                try:
                    self.ray.get(next(told))
                except (StopIteration, self.ray.exceptions.RayError):
                    self._forget(told, running)

    def _end(self, running: dict[Any, _Run]) -> None:
        for told in list(running):
            with suppress(self.ray.exceptions.RayError):
                self.ray.cancel(told, force=True)
            self._forget(told, running)

    def _nodes(self) -> list[dict[str, float]]:
        return [n["Resources"] for n in self.ray.nodes() if n["Alive"]]

    def _look(self) -> None:
        """See now and then what the cluster has; nodes come and go."""
        if self._looked and time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        jobs, device = self.settings.jobs, self.settings.device
        with suppress(RunFailed):  # none now: what is submitted waits for one
            self._share = share_of(self._nodes(), jobs=jobs, device=device)


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


def _settled(settings: Settings) -> tuple[str, bool]:
    """The device of a node, nothing if it has no such, and whether it has TF32."""
    try:
        device = torch_device(settings.device)
    except InputError:
        return "", False
    return device, has_tf32(device)


def _next(source: Iterator[Task | None], near: set[str]) -> Task | None:
    """The next task, of near features if there are any; an empty one: no more."""
    if near and isinstance(source, Generator):
        if inspect.getgeneratorstate(source) != inspect.GEN_CREATED:
            with suppress(StopIteration):
                task: Task | None = source.send(near)
                return task
            return ()
    return next(source, ())


def _failed(run: _Run, reason: str, traceback: str = "") -> Iterator[Event]:
    """All that is left of a task has failed."""
    left, run.left = run.left, {}
    yield from (Event(j, "failed", reason=reason, traceback=traceback) for j in left.values())


def _why(error: Exception) -> str:
    """What went wrong in a worker, in a line: of Ray's many, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "No module named 'harness'" in str(error):
        return "a node has no fastflow-harness; install the same version on every node"
    return lines[-1][:300] if lines else type(error).__name__


def _take(run: _Run, job: Job, news: node.News) -> None:
    """Write a piece of what a run leaves; it is seen when it is whole.

    Raises:
        RunFailed: no room, or another start took the training over.
        InputError: it cannot be written for another reason.
    """
    place = job.training_place if news.text == "energies" else job.place
    path: Path = getattr(place, news.text)
    if path not in run.parts:
        run.parts[path] = temporary(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    part = run.parts[path]
    if news.content:
        try:
            with part.open("ab") as file:
                file.write(news.content)
        except OSError as error:
            raise unwritten(path, error) from None
        return
    job.check_claim()
    with written_whole(path) as whole:
        part.replace(whole)
    del run.parts[path]
    if news.text == "energies":
        checkpoint.remove(place.checkpoint)

"""Runs in worker processes of this machine, several at a time.

A worker that is killed takes nothing but its own run with it, and those that wait for the same
training. A run that finds no memory, or is killed (which is how the kernel says that there is
none), is tried once more when nothing else runs beside it. Workers are kept:
the first steps in a fresh process pay for its memory and for compiled convolutions.

Signals are this process's to hear: workers are deaf to those of a terminal, and are told to end by
SIGTERM, on which a training writes its checkpoint first.
"""

import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from harness.claims import PAUSE
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.run.executors.contract import Event, Task
from harness.run.forking import context, die_with_parent, start
from harness.run.job import Job, run_job
from harness.run.machine import cores
from harness.run.memory import GPU_OUT, out_of_memory, what_fits
from harness.run.process import give_back_memory, keep_memory
from harness.run.stop import Stopped, check, never_dropped, stop, stop_unless_deferred

STOPPED = "told to end by SIGTERM; the next start takes it up where it is"
AGAIN = "it is tried once more, when nothing else runs beside it"
PATIENCE = 60.0  # seconds in which a worker that is told to end writes its checkpoint


class LocalPool:
    """Run tasks in worker processes of this machine, ``parallel`` at a time.

    Args:
        parallel: tasks at a time, over all devices.
        devices: to which they are dealt evenly; none: every job runs where it says itself.
        grow: whether trainings take the cores of those that ended, once none is left to start:
            at the end, or while other starts hold the rest.

    >>> list(LocalPool(parallel=2).run([]))
    []
    """

    def __init__(
        self, parallel: int, devices: Sequence[str] = ("",), *, grow: bool = False
    ) -> None:
        self.parallel, self.grow = parallel, grow
        self.lanes = Counter(devices[i % len(devices)] for i in range(parallel))

    def prepare(self) -> None:
        """See :class:`Executor`: the server that starts workers imports torch meanwhile."""
        context()

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """See :class:`Executor`."""
        source, waiting, again = iter(tasks), list[Task](), list[Task]()
        workers: dict[Connection, _Worker] = {}
        try:
            while True:
                more = self._hand_out(waiting, source, workers)
                if not waiting:
                    self._alone(again, workers)
                busy = [c for c, w in workers.items() if w.jobs]
                if not busy and not more:
                    return
                if self.grow and self._free(workers):  # nothing can be started now
                    _grow([(c, workers[c]) for c in busy])
                for ready in wait(busy, PAUSE if more and len(busy) < self.parallel else None):
                    assert isinstance(ready, Connection)
                    yield from _news(ready, workers, waiting, again)
        except BaseException:  # Ctrl-C, or a claim that could not be written
            _stop(workers)
            raise
        finally:
            for worker in workers.values():
                worker.process.kill()
            for worker in workers.values():
                _end(worker)

    def _hand_out(
        self,
        waiting: list[Task],
        source: Iterator[Task | None],
        workers: dict[Connection, "_Worker"],
    ) -> bool:
        """Give every free lane a task, and start workers as long as there are more.

        False: there are none left, not even later.
        """
        while free := self._free(workers):
            task = waiting.pop() if waiting else next(source, ())
            if not task:
                return task is None
            _give(task, free[0], workers)
        return True

    def _free(self, workers: dict[Connection, "_Worker"]) -> list[str]:
        """Devices with a free lane, those on which the fewest run first."""
        busy = Counter(w.device for w in workers.values() if w.jobs)
        closed = {w.device for w in workers.values() if w.alone}
        free = [d for d, lanes in self.lanes.items() if busy[d] < lanes and d not in closed]
        return sorted(free, key=busy.__getitem__)

    def _alone(self, again: list[Task], workers: dict[Connection, "_Worker"]) -> None:
        """Give every device on which nothing runs one of the tasks that are tried once more.

        Workers that idle there hold the memory of what they ran, and are ended.
        """
        busy = {w.device for w in workers.values() if w.jobs}
        for device in self.lanes:
            if again and device not in busy:
                for idle in [c for c, w in workers.items() if w.device == device]:
                    _end(workers.pop(idle))
                _give(again.pop(0), device, workers, alone=True)


def open_executor(settings: Settings) -> LocalPool:
    """Open the pool; see :func:`harness.run.executors.contract.open_executor`."""
    return LocalPool(settings.jobs, settings.devices, grow=settings.grow)


@dataclass
class _Worker:
    process: BaseProcess
    device: str = ""
    jobs: list[Job] = field(default_factory=list)  # of its task, those not ended
    alone: bool = False  # whether its task is tried once more, with nothing beside it
    threads: int = 0  # that were granted beyond the task's own


def _give(
    task: Task, device: str, workers: dict[Connection, _Worker], *, alone: bool = False
) -> None:
    """Let an idle worker of this device run the task, or a new one; events name it as it is."""
    sent = [replace(job, device=device) for job in task] if device else task
    idle = [c for c, w in workers.items() if w.device == device and not w.jobs]
    while True:
        waited = bool(idle)
        connection = idle.pop() if waited else _start(workers)
        try:
            connection.send(sent)
        except OSError:
            if waited:  # it died meanwhile: another one takes the task
                _end(workers.pop(connection))
                continue
        break
    worker = workers[connection]
    worker.device, worker.jobs, worker.alone, worker.threads = device, list(task), alone, 0


def _grow(busy: list[tuple[Connection, _Worker]]) -> None:
    """Grant the cores that idle to what still runs on the processor, none fewer than before."""
    had = {c: max(w.threads, w.jobs[0].threads) for c, w in busy if _is_on_processor(w)}
    for i, connection in enumerate(sorted(had, key=had.__getitem__, reverse=True)):
        threads = (cores() + len(had) - 1 - i) // len(had)
        if threads > had[connection]:
            dict(busy)[connection].threads = threads
            with suppress(OSError):  # it died: its end is news
                connection.send(threads)


def _is_on_processor(worker: _Worker) -> bool:
    return (worker.device or worker.jobs[0].device) == "cpu"


def _news(
    connection: Connection,
    workers: dict[Connection, _Worker],
    waiting: list[Task],
    again: list[Task],
) -> Iterator[Event]:
    """What a worker says, and the end of one that is gone or not to be trusted any more.

    Where memory ran out, its task is tried once more, alone. After another failure the rest of
    it waits for a worker again, unless its training failed: then the rest fails too. Every
    failure ends a job, so this comes to an end.
    """
    worker = workers[connection]
    event, short, sound = _receive(connection, worker)
    if short and not worker.alone:
        _end(workers.pop(connection))
        yield replace(event, kind="said", reason=f"{event.reason}; {AGAIN}")
        again.append(worker.jobs)
        return
    if short:
        event = replace(event, reason=f"{event.reason}; {_fits(event.job, short)}")
    if not sound:
        _end(workers.pop(connection))
    if event.kind in ("done", "failed"):
        worker.jobs.remove(event.job)
        worker.alone = worker.alone and bool(worker.jobs)
    yield event
    if event.kind == "failed":
        rest, worker.jobs, worker.alone = worker.jobs, [], False
        if rest and event.job.is_trained():
            waiting.append(rest)
        else:
            yield from (replace(event, job=job) for job in rest)


def _fits(job: Job, short: str) -> str:
    """What would fit of a run that found no memory, though nothing ran beside it."""
    need = 0 if short == "cpu" else job.memory
    images = len(job.shown.train), len(job.shown.test)
    return what_fits(job.variant, *images, parallel=1, device=short, need=need)


def _start(workers: dict[Connection, _Worker]) -> Connection:
    process, ours = start(_work)
    workers[ours] = _Worker(process)
    return ours


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()


def _stop(workers: dict[Connection, _Worker]) -> None:
    """Tell all workers to end, and wait until those in a run have written where they are."""
    if running := {c: w for c, w in workers.items() if w.jobs}:
        number = f"{len(running)} runs" if len(running) > 1 else "1 run"
        with suppress(OSError):  # of a terminal that is gone
            print(
                f"harness: stopping {number}, which the next start takes up; Ctrl-C again ends at "
                "once",
                file=sys.stderr,
            )
    for worker in running.values():
        worker.process.terminate()
    until = time.monotonic() + PATIENCE
    while running and (left := until - time.monotonic()) > 0:
        for ready in wait(list(running), timeout=left):
            assert isinstance(ready, Connection)
            try:
                ready.recv()
            except (EOFError, OSError):
                del running[ready]


def _receive(connection: Connection, worker: _Worker) -> tuple[Event, str, bool]:
    """The next news of a worker; which device's memory ran out; whether it may be trusted on."""
    short = ""
    try:
        kind, *rest, sound = connection.recv()
        if kind == "memory":
            kind, short, rest = "failed", rest[0], [0, "out of memory"]
    except (EOFError, OSError):  # it died; all that it had sent is read by now
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        kind, rest, sound = "failed", [0, f"the process ended by {how}"], False
        if code == -signal.SIGKILL:  # by the kernel, for want of memory, or by a person
            short, rest = "cpu", [0, f"{rest[1]} (out of memory?)"]
    return Event(worker.jobs[0], kind, *rest), short, sound


def _work(connection: Connection) -> None:
    """A worker: task after task, until it is ended."""
    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # others are the parent's to hear
    die_with_parent()
    keep_memory()
    before: Task = ()
    ends = EOFError, ConnectionError, Stopped  # a killed parent leaves the pipe broken
    with suppress(*ends), never_dropped(Stopped, stop_unless_deferred):
        while True:
            task: Task | int = connection.recv()
            if isinstance(task, int):  # threads for a run that had just ended
                continue
            if before and before[0].variant.method != task[0].variant.method:
                give_back_memory()
            _run(task, connection)
            check()
            before = task


def _run(task: Task, connection: Connection) -> None:
    """Run a task up to its first failure; what becomes of the rest is the parent's to say."""

    def told(epoch: int, loss: float) -> None:
        connection.send(("epoch", epoch, True))

    def say(text: str) -> None:
        connection.send(("said", 0, text, True))

    def granted() -> int:
        threads: int = connection.recv() if connection.poll() else 0
        return threads

    try:
        for job in task:
            run_job(job, told, say, granted)
            connection.send(("done", True))
    except (RunFailed, InputError) as error:
        connection.send(("failed", 0, str(error), True))
    except Stopped:  # by itself, not with all others: whoever told it may read why it failed
        connection.send(("failed", 0, STOPPED, False))
        raise
    except Exception as error:  # a bug or a full disk: the grid goes on, the note tells all
        if out_of_memory(error):
            said = any(text in str(error) for text in GPU_OUT)
            of_gpu = said or isinstance(error, torch.OutOfMemoryError)
            where = job.device if of_gpu else "cpu"
            connection.send(("memory", where, False))
            return
        first = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {first}"
        connection.send(("failed", 0, reason, traceback.format_exc(), False))

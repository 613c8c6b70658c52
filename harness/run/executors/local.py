"""Runs in worker processes of this machine, several at a time.

A worker that is killed (out of memory) takes nothing but its own run with it, and those that
wait for the same training. Workers are kept:
the first steps in a fresh process pay for its memory and for compiled convolutions.

Signals are this process's to hear: workers are deaf to those of a terminal, and are told to end by
SIGTERM, on which a training writes its checkpoint first.
"""

import multiprocessing as mp
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from harness.claims import PAUSE
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.run.executors.contract import Event, Task
from harness.run.job import Job, run_job
from harness.run.memory import out_of_memory, what_fits
from harness.run.process import give_back_memory, keep_memory
from harness.run.stop import Stopped, check, stop

STOPPED = "told to end by SIGTERM; the next start takes it up where it is"
PATIENCE = 60.0  # seconds in which a worker that is told to end writes its checkpoint
# What a terminal or a scheduler may tell every process of a group.
TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 103 - len("/pymp-12345678/listener-12345678")  # 103 bytes: macOS; Linux has 107
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # where sockets may be beside TMPDIR


class LocalPool:
    """Run tasks in worker processes of this machine, ``parallel`` at a time.

    >>> list(LocalPool(parallel=2).run([]))
    []
    """

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel

    def prepare(self) -> None:
        """See :class:`Executor`: the server that starts workers imports torch meanwhile."""
        _context()

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """See :class:`Executor`."""
        source, waiting = iter(tasks), list[Task]()
        workers: dict[Connection, _Worker] = {}
        try:
            while True:
                more = self._hand_out(waiting, source, workers)
                busy = [c for c, w in workers.items() if w.jobs]
                if not busy and not more:
                    return
                for ready in wait(busy, PAUSE if more and len(busy) < self.parallel else None):
                    assert isinstance(ready, Connection)
                    yield from _news(ready, workers, waiting)
        except (KeyboardInterrupt, GeneratorExit):
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
        """Give every idle worker a task, and start workers as long as there are more.

        False: there are none left, not even later.
        """
        idle = [c for c, w in workers.items() if not w.jobs]
        while idle or len(workers) < self.parallel:
            task = waiting.pop() if waiting else next(source, ())
            if not task:
                return task is None
            waited = bool(idle)
            connection = idle.pop() if waited else _start(workers)
            try:
                connection.send(task)
            except OSError:
                if waited:  # it died meanwhile: another one takes the task
                    _end(workers.pop(connection))
                    waiting.append(task)
                    continue
            workers[connection].jobs = list(task)
        return True


def open_executor(settings: Settings) -> LocalPool:
    """Open the pool; see :func:`harness.run.executors.contract.open_executor`."""
    return LocalPool(settings.jobs)


@dataclass
class _Worker:
    process: BaseProcess
    jobs: list[Job] = field(default_factory=list)  # of its task, those not ended


def _news(
    connection: Connection, workers: dict[Connection, _Worker], waiting: list[Task]
) -> Iterator[Event]:
    """What a worker says, and the end of one that is gone or not to be trusted any more.

    After a failure the rest of its task waits for a worker again, unless its training failed:
    then the rest fails too. Every failure ends a job, so this comes to an end.
    """
    worker = workers[connection]
    event, sound = _receive(connection, worker)
    if not sound:
        _end(workers.pop(connection))
    if event.kind in ("done", "failed"):
        worker.jobs.remove(event.job)
    yield event
    if event.kind == "failed":
        rest, worker.jobs = worker.jobs, []
        if rest and event.job.is_trained():
            waiting.append(rest)
        else:
            yield from (replace(event, job=job) for job in rest)


def _context() -> ForkServerContext:
    """How workers are started: from a server that has imported torch once, for all of them."""
    forking = mp.get_context("forkserver")
    forking.set_forkserver_preload(["harness.run.job", "torch._dynamo"])  # optimisers import that
    _start_server()
    return forking


def _start_server() -> None:
    """Start it, a ``python -c``, so that it takes no module from the current folder.

    There a person's study may have the name of one, as ``statistics.py``.
    """
    _make_room_for_sockets()
    before = os.environ.get("PYTHONSAFEPATH", "")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with _deaf():
            forkserver.ensure_running()
    finally:
        os.environ["PYTHONSAFEPATH"] = before  # empty: as not given


@contextmanager
def _deaf() -> Iterator[None]:
    """Let what is started inside hear none of the signals that a whole group of processes is told.

    This process hears afterwards what comes meanwhile.
    """
    resource_tracker.ensure_running()  # which would open its ears again in passing
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_room_for_sockets() -> None:
    """Let multiprocessing keep its sockets in a short folder where TMPDIR is a long one.

    A socket's path has at most some hundred bytes, and TMPDIR on a cluster may have as many.
    """
    try:
        usual = tempfile.gettempdir()
        if len(os.fsencode(usual)) <= LONGEST:
            return
        tempfile.tempdir = next(
            d for d in (*SHORT, os.environ.get("XDG_RUNTIME_DIR", "")) if _is_usable(d)
        )
        util.get_temp_dir()  # makes its own there, for good
        tempfile.tempdir = usual
    except (OSError, StopIteration):
        raise InputError(
            f"TMPDIR: expected a folder that can be written, with a path of at most {LONGEST} "
            f"bytes, for the sockets of worker processes; got '{os.environ.get('TMPDIR', '')}'"
        ) from None


def _is_usable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and len(os.fsencode(folder)) <= LONGEST


def _start(workers: dict[Connection, _Worker]) -> Connection:
    ours, its = _context().Pipe()
    process: BaseProcess = _context().Process(target=_work, args=(its,), daemon=True)
    process.start()
    its.close()
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


def _receive(connection: Connection, worker: _Worker) -> tuple[Event, bool]:
    """The next news of a worker, and whether it may be trusted with another run."""
    try:
        kind, *rest, sound = connection.recv()
    except (EOFError, OSError):  # it died; all that it had sent is read by now
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = f"; out of memory? {_fits(worker)}" if code == -signal.SIGKILL else ""
        kind, rest, sound = "failed", [0, f"the process ended by {how}{hint}"], False
    return Event(worker.jobs[0], kind, *rest), sound


def _fits(worker: _Worker) -> str:
    """What would fit of the run that a worker was killed in."""
    job = worker.jobs[0]
    return what_fits(job.variant, len(job.shown.train), len(job.shown.test), job.parallel)


def _work(connection: Connection) -> None:
    """A worker: task after task, until it is ended."""
    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # others are the parent's to hear
    _die_with_parent()
    keep_memory()
    before: Task = ()
    with suppress(EOFError, Stopped):
        while True:
            task: Task = connection.recv()
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

    try:
        for job in task:
            run_job(job, told, say)
            connection.send(("done", True))
    except (RunFailed, InputError) as error:
        connection.send(("failed", 0, str(error), True))
    except Stopped:  # by itself, not with all others: whoever told it may read why it failed
        connection.send(("failed", 0, STOPPED, False))
        raise
    except Exception as error:  # a bug or a full disk: the grid goes on, the note tells all
        if out_of_memory(error):
            fits = what_fits(job.variant, len(job.shown.train), len(job.shown.test), job.parallel)
            connection.send(("failed", 0, f"out of memory; {fits}", False))
            return
        first = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {first}"
        connection.send(("failed", 0, reason, traceback.format_exc(), False))


def _die_with_parent() -> None:
    """End at once when the parent is gone (SIGKILL), instead of training for nobody."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

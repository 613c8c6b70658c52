"""Runs in worker processes of this machine, several at a time.

A worker that is killed (out of memory) takes nothing but its own run with it. Workers are kept:
the first steps in a fresh process pay for its memory and for compiled convolutions.
"""

import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from harness.errors import InputError, RunFailed
from harness.run.executors import context
from harness.run.job import Job, run
from harness.run.process import give_back_memory, keep_memory

Task = Sequence[Job]  # jobs that share one training, run one after the other in one process


@dataclass(frozen=True)
class Event:
    """What happened to a job: ``epoch``, ``done`` or ``failed`` (with the reason)."""

    job: Job
    kind: str
    epoch: int = 0
    reason: str = ""
    traceback: str = ""
    unsound: bool = False  # its worker is gone, or not to be trusted with another run


@dataclass
class _Worker:
    process: BaseProcess
    jobs: list[Job] = field(default_factory=list)  # of its task, those not ended


def run_all(tasks: Sequence[Task], *, parallel: int) -> Iterator[Event]:
    """Run the tasks, ``parallel`` at a time, and tell what happens.

    Leaving the iteration early (Ctrl-C) ends the workers; records are written whole or not
    at all, so nothing is lost but the unfinished runs.
    """
    waiting = list(reversed(tasks))
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or any(w.jobs for w in workers.values()):
            idle = [c for c, w in workers.items() if not w.jobs]
            while waiting and (idle or len(workers) < parallel):
                waited = bool(idle)
                connection = idle.pop() if waited else _start(workers)
                try:
                    connection.send(waiting[-1])
                except OSError:
                    if waited:  # it died meanwhile: another one takes the task
                        _end(workers.pop(connection))
                        continue
                workers[connection].jobs = list(waiting.pop())
            for ready in wait([c for c, w in workers.items() if w.jobs]):
                assert isinstance(ready, Connection)
                worker = workers[ready]
                for event in _receive(ready, worker):
                    if event.kind != "epoch":
                        worker.jobs.remove(event.job)
                    if event.unsound and ready in workers:
                        _end(workers.pop(ready))
                    yield event
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            _end(worker)


def _start(workers: dict[Connection, _Worker]) -> Connection:
    ours, its = context().Pipe()
    process: BaseProcess = context().Process(target=_work, args=(its,), daemon=True)
    process.start()
    its.close()
    workers[ours] = _Worker(process)
    return ours


def _end(worker: _Worker) -> None:
    worker.process.terminate()
    worker.process.join()


def _receive(connection: Connection, worker: _Worker) -> list[Event]:
    """The next news of a worker; what fails one job fails those that wait for its training."""
    try:
        kind, *rest = connection.recv()
    except (EOFError, OSError):  # it died; all that it had sent is read by now
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; out of memory? try fewer --jobs" if code == -signal.SIGKILL else ""
        kind, rest = "failed", [0, f"the process ended by {how}{hint}", "", True]
    concerned = worker.jobs if kind == "failed" else worker.jobs[:1]
    return [Event(job, kind, *rest) for job in concerned]


def _work(connection: Connection) -> None:
    """A worker: task after task, until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent()
    keep_memory()
    before: Task = ()
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        if before and before[0].variant.method != task[0].variant.method:
            give_back_memory()
        _run(task, connection)
        before = task


def _run(task: Task, connection: Connection) -> None:
    try:
        for job in task:
            run(job, lambda epoch, loss: connection.send(("epoch", epoch)))
            connection.send(("done",))
    except (RunFailed, InputError) as error:
        connection.send(("failed", 0, str(error)))
    except Exception as error:  # a bug or a full disk: the grid goes on, the note tells all
        first = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {first}"
        connection.send(("failed", 0, reason, traceback.format_exc(), True))


def _die_with_parent() -> None:
    """End at once when the parent is gone (SIGKILL), instead of training for nobody."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

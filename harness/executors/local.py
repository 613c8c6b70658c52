"""Runs in child processes of this machine, a fresh one for each, several at a time.

A fresh process per run keeps its peak memory its own, and a run that is killed (out of memory)
takes nothing else with it.
"""

import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from harness.errors import InputError, RunFailed
from harness.run import Job, run

Task = Sequence[Job]  # jobs that share one training, run one after the other in one process


@dataclass(frozen=True)
class Event:
    """What happened to a job: ``epoch``, ``done`` or ``failed`` (with the reason)."""

    job: Job
    kind: str
    epoch: int = 0
    reason: str = ""
    traceback: str = ""


def run_all(tasks: Sequence[Task], *, parallel: int) -> Iterator[Event]:
    """Run the tasks, ``parallel`` at a time, and tell what happens.

    Leaving the iteration early (Ctrl-C) ends the children; records are written whole or not
    at all, so nothing is lost but the unfinished runs.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["harness.run"])  # torch is imported once, not per run
    waiting = list(reversed(tasks))
    running: dict[Connection, tuple[BaseProcess, list[Job]]] = {}  # with the jobs not ended
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                task = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_child, args=(task, sender), daemon=True
                )
                process.start()
                sender.close()
                running[receiver] = process, list(task)
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process, jobs = running[ready]
                for event in _receive(ready, process, jobs):
                    if event.kind != "epoch":
                        jobs.remove(event.job)
                    yield event
                if not jobs:
                    process.join()
                    ready.close()
                    del running[ready]
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def _receive(receiver: Connection, process: BaseProcess, jobs: Sequence[Job]) -> list[Event]:
    """The next news of a process; what fails one job fails those that wait for its training."""
    try:
        kind, *rest = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; out of memory? try fewer --jobs" if code == -signal.SIGKILL else ""
        kind, rest = "failed", [0, f"the process ended by {how}{hint}"]
    concerned = jobs if kind == "failed" else jobs[:1]
    return [Event(job, kind, *rest) for job in concerned]


def _child(task: Task, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent()
    try:
        for job in task:
            run(job, lambda epoch, loss: sender.send(("epoch", epoch)))
            sender.send(("done",))
    except (RunFailed, InputError) as error:
        sender.send(("failed", 0, str(error)))
    except Exception as error:  # a bug or a full disk: the grid goes on, the note tells all
        first = next(iter(str(error).splitlines()), "")
        sender.send(("failed", 0, f"{type(error).__name__}: {first}", traceback.format_exc()))
    finally:
        sender.close()


def _die_with_parent() -> None:
    """End at once when the parent is gone (SIGKILL), instead of training for nobody."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""New processes of this machine, started from a server that has imported torch once for all.

Signals are the parent's to hear: what is started here is deaf to those of a terminal.
"""

import errno
import multiprocessing as mp
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.errors import InputError, RunFailed, unwritten

# What a terminal or a scheduler may tell every process of a group.
TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 103 - len("/pymp-12345678/listener-12345678")  # 103 bytes: macOS; Linux has 107
TRIES, PAUSE = 3, 0.1  # to start a process, and seconds between
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # where sockets may be beside TMPDIR
EACH = 3  # files that this process keeps open for a process: its pipe, its life, its end
SPARE = 24  # files that are left to all else: claims, records, the start of one more


def context() -> ForkServerContext:
    """Give what starts processes; the server that it starts them from is there afterwards."""
    forking = mp.get_context("forkserver")
    forking.set_forkserver_preload(["harness.run.job", "torch._dynamo"])  # optimisers import that
    _start_server()
    return forking


def room_for(processes: int) -> int:
    """Count those of so many processes that the limit of open files has room for; at least 1."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        free = limit - len(list(Path("/dev/fd").iterdir())) - SPARE
    except OSError:  # nobody says what is open
        free = limit - 2 * SPARE
    return processes if limit == resource.RLIM_INFINITY else max(1, min(processes, free // EACH))


def start(function: Callable[..., object], *given: object) -> tuple[BaseProcess, Connection]:
    """Start a process that calls a function; the server is started anew where it was killed.

    Args:
        function: of a module, so that it can be named to the process.
        given: its arguments behind its end of a pipe, values that pickle.

    Returns:
        The process, and the other end of the pipe.

    Raises:
        RunFailed: the server was killed as often as it was asked, or too many files are open.
    """
    try:
        ours, its = context().Pipe()
        with its:
            return _started(function, its, *given), ours
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise unwritten(Path("a worker process"), error) from None


def _started(function: Callable[..., object], *given: object) -> BaseProcess:
    why = ""
    for _ in range(TRIES):
        process: BaseProcess = context().Process(target=function, args=given, daemon=True)
        try:
            process.start()
        except (EOFError, ConnectionError, FileNotFoundError) as error:
            why = str(error) or type(error).__name__
            time.sleep(PAUSE)  # until the system knows that it is gone
        else:
            return process
    raise RunFailed(
        f"expected to start a worker; the process that starts them did not answer {TRIES} times "
        f"({why}; out of memory, or of open files?); start again, with fewer --jobs"
    )


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


def die_with_parent() -> None:
    """End at once when the parent is gone (SIGKILL), instead of training for nobody."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def apart(function: Callable[..., Any], *given: Any) -> Any:  # noqa: ANN401
    """Call a function in a process of its own, and give what it returns; None: it failed, or died.

    Args:
        function: of a module, so that it can be named to the process.
        given: its arguments, values that pickle.
    """
    process, ours = start(_call, function, *given)
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _call(connection: Connection, function: Callable[..., Any], *given: Any) -> None:  # noqa: ANN401
    die_with_parent()
    with suppress(Exception):
        connection.send(function(*given))

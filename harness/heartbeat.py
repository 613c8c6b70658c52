"""Signs of life: a start of the harness says in a file that it lives, and others judge by that.

A start renews ``<token>.json`` every PERIOD seconds. Whoever waits for it watches: a file that
does not change for LIMIT seconds of the watcher's own clock is that of a dead start. No two
machines' clocks are compared, and no process id means anything on another machine; where both run
on this machine, a process that is gone is known at once.
"""

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from harness.errors import InputError, RunFailed
from harness.files import TEMPORARY, matching, remove, temporary, write_whole
from harness.files import token as own_token

PERIOD = 10.0  # seconds between two beats
LIMIT = 40.0  # seconds without one, watched, after which a start is dead
SILENT = 600.0  # seconds without one after which who has not watched takes no start for living


class Running(msgspec.Struct, kw_only=True, frozen=True):
    """Say which run is trained, and how far it is; ``host``: where, if not on the start's machine.

    >>> Running(digest="44136fa355b3", dataset="d", category="grass", seed=0).epoch
    0
    """

    digest: str
    dataset: str
    category: str
    seed: int
    epoch: int = 0
    epochs: int = 0
    since: str = ""  # ISO 8601, UTC
    host: str = ""


class Holder(msgspec.Struct, kw_only=True, frozen=True):
    """Say who a start is and what it does; the content of its file.

    ``boot`` and ``space`` name the machine since its last start and the room of process ids there,
    ``born`` the moment when the process began: together they are a process that exists once.

    >>> Holder(host="a", process=7).where
    'a, process 7'
    """

    host: str = ""
    process: int = 0
    boot: str = ""
    space: str = ""
    born: str = ""
    started: str = ""  # ISO 8601, UTC
    command: str = ""  # empty: called from Python
    study: str = ""
    shard: str = ""  # as in "1/3"; empty: all of it
    runs: int = 0  # that it found to be done when it began
    doing: str = ""
    running: tuple[Running, ...] = ()

    @property
    def where(self) -> str:
        """Say on which machine it is."""
        return f"{self.host}, process {self.process}"

    def is_gone(self) -> bool:
        """Tell whether it is a process of this machine that is known to have ended."""
        here = _machine()
        if not self.born or not all(here) or (self.host, self.boot, self.space) != here:
            return False
        try:
            return _process(str(self.process)) != (self.process, self.born)
        except OSError:  # hidden, as another user's may be, or no file can be opened
            return not _is_there(self.process)


def now() -> str:
    """Say what time it is, in UTC to the second, as ISO 8601 has it."""
    return _iso(time.time())


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def this_process() -> Holder:
    """Say who this start is."""
    (host, boot, space), (process, born) = _machine(), (0, "")
    with suppress(OSError):
        process, born = _process("self")
    program, *arguments = sys.argv or [""]
    command = Path(program).name in ("harness", "__main__.py")
    return Holder(
        host=host,
        process=process or os.getpid(),
        boot=boot,
        space=space,
        born=born,
        started=now(),
        command=shlex.join(("harness", *arguments)) if command else "",
    )


@cache
def _machine() -> tuple[str, str, str]:
    """Host, boot and room of process ids; empty where the system does not say."""
    boot = space = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), boot, space


def _process(which: str) -> tuple[int, str]:
    """Number of a process, and when it began, by the system's count; (0, "") for one that ended.

    The number is the system's own word: what a process takes for its own may be another's.
    """
    said = Path(f"/proc/{which}/stat").read_text(encoding="utf-8", errors="replace")
    state, *rest = said.rpartition(")")[2].split()
    ended = state in ("Z", "X") or len(rest) < 19
    return (0, "") if ended else (int(said.split(maxsplit=1)[0]), rest[18])


def _is_there(process: int) -> bool:
    """Whether there is a process of this number, which may be another's."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@dataclass
class _Pulse:
    """What was last seen of a start, and for how long that has not changed."""

    seen: object
    at: float
    quiet: float = 0.0


class Heartbeats:
    """Renew this start's sign of life in a folder, and watch those of others.

    Args:
        folder: where the signs are; made when the first beat is written.
        token: of this start.
        clock: seconds, of this machine alone.

    >>> Heartbeats(Path("nowhere")).tokens()
    []
    """

    def __init__(
        self, folder: Path, token: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.token, self.clock = folder, token or own_token(), clock
        self.said = this_process()
        self._watched: dict[str, _Pulse] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Write the first sign, and renew it from now on."""
        write_whole(self.file(self.token), msgspec.json.encode(self.said))
        self._ended.clear()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Renew it no longer, and remove it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.file(self.token).unlink(missing_ok=True)

    def say(self, **facts: object) -> None:
        """Change what the next sign says; see :class:`Holder`."""
        self.said = msgspec.structs.replace(self.said, **facts)

    def file(self, token: str) -> Path:
        """Find the file of a start's signs."""
        return self.folder / f"{token}.json"

    def tokens(self) -> list[str]:
        """List the starts that have left a sign and not removed it, this one among them."""
        return sorted(p.stem for p in matching(self.folder, "*.json"))

    def unborn(self) -> set[str]:
        """List the starts whose sign was not in its place yet as they ended, on this machine.

        Such a start may be in none of :meth:`tokens`: what it was writing tells of it.
        """
        found = matching(self.folder, ".*.json.*.tmp")
        written = {path: TEMPORARY.search(path.name) for path in found}
        holders = {named[1]: _read(path) for path, named in written.items() if named}
        gone = {token for token, holder in holders.items() if holder and holder.is_gone()}
        return gone - {self.token}

    def read(self, token: str) -> Holder | None:
        """Read what a start says of itself; None: nothing, or nothing that can be read."""
        return _read(self.file(token))

    def stat(self, token: str) -> os.stat_result:
        """Ask what the file system knows of a sign, its time above all."""
        try:
            with self.file(token).open("rb") as file:  # opened, as NFS asks the server then
                return os.fstat(file.fileno())
        except FileNotFoundError:
            raise
        except OSError:  # another user's, or too many files are open
            return self.file(token).stat()

    def is_dead(self, token: str) -> bool:
        """Tell whether a start has ended without a word; from now on it is watched.

        One of another machine is first seen, then watched for LIMIT seconds.
        """
        if token == self.token:
            return False
        if (holder := self.read(token)) is not None and holder.is_gone():
            return True
        with self._lock:
            if token not in self._watched:
                self._watched[token] = _Pulse(self._seen(token), self.clock())
            self._look(token)
            return self._watched[token].quiet >= LIMIT

    def _go_on(self) -> None:
        while not self._ended.wait(PERIOD):
            # A full disk, or no right: the time of the file still tells.
            with suppress(OSError, RunFailed, InputError):
                self.beat()
            with self._lock:
                for token in self._watched:
                    self._look(token)

    def beat(self) -> None:
        """Renew the sign; it is written again where somebody took it away."""
        with suppress(FileNotFoundError):
            os.utime(self.file(self.token))  # at once, and without any room on the disk
        write_whole(self.file(self.token), msgspec.json.encode(self.said))

    def _seen(self, token: str) -> object:
        """What a living start changes: the time of its file, which is only compared for change.

        What could not be looked at is like nothing else, so that nobody is taken for dead by it.
        """
        try:
            about = self.stat(token)
        except FileNotFoundError:
            return None
        except OSError:
            return object()
        return about.st_mtime_ns, about.st_ino

    def _look(self, token: str) -> None:
        """Count how long a sign has not changed; a pause of this process itself counts little."""
        pulse, seen, now = self._watched[token], self._seen(token), self.clock()
        if seen == pulse.seen:
            pulse.quiet += min(now - pulse.at, PERIOD)
            pulse.at = now
        else:
            self._watched[token] = _Pulse(seen, now)


def _read(sign: Path) -> Holder | None:
    try:
        return msgspec.json.decode(sign.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def holders(folder: Path) -> Iterator[Holder]:
    """Yield what the starts say that are at work in a folder, as far as one look tells."""
    return (holder for holder, since in _shown(folder) if not since)


def silent(folder: Path) -> Iterator[tuple[Holder, str]]:
    """Yield what starts said that gave no sign for long, most likely dead; and since when.

    >>> list(silent(Path("nowhere")))
    []
    """
    return ((holder, since) for holder, since in _shown(folder) if since)


def _shown(folder: Path) -> Iterator[tuple[Holder, str]]:
    """Every start that has left a sign and is not known to be gone; since when it is silent.

    That is the last sign's time, empty where it is not SILENT seconds old, by the clock of the
    file system.
    """
    signs = Heartbeats(folder)
    if not (tokens := signs.tokens()):
        return
    time_there = _time_in(folder)
    for token in tokens:
        if (holder := signs.read(token)) is None or holder.is_gone():
            continue
        last = time_there
        with suppress(OSError):
            last = signs.stat(token).st_mtime
        yield holder, _iso(last) if time_there - last > SILENT else ""


def _time_in(folder: Path) -> float:
    """What time it is by the file system; by this machine where nothing can be written there."""
    file = temporary(folder / "time")
    try:
        file.touch()
        return file.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        remove(file)

"""What a shell hands over beside the arguments: put right once, before anything reads it."""

import codecs
import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from harness.errors import InputError
from harness.escape import OnTerminal
from harness.files import home
from harness.run.stop import forget_dropped, never_dropped, raise_again

# What stands for a sign that a terminal may lack; a letter is written as its number.
PLAIN = {
    "±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "≤": "<=", "≥": ">=",
    "…": "...", "·": "*", "“": '"', "”": '"', "\u00a0": " ",
}  # fmt: skip


def settle() -> None:
    """Put right what the shell hands over, for this process and those that it starts.

    What can only be wrong is an error; what a library would stumble over is taken away.

    Raises:
        InputError: the working folder is gone, or HARNESS_NATIVE is neither 0 nor 1.
    """
    _open_streams()
    os.umask(os.umask(0o077) & 0o077)  # what is written can be read by whoever writes it
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        if not os.path.isabs(os.environ.get(name, "/")):  # noqa: PTH117
            del os.environ[name]  # the XDG specification: not absolute is to be ignored
    os.environ.pop("MPLBACKEND", None)  # of a notebook or an IDE: nothing here is shown by one
    home()  # before the libraries that look for it
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        raise InputError(
            "working folder: expected one that is there; it was removed; cd to another"
        ) from None
    if (native := os.environ.get("HARNESS_NATIVE", "")) not in ("", "0", "1"):
        raise InputError(f"HARNESS_NATIVE: expected 0 or 1; got '{native}'")


ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what goes on inside as Ctrl-C does, each by its number.

    One that is ignored stays so, as SIGHUP by nohup. Once one has ended it, no other is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: h for s in ENDING if (h := signal.getsignal(s)) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        with never_dropped(KeyboardInterrupt, raise_again):
            yield
    except KeyboardInterrupt:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise
    except BaseException:
        _put_back(before)
        raise
    _put_back(before)


def _put_back(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    """What Python does at Ctrl-C, with the signal's number; a terminal that is gone is let go.

    Only Ctrl-C counts twice: a scheduler may tell a process, and its group, at the same time.
    """
    for once in set(ENDING) - {signal.SIGINT}:
        signal.signal(once, signal.SIG_IGN)
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    forget_dropped()
    raise KeyboardInterrupt(number)


class Lasting:
    """Print to a stream; once it takes no more, what is printed goes nowhere, and no work ends.

    Its reader may leave, as that of ``harness run … | head`` or a terminal that is closed; or its
    disk be full, which is a loss.

    >>> with open(os.devnull) as only_read:
    ...     Lasting(only_read).write("this goes nowhere")
    17
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None  # by which something was lost that was to be kept

    def write(self, text: str) -> int:
        """Write a text; returns how many characters of it."""
        with self._outlived():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is still held back."""
        with self._outlived():
            self.stream.flush()

    @contextmanager
    def _outlived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_left(error):
                self.error = self.error or error
            # A stream that is no file, as in a test, is asked in vain each time.
            with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), self.stream.fileno())

    def _is_left(self, error: OSError) -> bool:
        if error.errno == errno.EIO:  # of a terminal; a disk may have it too
            return stat.S_ISCHR(os.fstat(self.stream.fileno()).st_mode)
        return isinstance(error, BrokenPipeError)

    def __getattr__(self, name: str) -> object:
        """Be the stream in all else."""
        return getattr(self.stream, name)


def unprinted() -> OSError | None:
    """Print what is still held back; why something was lost, but for a reader that left."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    errors = (getattr(stream, "error", None) for stream in (sys.stdout, sys.stderr))
    return next(filter(None, errors), None)


def _open_streams() -> None:
    """Have all three streams, and let two of them print any text, and nothing but text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would take its place
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123
    codecs.register_error("plain", _in_plain_words)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="plain")
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), OnTerminal):
            setattr(sys, name, OnTerminal(cast("TextIO", Lasting(stream))))


def _in_plain_words(error: UnicodeError) -> tuple[bytes, int]:
    r"""What stands for text that an encoding lacks; a name that is no text keeps its bytes.

    >>> codecs.register_error("plain", _in_plain_words)
    >>> "3 × 97.1 ± 0.2 … Nuß".encode("ascii", "plain")
    b'3 x 97.1 +- 0.2 ... Nu\\xdf'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return b"".join(map(_plain, lacking)), error.end


def _plain(sign: str) -> bytes:
    if "\udc80" <= sign <= "\udcff":  # Python's for a byte of a file's name in another encoding
        return bytes([ord(sign) - 0xDC00])
    return PLAIN.get(sign, sign).encode("ascii", "backslashreplace")

"""The two ways a run can end badly, apart from a bug.

Both carry one line for a person: what was expected, what came, and what to do.
"""

import errno
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from harness.escape import in_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, the largest file allowed
# What the system says where a path leads to no file, or a damaged number to no place in one.
_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL)


class InputError(ValueError):
    """Say that something a person gave is wrong: a setting, a folder, a file. Exit code 2.

    >>> raise InputError("epochs: expected a number of at least 1; got 0")
    Traceback (most recent call last):
    harness.errors.InputError: epochs: expected a number of at least 1; got 0
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_line(message))  # a file's name may hold a newline


class RunFailed(RuntimeError):
    """Say that a run could not be finished; the others go on. Exit code 1.

    >>> raise RunFailed("the loss became nan in epoch 3")
    Traceback (most recent call last):
    harness.errors.RunFailed: the loss became nan in epoch 3
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_line(message))


def unknown(what: str, got: str, choices: Iterable[str]) -> InputError:
    """Make an error for a name that does not exist, with the near matches first.

    >>> str(unknown("field", "kernel", ["kernels", "coupling"]))
    "unknown field 'kernel'; did you mean 'kernels'? Expected one of: kernels, coupling"
    """
    names = list(choices)
    near = get_close_matches(got, names, n=3)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    if len(names) > 60:  # a list nobody would read
        names = [*near, f"… {len(names)} in all"]
    return InputError(f"unknown {what} '{got}'{hint} Expected one of: {', '.join(names)}")


def unwritten(file: Path, error: OSError, needed: int = 0) -> Exception:
    """Make an error for a file that could not be written, in a person's words.

    Args:
        file: what was to be written; what was written of it is gone.
        error: why it was not.
        needed: its bytes, where they are known.

    >>> print(unwritten(Path("there.json"), OSError(errno.EMFILE, "Too many open files")))
    there.json: Too many open files; raise the limit, as by `ulimit -n 1024`
    """
    if error.errno in FULL:
        return no_room(file, needed, str(error.strerror))
    return _too_many(file, error) or InputError(
        f"{file}: could not be written ({error.strerror or error}); expected a folder that can "
        "be; give its rights, or use another"
    )


def unread(file: Path, error: OSError) -> Exception:
    """Make an error for a file that the system did not let be read, which is no damage of it.

    >>> print(unread(Path("there.json"), OSError(errno.EACCES, "Permission denied")))
    there.json: could not be read (Permission denied); expected a file that can be; nothing of it \
was changed; give its rights, or start again when the disk answers
    """
    return _too_many(file, error) or InputError(
        f"{file}: could not be read ({error.strerror or error}); expected a file that can be; "
        "nothing of it was changed; give its rights, or start again when the disk answers"
    )


def see_that_it_is_damage(file: Path, error: Exception) -> None:
    """Raise what says nothing of a file's content: no right to it, no descriptor, a failing disk.

    Whoever takes what is damaged for as good as nothing, and makes it anew, asks this first: what
    could not be read may be sound, and stays.

    Args:
        file: what was to be read.
        error: why it was not.

    Raises:
        RunFailed: too many files are open.
        InputError: the system did not let it be read for another reason.
        MemoryError: the error itself, as it is for whoever tries again with more.

    >>> see_that_it_is_damage(Path("a.json"), FileNotFoundError(errno.ENOENT, "No such file"))
    >>> see_that_it_is_damage(Path("a.json"), PermissionError(errno.EACCES, "Permission denied"))
    Traceback (most recent call last):
    harness.errors.InputError: a.json: could not be read (Permission denied); expected ...
    """
    if isinstance(error, MemoryError):
        raise error
    if not isinstance(error, OSError) or error.errno in _ABSENT:
        return
    raise unread(file, error) from None


def _too_many(file: Path, error: OSError) -> RunFailed | None:
    """Say that as many files are open as may be, if that is what it is."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return RunFailed(f"{file}: {error.strerror}; raise the limit, as by `ulimit -n 1024`")


def no_room(file: Path, needed: int = 0, why: str = "the disk is full") -> RunFailed:
    """Make an error for a file that its disk has no room for."""
    free = next((shutil.disk_usage(p).free for p in file.parents if p.is_dir()), 0)
    wanted = f"{needed / 2**20:.2f} MiB of room" if needed else "room"
    return RunFailed(
        f"{file}: expected {wanted} on its disk; got {free / 2**20:.2f} MiB free ({why}); free "
        "some and start again: what is recorded stays"
    )


def warn(error: InputError | RunFailed) -> None:
    """Tell, in one line, of something that is left out; it ends nothing, whoever reads it."""
    with suppress(OSError):
        print(f"harness: left out: {error}", file=sys.stderr)

"""Files that are whole or not there, whatever is killed meanwhile; and tables of text."""

import atexit
import csv
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

from harness.errors import FULL, InputError, unknown, unwritten

# What a damaged file of arrays raises; a damaged header NotImplementedError, a RuntimeError.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError),
    *(BadZipFile, zlib.error, TokenError, SyntaxError, MemoryError),  # of a header of NumPy's
)
# What is not whole yet names its start: a temporary file, or energies that grow by a checkpoint.
TEMPORARY = re.compile(r"[.-]([0-9a-f]{16})-[0-9a-f]{8}\.(?:tmp|npz)$")
GROWING = ".checkpoint-"  # between the name of a checkpoint and what grows beside it
# Of a folder that is gone, or of another user's: it counts as empty.
UNLISTED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EACCES, errno.EPERM)
LONGEST = 100_000_000  # bytes of the header of a file of tensors
_token: list[str] = []  # this start's, once it is drawn or given


def token() -> str:
    """Name this start of the harness: 16 hexadecimal digits, drawn at random.

    A process id would not do: containers and machines that share a folder have the same ones.
    """
    if not _token:
        _token.append(secrets.token_hex(8))
    return _token[0]


def sign_as(start: str) -> None:
    """Let what this process writes be known as that of a start, whose worker it is."""
    _token[:] = [start]


def temporary(path: Path) -> Path:
    """Name what is written beside ``path`` until it is whole, never twice the same.

    >>> found = TEMPORARY.search(temporary(Path("seed-0.json")).name)
    >>> found is not None and found[1] == token()
    True
    """
    return path.with_name(f".{path.name}.{token()}-{secrets.token_hex(4)}.tmp")


def growing(checkpoint: Path) -> Path:
    """Name energies that grow beside ``seed-0.checkpoint``, never twice the same.

    >>> found = TEMPORARY.search(growing(Path("seed-0.checkpoint")).name)
    >>> found is not None and found[1] == token()
    True
    """
    return checkpoint.with_name(f"{checkpoint.name}-{token()}-{secrets.token_hex(4)}.npz")


def is_needed(path: Path) -> bool:
    """Tell whether energies that grew are named by the checkpoint beside them, or may be.

    A checkpoint's header, with all that is said in it, comes first: its length, then JSON.

    >>> is_needed(Path("seed-0.checkpoint-0123456789abcdef-01234567.npz"))
    False
    """
    name, grew, _ = path.name.partition(GROWING)
    if not grew:
        return False
    try:
        with path.with_name(name + GROWING[:-1]).open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), LONGEST)
            return path.name.encode() in file.read(length)
    except FileNotFoundError:
        return False
    except OSError:  # it is there, whatever it says
        return True


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is seen whole or not at all: write, fsync, rename."""
    whole = content.encode() if isinstance(content, str) else content
    with written_whole(path, len(whole)) as temporary:
        temporary.write_bytes(whole)


@contextmanager
def written_whole(path: Path, size: int = 0) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write, which is then seen there whole.

    Nothing is seen, and nothing is left, where it raises inside; what a kill leaves is found by
    :mod:`harness.claims`, by the start's token in its name.

    Raises:
        RunFailed: the disk is full; of ``size`` bytes, where they are known.
        InputError: it cannot be written for another reason.
    """
    written = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # said now, and not when it is written
            raise IsADirectoryError(errno.EISDIR, "a folder is in its place", str(path.parent))
        yield written
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path)
    except OSError as error:
        raise (unwritten(path, error, size) if _is_about(error, written) else error) from None
    finally:
        with suppress(OSError):  # else it would hide what went wrong
            written.unlink(missing_ok=True)


def create(file: Path, content: bytes) -> bool:
    """Make a file with its content, unless there is one: of many that try, one makes it.

    A hard link decides; where there are none, another may see the file empty for a moment.

    Raises:
        RunFailed: the disk is full, or too many files are open.
        InputError: it cannot be written for another reason.
    """
    written = temporary(file)
    try:
        try:
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(content)
        except OSError as error:  # which may name no file
            raise unwritten(file, error) from None
        try:
            os.link(written, file)
        except FileExistsError:
            # A server's word that it was made may get lost, and the question be asked again.
            return written.stat().st_nlink == 2
        except OSError:  # no links on this file system
            return _create_plainly(file, content)
    finally:
        written.unlink(missing_ok=True)
    return True


def _create_plainly(file: Path, content: bytes) -> bool:
    try:
        made = file.open("xb")
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritten(file, error) from None
    try:
        with made:
            made.write(content)
    except OSError as error:  # an empty one would stay, and count
        file.unlink(missing_ok=True)
        raise unwritten(file, error) from None
    return True


def remove(path: Path) -> bool:
    """Remove a file or a folder, which others may do at the same time; tell whether it is gone.

    >>> remove(Path("nowhere"))
    True
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)


def matching(folder: Path, pattern: str) -> list[Path]:
    """List what matches a pattern in a folder that other processes change at the same time.

    A folder that is gone before it is looked into counts as empty, and so does one that this user
    may not look into. ``Path.glob`` fails there on Python 3.11, and from 3.12 on hides all errors.

    Args:
        folder: where.
        pattern: names or parts of them, with ``/`` between folders; hidden ones match too.

    Raises:
        OSError: a folder that is there cannot be listed: too many files are open, say.

    >>> matching(Path("nowhere"), "*/*.json")
    []
    """
    name, _, below = pattern.partition("/")
    try:
        found = [path for path in folder.iterdir() if fnmatchcase(path.name, name)]
    except OSError as error:
        if error.errno in UNLISTED:
            return []
        raise
    return [p for path in found for p in matching(path, below)] if below else found


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a folder in ``folder`` for what takes minutes at most; it is gone afterwards.

    What killed processes left there goes when it is an hour old.

    >>> with scratch(Path(tempfile.gettempdir())) as there:
    ...     there.is_dir()
    True
    >>> there.is_dir()
    False
    """
    made = temporary(folder / "fastflow-harness")
    for left in matching(folder, ".fastflow-harness.*.tmp"):
        with suppress(OSError):  # another process removes it, or it is another user's
            if left.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(left)
    made.mkdir(mode=0o700, parents=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def home() -> Path:
    """Find the user's own folder, for caches; where there is none, make one for this time.

    It becomes ``HOME``, so that libraries and workers find the same one. A container may run as
    a user who has neither ``HOME`` nor an entry in the system's list.
    """
    try:
        if (own := Path.home()).is_absolute() and os.environ.get("HOME") != "":
            return own
    except RuntimeError:
        pass
    folder = Path(tempfile.mkdtemp(prefix="fastflow-harness-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["HOME"] = str(folder)
    print(
        f"harness: HOME: expected this user's folder; found none; caches go to {folder} and are "
        "removed at the end; set HOME to keep them",
        file=sys.stderr,
    )
    return folder


def cache_folder() -> Path:
    """Find the folder for what every use of the harness on this machine shares; it may be new."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "fastflow-harness"


def read_table(
    file: Path, columns: Iterable[str], *, optional: Iterable[str] = ()
) -> dict[int, dict[str, str]]:
    """Read a CSV file: line number → row, with every column.

    Args:
        file: the table.
        columns: those that it may have, in any order.
        optional: those that may be absent; their values are empty then.

    Raises:
        InputError: not CSV in UTF-8, columns that are missing or unknown, no rows.
    """
    columns = tuple(columns)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows = {line: row for row in reader if (line := reader.line_num)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: expected a CSV file in UTF-8; got: {error}") from None
    missing = [c for c in columns if c not in header and c not in optional]
    if missing or len(set(header)) < len(header):
        raise InputError(
            f"{file}: expected the columns {','.join(columns)}, each once; got "
            f"{','.join(header) or 'none'}"
        )
    for name in header:
        if name not in columns:
            raise unknown(f"column of {file}", name, columns)
    if not rows:
        raise InputError(f"{file}: expected rows below the columns; found none; add some")
    for line, row in rows.items():
        if None in row or None in row.values():
            raise InputError(
                f"{file}, line {line}: expected {len(header)} values; got more or fewer; quote "
                "values that hold a comma"
            )
    return {n: {c: row.get(c, "").strip() for c in columns} for n, row in rows.items()}


def _is_about(error: OSError, written: Path) -> bool:
    """Whether it tells of this file or its folder, and not of one that was read meanwhile."""
    if error.filename is None:  # of a descriptor: a file that is read is never full or read-only
        return error.errno in (*FULL, errno.EROFS)
    return Path(os.fsdecode(error.filename)) in (written, *written.parents)

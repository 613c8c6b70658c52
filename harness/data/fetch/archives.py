"""Extraction of archives that may be built to harm: bounded, and whole or not at all.

Only plain files and folders are written, with the user's own permissions, by names that stay
below the target. Everything else is refused, not skipped: links, devices, pipes, absolute names
and ``..`` (CVE-2007-4559), names that occur twice, and more bytes or files than allowed, as
declared or as found when decompressed.
"""

import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from harness.errors import InputError

_BLOCK = 2**20
_HEADERS = 2**16  # decompressed bytes for one member's headers and padding
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error,
    struct.error, EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError,
)  # fmt: skip
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe",
}  # fmt: skip
_ODD = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


class _Refused(Exception):
    """Why an archive is not extracted."""


class _Member(NamedTuple):
    name: str
    folder: bool
    size: int
    open: Callable[[], IO[bytes]]


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Bounded:
    """A decompressed stream that yields no more than was allowed so far.

    tarfile takes a header of any length into memory; this ends it at what a member may have.
    """

    def __init__(self, stream: _Readable) -> None:
        self._stream, self._room = stream, _HEADERS

    def allow(self, size: int) -> None:
        self._room += size

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(min(size, self._room + 1) if size >= 0 else self._room + 1)
        self._room -= len(block)
        if self._room < 0:
            raise _Refused("it decompresses to more than its members declare")
        return block


def extract(
    archive: Path,
    target: Path,
    *,
    inside: str = "",
    most_bytes: int = 8 * 2**30,
    most_files: int = 50_000,
) -> int:
    """Extract a folder of a tar, tar.gz, tar.xz or zip archive; its suffix does not matter.

    The files are written beside ``target`` and appear there with one rename; whatever fails, no
    part of them is left.

    Args:
        archive: the file.
        target: the folder to make; it may exist if it is empty.
        inside: the archive's folder to take, without its name; empty: everything.
        most_bytes: what all the archive's members may hold, decompressed.
        most_files: how many members there may be, folders included.

    Returns:
        How many files were written.

    Raises:
        InputError: the archive is damaged or refused, or the target has content or cannot be
            written.
    """
    if target.is_symlink() or (target.exists() and not _is_empty(target)):
        raise InputError(f"{target}: expected no such folder yet; it has content")
    building = target.with_name(f".{target.name}.extracting")
    shutil.rmtree(building, ignore_errors=True)  # a killed run's
    try:
        content = building / "content"
        content.mkdir(parents=True)
        building.chmod(0o700)
        with archive.open("rb") as file:
            members = _members(file)
            written = _write(members, content, _names(inside), most_bytes, most_files)
        if not written:
            raise _Refused(f"expected files in its folder {inside or '/'}; found none")
        os.sync()
        content.rename(target)
    except _Refused as error:
        raise InputError(f"{archive}: {error}; nothing was extracted") from None
    except _DAMAGE as error:
        raise InputError(
            f"{archive}: expected a whole archive; it is damaged ({type(error).__name__}); "
            "nothing was extracted; remove it to have it downloaded again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{error.filename or target}: {archive.name} could not be extracted "
            f"({error.strerror}); nothing was written"
        ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return written


def _write(
    members: Iterator[_Member],
    content: Path,
    inside: tuple[str, ...],
    most_bytes: int,
    most_files: int,
) -> int:
    """Write the files below ``inside``; every member is checked, written or not."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    written = 0
    for count, member in enumerate(members, start=1):
        names = _names(member.name)
        total += member.size
        if count > most_files:
            raise _Refused(f"expected at most {most_files} files; it has more")
        if member.size < 0 or total > most_bytes:
            raise _Refused(f"expected at most {most_bytes} bytes; it declares more")
        if not member.folder and (not names or names in seen):
            raise _Refused(f"expected every name once; {member.name!r} is there twice or empty")
        if not member.folder:
            seen.add(names)
        if names[: len(inside)] != inside or len(names) == len(inside):
            continue
        path = content.joinpath(*names[len(inside) :])
        try:
            (path if member.folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not member.folder:
                _copy(member, path)
                written += 1
        except (FileExistsError, NotADirectoryError):  # also of names that differ in case only
            raise _Refused(f"expected every name once; {member.name!r} is there twice") from None
    return written


def _copy(member: _Member, path: Path) -> None:
    left = member.size
    with member.open() as source, path.open("xb") as file:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                break
            file.write(block)
    if left:
        raise _Refused(f"expected {member.size} bytes in {member.name!r}; found other than that")


def _names(path: str) -> tuple[str, ...]:
    """The names along a member's path, which stays below the folder it is joined to."""
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if _ODD.search(path) or len(path) > 1000 or any(len(n.encode()) > 255 for n in names):
        raise _Refused(f"expected names below the target; got {path[:80]!r}")
    return names


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _members(file: IO[bytes]) -> Iterator[_Member]:
    start = file.read(262)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(file)
    if start.startswith(b"\xfd7zXZ\x00"):
        return _tar_members(_Bounded(lzma.open(file)))
    if start.startswith(b"\x1f\x8b"):
        return _tar_members(_Bounded(gzip.open(file)))
    if start.endswith(b"ustar"):
        return _tar_members(_Bounded(file))
    raise _Refused("expected a tar, tar.gz, tar.xz or zip archive; it is none")


def _tar_members(stream: _Bounded) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
        for info in tar:
            if not info.isdir() and (not info.isfile() or info.issparse()):
                kind = _KINDS.get(info.type, "neither")
                raise _Refused(f"expected files and folders only; {info.name[:80]!r} is {kind}")
            stream.allow(max(info.size, 0) + _HEADERS)
            opened = lambda info=info: tar.extractfile(info)
            yield _Member(info.name, info.isdir(), info.size, opened)
    stream.allow(_BLOCK)
    while block := stream.read(_BLOCK):  # to the end, where the compression's own checks stand
        if block.strip(b"\x00"):
            raise _Refused("expected its members to be all; more follows them")


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(
                    f"expected files and folders only; {info.filename[:80]!r} is a link or device"
                )
            if info.flag_bits & 1:
                raise _Refused(f"expected no password; {info.filename[:80]!r} has one")
            opened = lambda info=info: archive.open(info)
            yield _Member(info.orig_filename, info.is_dir(), info.file_size, opened)

"""Extraction of archives: plain files and folders below one folder, whole or not at all.

The standard library extracts (tar with its filter ``data``). Beforehand every member is refused
that a published data set has no use for: links, devices, names that are absolute, climb by ``..``
(CVE-2007-4559) or occur twice, and more bytes or files than allowed.
"""

import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.errors import InputError

BLOCK = 2**20
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError),
)
ODD = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^/|^[A-Za-z]:|(^|/)\.\.(/|$)")


class _Refused(Exception):
    """Why an archive is not extracted."""


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
        with _errors_of(archive, target):
            content = building / "content"
            content.mkdir(parents=True)
            building.chmod(0o700)
            members = _Members(_names(inside), most_bytes, most_files)
            with archive.open("rb") as file:
                start = file.read(262)
                file.seek(0)
                if start.startswith(b"PK"):
                    _unzip(file, content, members)
                else:
                    _untar(_decompressed(file, start), content, members)
            if not members.files:
                raise _Refused(f"expected files in its folder {inside or '/'}; found none")
            os.sync()
            content.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return members.files


@dataclass
class _Members:
    """The members so far, each checked before it is written."""

    inside: tuple[str, ...]
    most_bytes: int
    most_files: int
    count: int = 0
    total: int = 0
    files: int = 0
    seen: set[tuple[str, ...]] = field(default_factory=set)

    def check(self, name: str, size: int, *, folder: bool) -> str:
        """Give the member's path below the folder that is taken; empty if it is not."""
        names = _names(name)
        self.count += 1
        self.total += size
        if self.count > self.most_files:
            raise _Refused(f"expected at most {self.most_files} files; it has more")
        if size < 0 or self.total > self.most_bytes:
            raise _Refused(f"expected at most {self.most_bytes} bytes; it declares more")
        if not folder and (not names or names in self.seen):
            raise _Refused(f"expected every name once; {name!r} is there twice or empty")
        if folder or names[: len(self.inside)] != self.inside:
            return ""
        self.seen.add(names)
        self.files += 1
        return "/".join(names[len(self.inside) :])


def _untar(file: IO[bytes], content: Path, members: _Members) -> None:
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for info in tar:
            if not info.isdir() and (not info.isfile() or info.issparse()):
                raise _Refused(f"expected files and folders only; {info.name[:80]!r} is neither")
            if name := members.check(info.name, info.size, folder=info.isdir()):
                tar.extract(info.replace(name=name, deep=False), content, filter="data")
        rest = tar.fileobj  # to the end, where the compression's own checks stand
        ended = False
        while rest is not None and (block := rest.read(BLOCK)):
            ended = True
            if block.strip(b"\x00"):
                raise _Refused("expected its members to be all; more follows them")
        if not ended:
            raise EOFError


def _decompressed(file: IO[bytes], start: bytes) -> Any:  # noqa: ANN401 -- read alone
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(file)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(file)
    if start.endswith(b"ustar"):
        return file
    raise _Refused("expected a tar, tar.gz, tar.xz or zip archive; it is none")


def _unzip(file: IO[bytes], content: Path, members: _Members) -> None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & 1:
                raise _Refused(
                    "expected files and folders only, without a password; "
                    f"{info.orig_filename[:80]!r} is a link or device, or has one"
                )
            # zipfile itself would cut a name at a NUL.
            if name := members.check(info.orig_filename, info.file_size, folder=info.is_dir()):
                path = content / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, path.open("xb") as copy:
                    shutil.copyfileobj(source, copy, BLOCK)


def _names(path: str) -> tuple[str, ...]:
    """The names along a member's path, which stays below the folder it is joined to."""
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ODD.search(path) or len(path) > 1000 or any(len(n.encode()) > 255 for n in names):
        raise _Refused(f"expected names below the target; got {path[:80]!r}")
    return names


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def _errors_of(archive: Path, target: Path) -> Iterator[None]:
    """Whatever fails inside as one line; nothing was extracted then."""
    try:
        yield
    except _Refused as error:
        raise InputError(f"{archive}: {error}; nothing was extracted") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = Path(error.filename or "").name
        raise InputError(
            f"{archive}: expected every name once; '{name}' is there twice; nothing was extracted"
        ) from None
    except DAMAGE as error:
        raise InputError(
            f"{archive}: expected a whole archive; it is damaged ({type(error).__name__}); "
            "nothing was extracted; remove it to have it downloaded again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{error.filename or target}: {archive.name} could not be extracted "
            f"({error.strerror}); nothing was written"
        ) from None

"""Arrays that are written in order, with sums by which damage is found before they are used.

A sum is the CRC-32 of a block of the file, as a zip has it: it finds bytes that changed by
themselves, at several times the speed of a cryptographic hash, and each block on its own, so that
all threads look at once. Nothing is written by a memory map, where a full disk ends the process.
"""

import io
import math
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self, TypeVar
from zipfile import ZipFile

import msgspec
import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.errors import RunFailed, see_that_it_is_damage, unwritten, warn

BLOCK = 2**24  # bytes of a sum

Opened = TypeVar("Opened")
Sums = dict[str, list[int]]  # file's name → the CRC-32 of each of its blocks
_SOUND: set[tuple[object, ...]] = set()  # files that this process has looked at


class DamagedFeatures(RunFailed):
    """Say which cached file is not what was written; the next start makes it anew.

    >>> raise DamagedFeatures("cache/49a4503d96553f11/train-0.npy: expected ...; got ...")
    Traceback (most recent call last):
    harness.features.checked.DamagedFeatures: cache/49a4503d96553f11/train-0.npy: expected ...
    """


class ArrayWriter:
    """Write an array to an ``.npy`` file, some rows at a time, and sum its bytes.

    Args:
        file: where.
        dtype: of the numbers.
        shape: of the whole array, (N, ...).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with ArrayWriter(file := Path(folder, "a.npy"), "float32", (3, 2)) as writer:
    ...         writer.append(np.ones((2, 2)))
    ...         writer.append(np.zeros((1, 2)))
    ...     print(np.load(file).sum(), writer.sums == sums_of(file))
    4.0 True
    """

    def __init__(self, file: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.file, self.dtype = file, np.dtype(dtype)
        self.sums: list[int] = []
        self._filled = BLOCK  # bytes of the block at the end, which is as good as full at first
        header = io.BytesIO()
        about = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(header, about)
        try:
            self._out = file.open("wb", buffering=0)
        except OSError as error:
            raise unwritten(file, error) from None
        try:
            self._write(memoryview(header.getvalue()))
        except RunFailed:
            self._out.close()
            raise

    def append(self, rows: NDArray[Any]) -> None:
        """Write further rows.

        Raises:
            RunFailed: the disk is full.
        """
        self._write(np.ascontiguousarray(rows, self.dtype).data.cast("B"))

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Finish the file."""
        try:
            self._out.close()
        except OSError as full:  # a network file system says so at the end
            raise unwritten(self.file, full) from None

    def _write(self, data: memoryview) -> None:
        while data:
            if self._filled == BLOCK:
                self.sums.append(0)
                self._filled = 0
            try:
                written = self._out.write(data[: BLOCK - self._filled])
            except OSError as error:
                raise unwritten(self.file, error) from None
            self.sums[-1] = zlib.crc32(data[:written], self.sums[-1])
            self._filled += written
            data = data[written:]


def check_files(folder: Path, sums: Mapping[str, list[int]]) -> None:
    """Look whether files are what was written, once in a process for each file.

    Args:
        folder: where they are.
        sums: what was written.

    Raises:
        DamagedFeatures: one is not; it is named, with what was expected and what came.
        InputError: the system does not let one be read; it may be sound.
        RunFailed: too many files are open.
    """
    for name, wanted in sums.items():
        file = folder / name
        try:
            about = file.stat()
            known = (file, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
            if known in _SOUND:
                continue
            found = sums_of(file)
        except OSError as error:
            see_that_it_is_damage(file, error)
            raise _damaged(file, f"a file of {len(wanted)} blocks", error.strerror) from None
        if len(found) != len(wanted):
            raise _damaged(file, f"{len(wanted)} blocks of {BLOCK} bytes", f"{len(found)}")
        for block, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if one != other:
                where = f"in the {BLOCK} bytes from byte {block * BLOCK}"
                raise _damaged(file, f"the CRC-32 {one:08x} {where}", f"{other:08x}")
        _SOUND.add(known)


class Meta(msgspec.Struct):
    """Hold what an entry says of itself, in ``meta.json``.

    >>> Meta(key={"category": "grass"}, images=2, sums={}).images
    2
    """

    key: dict[str, Any]
    images: int
    sums: Sums


def read_meta(entry: Path) -> dict[str, Any]:
    """Read what an entry says of itself; nothing for what is no whole entry.

    Raises:
        InputError: the system does not let it be read; it may be whole.
        RunFailed: too many files are open.

    >>> read_meta(Path("nowhere"))
    {}
    """
    file = entry / "meta.json"
    try:
        content = file.read_bytes()
        return msgspec.structs.asdict(msgspec.json.decode(content, type=Meta))
    except (OSError, ValueError) as error:
        see_that_it_is_damage(file, error)
        return {}


def sound(look: Callable[[], Opened | None]) -> Opened | None:
    """Open something of the cache; what is damaged is said, and as good as nothing.

    >>> sound(lambda: 1)
    1
    """
    try:
        return look()
    except DamagedFeatures as error:
        warn(error)
        return None


def sums_of(file: Path) -> list[int]:
    """Sum a file's blocks up, on as many threads as torch has here, through one descriptor.

    >>> sums_of(Path(__file__)) == [zlib.crc32(Path(__file__).read_bytes())]
    True
    """
    with file.open("rb", buffering=0) as data:
        descriptor = data.fileno()

        def sum_at(start: int) -> int:
            crc, at = 0, start
            while read := os.pread(descriptor, min(start + BLOCK - at, 2**20), at):
                crc, at = zlib.crc32(read, crc), at + len(read)
            return crc

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(sum_at, range(0, os.fstat(descriptor).st_size, BLOCK)))


def read_array(file: ZipFile, member: str) -> NDArray[Any]:
    """Read an array of an ``.npz``, checked against the zip's checksum.

    Raises:
        ValueError: its header is damaged, or says another size than it has: no room is made for
            that, so that a lack of memory is one.

    >>> from tempfile import TemporaryFile
    >>> with TemporaryFile() as file:
    ...     np.savez(file, a=np.arange(3))
    ...     read_array(ZipFile(file), "a.npy")
    array([0, 1, 2])
    """
    with file.open(member) as data:
        size = _size_said(data)
    if size != file.getinfo(member).file_size:
        raise ValueError(f"{member}: expected {file.getinfo(member).file_size} bytes; got {size}")
    with file.open(member) as data:
        array: NDArray[Any] = npy.read_array(data, allow_pickle=False)
        data.read()  # to the end, where the checksum is compared
    return array


def _size_said(data: IO[bytes]) -> int:
    """Bytes of a file of an array, by its header."""
    read = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
    major, _ = npy.read_magic(data)
    try:
        shape, _, dtype = read[major](data)
    except MemoryError as error:  # of the parser, at brackets without end
        raise ValueError(str(error)) from None
    return data.tell() + math.prod(shape) * dtype.itemsize


def _damaged(file: Path, expected: str, got: str | None) -> DamagedFeatures:
    return DamagedFeatures(
        f"{file}: expected {expected}; got {got}: the cached features are damaged; the next start "
        "makes them anew"
    )

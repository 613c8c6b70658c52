"""Energies in a file that was never finished, as a training leaves it that was killed."""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

from harness.run.energies import SavedEnergies


class Member(NamedTuple):
    """Say where in the file an array is, and what is there.

    Attributes:
        name: of the array.
        at: the byte at which its header begins.
        size: bytes behind that.
        crc: their checksum.

    >>> Member("about.npy", 0, 1, 0).name
    'about.npy'
    """

    name: str
    at: int
    size: int
    crc: int


def members(energies: SavedEnergies, count: int | None = None) -> list[Member]:
    """List the first so many arrays, or all of them."""
    listed = energies.members()[:count]
    return [Member(i.filename, i.header_offset, i.file_size, i.CRC) for i in listed]


def take_over(energies: SavedEnergies, file: Path, listed: Iterable[Member]) -> None:
    """Append arrays of a file that was never finished, one by one.

    Raises:
        OSError: it cannot be read.
        BadZipFile: an array is not there as it was written.
    """
    with file.open("rb") as unfinished:
        for member in listed:
            unfinished.seek(member.at + 26)  # of the 30 bytes that a zip has before a name,
            name, extra = (int.from_bytes(unfinished.read(2), "little") for _ in range(2))
            unfinished.seek(name + extra, os.SEEK_CUR)  # its length, and that of some extras
            content = unfinished.read(member.size)
            if len(content) != member.size or zlib.crc32(content) != member.crc:
                raise BadZipFile(f"{file.name}: {member.name} is damaged")
            energies.append(member.name, content)

"""What is said of files that a run can do with, or without: one line a kind."""

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from harness.errors import InputError
from harness.escape import in_line


class Remark(NamedTuple):
    """Say one thing of some files.

    Attributes:
        what: what is true of each, as in ``left out: no image by its name``.
        files: their names, sorted.

    >>> print(Remark("left out: no image by its name", ("a.txt", "b.pdf")))
    2 files left out: no image by its name, as a.txt
    """

    what: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in one line, with a count and an example."""
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"{count} {self.what}, as {in_line(self.files[0])}"


def remarks(found: Iterable[tuple[str, str]]) -> list[Remark]:
    """Gather what is said of files, (what, file's name), by what is said, in its first order.

    >>> [len(r.files) for r in remarks([("left out", "a"), ("dark", "b"), ("left out", "c")])]
    [2, 1]
    """
    kinds: dict[str, list[str]] = {}
    for what, file in found:
        kinds.setdefault(what, []).append(file)
    return [Remark(what, tuple(sorted(files))) for what, files in kinds.items()]


def tell(said: Sequence[Remark], read: Sequence[str], *, strict: bool, out: TextIO) -> None:
    """Say what the images were taken for, and on standard error what should be known.

    Args:
        said: the remarks, a line each.
        read: what they were taken for, in lines.
        strict: whether any is an error.
        out: where the lines are printed.

    Raises:
        InputError: there are some, and that is one.
    """
    for line in read:
        print(line, file=out)
    for remark in said:
        print(f"harness: {remark}", file=sys.stderr)
    if strict and said:
        raise InputError(
            "--strict: expected every file to be used and none to be doubtful; "
            f"got the {len(said)} remarks above (`harness doctor` lists every file)"
        )

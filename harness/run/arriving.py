"""Files that come from another machine in pieces, and are seen when they are whole."""

from pathlib import Path

from harness.errors import unwritten
from harness.files import temporary, written_whole


class Arriving:
    """Write files piece by piece; nothing of one that stays unfinished is left.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     files, there = Arriving(), Path(folder, "there")
    ...     files.add(there, b"a"), files.add(there, b"b"), there.exists()
    ...     files.finish(there), there.read_bytes()
    (None, None, False)
    (None, b'ab')
    """

    def __init__(self) -> None:
        self._parts: dict[Path, Path] = {}

    def add(self, path: Path, piece: bytes) -> None:
        """Write the next piece of a file.

        Raises:
            RunFailed: the disk is full.
            InputError: it cannot be written for another reason.
        """
        part = self._parts.setdefault(path, temporary(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as file:
                file.write(piece)
        except OSError as error:
            raise unwritten(path, error) from None

    def finish(self, path: Path) -> None:
        """Let a file be seen, now that it is whole."""
        part = self._parts.pop(path)
        with written_whole(path) as whole:
            part.replace(whole)

    def drop(self) -> None:
        """Remove what is not whole."""
        while self._parts:
            self._parts.popitem()[1].unlink(missing_ok=True)

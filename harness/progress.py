"""Temporary."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """Show."""

    def __init__(self, what: str) -> None:
        self.what, self.said = what, False

    def advance(self, n: int) -> None:
        """Advance."""

    def note(self, text: str) -> None:
        """Note."""
        if not self.said:
            print(self.what, text, file=sys.stderr, flush=True)
        self.said = True

    def rename(self, text: str) -> None:
        """Rename."""


@contextmanager
def progress(what: str, total: int, unit: str = "") -> Iterator[Bar]:
    """Show."""
    yield Bar(what)

"""How a worker is asked to end: at once, or, in a training, once it is written down.

A signal raises :class:`Stopped` where nothing would be lost by that. Inside :func:`deferred` it is
only remembered, and :func:`check` raises it at the next moment that suits.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """Say that this process was asked to end; no failure, and no business of a run's.

    >>> issubclass(Stopped, Exception)
    False
    """


class _Asked:
    """What this process was asked, and how many are at something that is not to be broken off."""

    stop = False
    deferred = 0


def stop(*_: object) -> None:
    """Ask this process to end; a signal's handler.

    Raises:
        Stopped: at once, but where it is deferred; when it is asked again, what ends goes on.
    """
    before, _Asked.stop = _Asked.stop, True
    if not before and not _Asked.deferred:
        raise Stopped


@contextmanager
def deferred() -> Iterator[None]:
    """Let a request to end wait inside until :func:`check`.

    >>> with deferred():
    ...     stop()
    ...     is_asked()
    True
    >>> check()
    Traceback (most recent call last):
    harness.run.stop.Stopped
    >>> _Asked.stop = False
    """
    _Asked.deferred += 1
    try:
        yield
    finally:
        _Asked.deferred -= 1


def is_asked() -> bool:
    """Tell whether this process was asked to end."""
    return _Asked.stop


def check() -> None:
    """End here if this process was asked to.

    Raises:
        Stopped: it was.
    """
    if _Asked.stop:
        raise Stopped

"""How a worker is asked to end: at once, or, in a training, once it is written down.

A signal raises :class:`Stopped` where nothing would be lost by that. Inside :func:`deferred` it is
only remembered, and :func:`check` raises it at the next moment that suits.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SOON = 0.01  # seconds


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


def stop_unless_deferred(*_: object) -> None:
    """Raise what was asked before, but where it waits for :func:`check` anyway.

    Raises:
        Stopped: nothing is to be ended first.
    """
    if not _Asked.deferred:
        raise Stopped


@contextmanager
def never_dropped(
    kind: type[BaseException], again: Callable[[BaseException], object]
) -> Iterator[None]:
    """Ask again, a moment later, where Python drops what a signal's handler raised.

    A signal may come while a finaliser or a weak reference's callback runs. Python prints what is
    raised there, with a traceback, and goes on.

    Args:
        kind: what the handler raises.
        again: is given what was dropped, and raises it, or leaves it to a later moment.
    """
    usual, before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    asked = False

    def hear(dropped: Any) -> None:  # noqa: ANN401 -- its type is no class at run time
        nonlocal asked
        error = dropped.exc_value
        if (
            not isinstance(error, kind)
            or threading.current_thread() is not threading.main_thread()
        ):
            usual(dropped)
            return
        asked = True
        signal.signal(signal.SIGALRM, lambda *_: again(error))
        signal.setitimer(signal.ITIMER_REAL, SOON)

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = usual
        if asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


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

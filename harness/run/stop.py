"""How a process is asked to end, so that it hears; a training is written down first.

In a worker a signal raises :class:`Stopped` where nothing would be lost by that. Inside
:func:`deferred` it is only remembered, and :func:`check` raises it at the next moment that suits.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

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
    dropped: ClassVar[list[BaseException]] = []  # what was raised, and is to be raised again


def stop(*_: object) -> None:
    """Ask this process to end; a signal's handler.

    Raises:
        Stopped: at once, but where it is deferred; when it is asked again, what ends goes on.
    """
    before, _Asked.stop = _Asked.stop, True
    if not before and not _Asked.deferred:
        forget_dropped()
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


def stop_unless_deferred(error: BaseException) -> None:
    """Raise what was dropped, but where a request to end waits for :func:`check` anyway."""
    if not _Asked.deferred:
        raise_again(error)


def raise_again(error: BaseException) -> None:
    """Raise what was dropped."""
    try:
        raise error
    finally:
        del error  # its own traceback would keep it, and all that it was raised in


def forget_dropped() -> None:
    """Ask no longer for what was dropped, as something ends the work anyway."""
    _Asked.dropped.clear()


@contextmanager
def never_dropped(
    kind: type[BaseException], again: Callable[[BaseException], object]
) -> Iterator[None]:
    """Ask again, a moment later, where Python says that it drops what a signal's handler raised.

    A signal may come while a finaliser or a weak reference's callback runs. Python prints what is
    raised there, with a traceback, and goes on. (What is raised while a stream of the package
    ``io`` is finalised is dropped without a word before Python 3.13, and not heard.)

    Args:
        kind: what the handler raises, once it has called :func:`forget_dropped`.
        again: is given what was dropped, and raises it, or leaves it to a later moment.
    """
    if not hasattr(signal, "setitimer"):  # no POSIX
        yield
        return
    usual, before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    timers: list[tuple[float, float]] = []  # others' timer, once it is ours

    def ask(*_: object) -> None:
        if _Asked.dropped:
            again(_Asked.dropped.pop())

    def ask_soon(error: BaseException) -> None:
        _Asked.dropped[:] = [error]
        signal.signal(signal.SIGALRM, ask)
        timer = signal.setitimer(signal.ITIMER_REAL, SOON)
        timers.extend([] if timers else [timer])

    def hear(dropped: Any) -> None:  # noqa: ANN401 -- its type is no class at run time
        ours = isinstance(dropped.exc_value, kind)
        try:
            if ours and threading.current_thread() is threading.main_thread():
                ask_soon(dropped.exc_value)
            else:
                usual(dropped)
        except kind as error:  # a second signal, which would be dropped too
            ask_soon(error)

    sys.unraisablehook = hear
    try:
        yield
    except BaseException:  # it ends by that, and a later one is not to end by this
        forget_dropped()
        raise
    finally:
        sys.unraisablehook = usual
        if timers:
            signal.setitimer(signal.ITIMER_REAL, *timers[0])
            signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
    ask()  # where all ended before it was asked again


def is_asked() -> bool:
    """Tell whether this process was asked to end."""
    return _Asked.stop


def check() -> None:
    """End here if this process was asked to.

    Raises:
        Stopped: it was.
    """
    if _Asked.stop:
        forget_dropped()
        raise Stopped

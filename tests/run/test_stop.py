"""A signal ends what goes on, also where Python drops what its handler raises."""

import signal
import sys
import threading
import time
import weakref

import pytest
from faults.starts import hear

from harness.cli.surroundings import ENDING, interruptible
from harness.run import stop
from harness.run.stop import Stopped, deferred, never_dropped, stop_unless_deferred

LONG = 10.0  # seconds that nothing here should take


class Finalised:
    """Calls at its end."""

    def __init__(self, call):
        self.call = call

    def __del__(self):
        self.call()


def in_a_finaliser(call):
    Finalised(call)


def in_a_callback(call):
    watched = threading.Event()
    noticed = weakref.ref(watched, lambda _: call())
    del watched
    assert noticed() is None


PLACES = [in_a_finaliser, in_a_callback]


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    numbers = (*ENDING, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    hear()  # a background job of a shell ignores Ctrl-C
    monkeypatch.setattr(stop, "SOON", 0.2)
    yield
    left = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    stop._Asked.stop = False
    assert left == (handlers[-1], 0)
    assert getattr(sys.unraisablehook, "__name__", "") != "hear"
    assert stop._Asked.dropped == []


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_what_goes_on_though_python_drops_it(place, number, capsys):
    came = []

    def work():
        with interruptible():
            place(lambda: signal.raise_signal(number))
            came.append("after it")
            time.sleep(LONG)
            came.append("to the end")

    with pytest.raises(KeyboardInterrupt) as ended:
        work()
    assert ended.value.args == (number,)
    assert came == ["after it"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_worker_ends_though_python_drops_it_but_not_in_what_is_to_be_done_first(
    place, waits, capsys
):
    came = []

    def work():
        signal.signal(signal.SIGTERM, stop.stop)
        with never_dropped(Stopped, stop_unless_deferred):
            place(lambda: signal.raise_signal(signal.SIGTERM))
            if waits:
                with deferred():
                    time.sleep(2 * stop.SOON)
                    came.append("done")
                stop.check()
            time.sleep(LONG)
            came.append("to the end")

    with pytest.raises(Stopped):
        work()
    assert came == ["done"] * waits
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", PLACES)
def test_what_ends_before_it_is_asked_again_ends_by_it(place):
    def work():
        with interruptible():
            place(lambda: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(KeyboardInterrupt):
        work()


def test_what_ends_by_an_error_ends_nothing_after_it():
    def work(error):
        with interruptible():
            if error:
                in_a_finaliser(lambda: signal.raise_signal(signal.SIGINT))
                raise error

    with pytest.raises(ValueError, match="a bug"):
        work(ValueError("a bug"))
    work(None)


def test_of_two_signals_the_dropped_one_does_not_break_off_what_the_other_began():
    """The second Ctrl-C is raised where it comes; the first is asked for no longer."""
    came = []

    def work():
        with interruptible():
            in_a_finaliser(lambda: signal.raise_signal(signal.SIGINT))
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                time.sleep(2 * stop.SOON)
                came.append("tidied up")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert came == ["tidied up"]


def test_a_signal_that_comes_while_another_error_is_printed_is_heard(monkeypatch):
    usual = lambda dropped: signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", usual)

    def fail():
        raise ValueError("a bug")

    def work():
        with interruptible():
            in_a_finaliser(fail)
            time.sleep(LONG)

    with pytest.raises(KeyboardInterrupt) as ended:
        work()
    assert ended.value.args == (signal.SIGTERM,)


def test_anothers_timer_goes_on():
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append("rang"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 3 * stop.SOON)
        with pytest.raises(KeyboardInterrupt), interruptible():
            in_a_callback(lambda: signal.raise_signal(signal.SIGINT))
        time.sleep(4 * stop.SOON)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert rang == ["rang"]


def test_what_no_signal_raised_is_said_as_ever(monkeypatch):
    said = []
    monkeypatch.setattr(stop.sys, "unraisablehook", lambda dropped: said.append(dropped.exc_value))

    def fail():
        raise ValueError("a bug")

    with interruptible():
        in_a_finaliser(fail)
    assert [str(error) for error in said] == ["a bug"]

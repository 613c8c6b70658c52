"""What a signal's handler raises is never dropped, wherever the signal comes."""

import signal
import threading
import time
import weakref

import pytest

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
def as_before():
    numbers = (*ENDING, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == handlers[-1]
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    stop._Asked.stop = False


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
                    time.sleep(5 * stop.SOON)
                    came.append("done")
                stop.check()
            time.sleep(LONG)
            came.append("to the end")

    with pytest.raises(Stopped):
        work()
    assert came == ["done"] * waits
    assert capsys.readouterr().err == ""


def test_what_no_signal_raised_is_said_as_ever(monkeypatch):
    said = []
    monkeypatch.setattr(stop.sys, "unraisablehook", lambda dropped: said.append(dropped.exc_value))

    def fail():
        raise ValueError("a bug")

    with interruptible():
        in_a_finaliser(fail)
    assert [str(error) for error in said] == ["a bug"]

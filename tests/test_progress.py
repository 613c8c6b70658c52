"""Progress: plain lines on a clock made by hand, and a moving bar on a terminal."""

import io
from types import SimpleNamespace

import pytest
import rich.console

from harness import progress as module
from harness.progress import progress


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_plain_lines_come_now_and_then(clock):
    out = io.StringIO()
    with progress("training 0/2 runs", 200, stream=out) as bar:
        bar.note("grass, epoch 1/4")
        for step in range(1, 5):
            clock.now = 10.0 * step
            bar.note(f"grass, epoch {step}/4")
            bar.advance(25)
        bar.rename("training 2/2 runs")
        bar.advance(100)
    assert out.getvalue().splitlines() == [
        "training 0/2 runs: 0 %, 0:00 elapsed; grass, epoch 1/4",
        "training 0/2 runs: 12 %, 0:20 elapsed, 2:20 left; grass, epoch 2/4",
        "training 0/2 runs: 38 %, 0:40 elapsed, 1:06 left; grass, epoch 4/4",
        "training 2/2 runs: 100 %, 0:40 elapsed; grass, epoch 4/4",
    ]


def test_a_work_of_unknown_size_counts(clock):
    out = io.StringIO()
    with progress("download", None, unit="B", stream=out) as bar:
        bar.advance(1)
        clock.now = 3700.0
        bar.advance(6)
    assert out.getvalue() == "download: 7 B, 1:01:40 elapsed\n"


def test_what_is_quickly_done_says_nothing(clock):
    out = io.StringIO()
    with progress("download", 4, unit="MiB", stream=out) as bar:
        bar.advance(4)
    assert out.getvalue() == ""


def test_an_interrupted_work_says_how_far_it_came(clock):
    out = io.StringIO()

    def work():
        with progress("x", 4, unit="runs", stream=out) as bar:
            bar.note("a")
            bar.advance(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert out.getvalue().splitlines()[-1] == "x: 2/4 runs, 0:00 elapsed, 0:00 left; a"


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    original = rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda **given: original(**given, force_terminal=True, width=120)
    )
    screen.isatty = lambda: True
    with progress("features", 8, unit="images", stream=screen) as bar:
        bar.note("brick [/x] × resnet18")  # a folder's name is no markup
        bar.advance(8)
        bar.rename("done")
    assert "8/8 images" in screen.getvalue()
    assert "brick [/x] × resnet18" in screen.getvalue()
    assert "done" in screen.getvalue()

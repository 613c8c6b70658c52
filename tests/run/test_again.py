"""Weights that are asked for later: the training is done once more, and survives what any does."""

import contextlib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import Here

from harness.claims import TakenOver
from harness.experiment.store import read_records
from harness.run import job, learn, stop, sweep, train
from harness.run.job import Job
from harness.run.plan import make_plan
from harness.run.stop import Stopped
from harness.run.sweep import run_study


@pytest.fixture(autouse=True)
def nobody_asks():
    yield
    stop._Asked.stop = False
    stop._Asked.deferred = 0
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def recorded(study, settings, monkeypatch):
    """One run that is recorded without its weights; how it is run with them."""
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    only = replace(study, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False)

    def run(said=None, *, keep=True, results=settings.results, **changes):
        there = replace(settings, keep=keep, results=results, **changes)
        say = (lambda text: None) if said is None else said.append
        return run_study(make_plan(only, there), there, say)

    run(keep=False)
    run.results = settings.results
    return run


def left(results):
    return sorted(p.name for p in (results / "runs").rglob("seed-*"))


def asking(at):
    looks = iter(range(1, 10**6))

    def is_asked():
        stop._Asked.stop = next(looks) >= at
        return stop._Asked.stop

    return is_asked


WITHOUT = ["seed-0.gallery.npz", "seed-0.json", "seed-0.npz"]


def test_a_stop_of_it_costs_no_epochs(recorded, tmp_path, monkeypatch):
    epochs, one = [], train._epoch

    def counted(training, *given):
        epochs.append(training.epoch)
        return one(training, *given)

    monkeypatch.setattr(train, "_epoch", counted)
    before = {p: p.read_bytes() for p in recorded.results.rglob("seed-*")}
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.checkpoint.is_asked", asking(4))
        with pytest.raises(Stopped):
            recorded()
    assert epochs == [1, 2], "it was stopped in its second epoch"
    stop._Asked.stop = False
    assert {p: p.read_bytes() for p in before} == before, "what is recorded stays as it is"
    there = left(recorded.results)
    assert there[0] == "seed-0.again.checkpoint"
    assert there[1].startswith("seed-0.again.checkpoint-")
    assert there[2:] == WITHOUT
    epochs.clear()
    said = []
    assert recorded(said).recorded == 1
    assert epochs == [2, 3]
    assert not any("not taken up" in line for line in said)
    assert left(recorded.results) == [*WITHOUT, "seed-0.safetensors"]
    recorded(results=tmp_path / "at once")
    again, once = (
        load_file(next(folder.rglob("*.safetensors")))
        for folder in (recorded.results, tmp_path / "at once")
    )
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_a_checkpoint_of_it_with_other_threads_is_not_taken_up(recorded, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.checkpoint.is_asked", asking(4))
        with pytest.raises(Stopped):
            recorded()
    stop._Asked.stop = False
    monkeypatch.setattr(sweep, "cores", lambda: 4)  # two threads for each of two runs
    said = []
    with contextlib.suppress(Exception):
        recorded(said)
    (line,) = (line for line in said if "not taken up" in line)
    assert "seed-0.again.checkpoint: not taken up, as it is of other threads" in line


def test_nothing_is_written_for_it_once_another_start_has_it(recorded, monkeypatch):
    """A start that stood still while it trained again has lost its claim."""
    lost, original = [], learn.learn

    def stalled(*given, **named):
        model = original(*given, **named)
        lost.append(True)
        return model

    def check(self):
        if lost:
            raise TakenOver("another has it")

    monkeypatch.setattr(learn, "learn", stalled)
    monkeypatch.setattr(Job, "check_claim", check)
    before = {p: p.read_bytes() for p in recorded.results.rglob("seed-*")}
    outcome = recorded()
    assert lost
    assert outcome.recorded == 0
    after = {p: p.read_bytes() for p in recorded.results.rglob("seed-*")}
    assert {p: c for p, c in after.items() if not p.name.endswith(".failed.json")} == before


def test_other_energies_leave_no_checkpoint_of_it(recorded, monkeypatch):
    monkeypatch.setattr(learn, "_same_chunks", lambda *_: iter([False]))
    (failure,) = recorded(checkpoint_minutes=1e-9).failed
    assert "expected its energies when it is trained again" in failure[1]
    assert left(recorded.results) == ["seed-0.failed.json", *WITHOUT]


@pytest.mark.parametrize("keep", [True, False])
def test_a_request_while_it_is_scored_waits_for_weights_alone(
    keep, recorded, tmp_path, monkeypatch
):
    """They would have to be trained once more; figures are made anew in no time."""
    original = job.evaluate

    def asked(*given):
        stop.stop()
        return original(*given)

    monkeypatch.setattr(job, "evaluate", asked)
    with contextlib.nullcontext() if keep else pytest.raises(Stopped):
        recorded(keep=keep, results=tmp_path / "new")
    assert len(list(read_records(tmp_path / "new"))) == keep
    assert ("seed-0.safetensors" in left(tmp_path / "new")) == keep
    assert "seed-0.npz" in left(tmp_path / "new")

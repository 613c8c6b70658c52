"""Weights that are asked for later: the training is done once more, and survives what any does."""

import contextlib
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, Here, write_category

from harness.claims import TakenOver
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study
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


def run(folder, results="results", *, keep=True, **changes):
    """Run the study in a folder: one training of a tiny data set."""
    study = Study(
        name="again", asks="?", bases={"base": TINY}, vary=({},), dataset="mvtec_ad", seeds=(0,)
    )
    settings = Settings(
        results=folder / results, data=folder / "data", keep=keep, speed=False, jobs=2, **changes
    )
    return run_study(make_plan(study, settings), settings, lambda text: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that is recorded without its weights."""
    folder = tmp_path_factory.mktemp("made")
    write_category(folder / "data" / "left", good=8, bad=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "open_executor", lambda settings: Here())
        run(folder, keep=False)
    return folder


@pytest.fixture
def there(made, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    return shutil.copytree(made, tmp_path / "there")


def left(folder, results="results"):
    return sorted(p.name for p in (folder / results / "runs").rglob("seed-*"))


def contents(folder):
    return {p: p.read_bytes() for p in (folder / "results" / "runs").rglob("seed-*")}


def asking(at):
    looks = iter(range(1, 10**6))

    def is_asked():
        stop._Asked.stop = next(looks) >= at
        return stop._Asked.stop

    return is_asked


WITHOUT = ["seed-0.gallery.npz", "seed-0.json", "seed-0.npz"]


def test_a_stop_of_it_costs_no_epochs(there, monkeypatch, capsys):
    epochs, one = [], train._epoch

    def counted(training, *given):
        epochs.append(training.epoch)
        return one(training, *given)

    monkeypatch.setattr(train, "_epoch", counted)
    before = contents(there)
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.checkpoint.is_asked", asking(4))
        with pytest.raises(Stopped):
            run(there)
    assert epochs == [1, 2], "it was stopped in its second epoch"
    stop._Asked.stop = False
    assert before.items() <= contents(there).items(), "what is recorded stays as it is"
    first, second, *others = left(there)
    assert first == "seed-0.again.checkpoint"
    assert second.startswith("seed-0.again.checkpoint-")
    assert others == WITHOUT
    epochs.clear()
    assert run(there).recorded == 1
    assert epochs == [2, 3]
    assert "not taken up" not in capsys.readouterr().out
    assert left(there) == [*WITHOUT, "seed-0.safetensors"]
    run(there, "at once")
    again, once = (
        load_file(next(folder.rglob("*.safetensors")))
        for folder in (there / "results", there / "at once")
    )
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_a_checkpoint_of_it_with_other_threads_is_not_taken_up(there, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.checkpoint.is_asked", asking(4))
        with pytest.raises(Stopped):
            run(there)
    stop._Asked.stop = False
    monkeypatch.setattr(sweep, "cores", lambda: 4)  # two threads for each of two runs
    monkeypatch.setattr(learn, "learn", lambda *given, **named: 1 / 0)  # it is looked at before
    run(there)
    said = capsys.readouterr().out
    assert "seed-0.again.checkpoint: not taken up, as it is of other threads; it is" in said


def test_nothing_is_written_for_it_once_another_start_has_it(there, monkeypatch):
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
    before = contents(there)
    outcome = run(there)
    assert lost
    assert outcome.recorded == 0
    after = contents(there)
    assert {p: c for p, c in after.items() if not p.name.endswith(".failed.json")} == before


def test_other_energies_leave_no_checkpoint_of_it(there, monkeypatch):
    monkeypatch.setattr(learn, "_same_chunks", lambda *_: iter([False]))
    (failure,) = run(there, checkpoint_minutes=1e-9).failed
    assert "expected its energies when it is trained again" in failure[1]
    assert left(there) == ["seed-0.failed.json", *WITHOUT]


@pytest.mark.parametrize("keep", [True, False])
def test_a_request_while_it_is_scored_waits_for_weights(keep, there, monkeypatch):
    """They would have to be trained once more; figures are made anew in no time."""
    original = job.evaluate

    def asked(*given):
        stop.stop()
        return original(*given)

    monkeypatch.setattr(job, "evaluate", asked)
    with contextlib.nullcontext() if keep else pytest.raises(Stopped):
        run(there, "new", keep=keep)
    assert len(list(read_records(there / "new"))) == keep
    assert ("seed-0.safetensors" in left(there, "new")) == keep
    assert "seed-0.npz" in left(there, "new")

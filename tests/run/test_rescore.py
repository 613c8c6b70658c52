"""New metrics and scoring rules on what is trained already."""

import json
from dataclasses import replace

import msgspec
import pytest
from tiny import Here

from harness.experiment.store import read_record, read_records, write_record
from harness.experiment.study import one_factor
from harness.run import learn
from harness.run.history import load_energies, writing_energies
from harness.run.plan import make_plan
from harness.run.rescore import rescore_study
from harness.run.sweep import run_study
from harness.score.metrics import METRICS, Metric


def quiet(text):
    pass


@pytest.fixture
def recorded(study, settings, monkeypatch):
    """A study of one variant and two seeds, run here; nothing can be trained afterwards."""
    settings = replace(settings, categories=("left",), speed=False)
    study = replace(study, vary=({},))
    run_study(make_plan(study, settings), settings, quiet, executor=Here())
    monkeypatch.setattr(learn, "train", None)
    return study, settings


def by_seed(results):
    return {r.seed: msgspec.to_builtins(r) for r in read_records(results)}


def test_a_new_metric_reaches_old_records(recorded, monkeypatch):
    study, settings = recorded
    before = by_seed(settings.results)
    spread = lambda d: float(d.scores[d.truth].mean() - d.scores[~d.truth].mean())
    monkeypatch.setitem(METRICS, "image_spread", Metric("spread", "image", spread))
    outcome = rescore_study(make_plan(study, settings), settings, quiet)
    assert (outcome.recorded, outcome.failed) == (2, [])
    after = by_seed(settings.results)
    for seed, record in after.items():
        assert record["metrics"].pop("image_spread") > 0
        assert all(e["metrics"].pop("image_spread") > 0 for e in record["epochs"])
        assert record.pop("rescored")["harness"]
        assert record["measured"].pop("score_seconds") >= 0
        del before[seed]["measured"]["score_seconds"]
    assert after == before


def test_new_rules_give_what_a_run_would_have_given(recorded, tmp_path, monkeypatch):
    study, settings = recorded
    wider = replace(study, vary=one_factor(score_map=("nll",), smoothing=(2,)))
    said = []
    outcome = rescore_study(make_plan(wider, settings), settings, said.append)
    assert outcome.recorded == 6
    assert said == ["tiny: 6 of 6 runs scored anew"]
    monkeypatch.undo()
    elsewhere = replace(settings, results=tmp_path / "run")
    plan = make_plan(wider, elsewhere)
    run_study(plan, elsewhere, quiet, executor=Here())
    for cell in plan.cells:
        run = read_record(plan.place(cell).record)
        scored = read_record(make_plan(wider, settings).place(cell).record)
        for field in ("metrics", "epochs", "loss", "selection", "parameters", "macs", "variant"):
            assert getattr(scored, field) == getattr(run, field)
        assert make_plan(wider, settings).place(cell).gallery.is_file()


def test_a_new_rule_keeps_the_arithmetic_of_the_energies(recorded):
    study, settings = recorded
    plan = make_plan(study, settings)
    for cell in plan.cells:
        read = read_record(plan.place(cell).record)
        read.environment.arithmetic = "cuda tf32"
        write_record(plan.place(cell), read)
        source = {"data": read.data.digest, "weights": read.weights.sha256}
        path = plan.place(cell).energies
        before = load_energies(path, **source, arithmetic="cpu float32")
        with writing_energies(path, **source, arithmetic="cuda tf32") as history:
            history.loss, history.holdout = before.loss, before.holdout
            for epoch in before.energies:
                history.energies.save(epoch, before.energies.chunks(epoch))
    wider = replace(study, vary=one_factor(smoothing=(2,)))
    rescore_study(make_plan(wider, settings), settings, quiet)
    found = [r.environment.arithmetic for r in read_records(settings.results)]
    assert found == ["cuda tf32"] * 4


def test_without_energies_nothing_is_written(recorded):
    study, settings = recorded
    plan = make_plan(study, settings)
    gone = plan.place(plan.cells[0])
    gone.energies.unlink()
    before = gone.record.read_bytes()
    other = replace(study, vary=one_factor(flow_steps=(3,)))  # never trained
    said = []
    outcome = rescore_study(make_plan(other, settings), settings, said.append)
    assert outcome.recorded == 1
    assert said == [
        "tiny: 1 of 4 runs scored anew; 2 are not trained yet: `harness run` trains them"
    ]
    ((name, reason),) = outcome.failed  # recorded: `harness run` alone would not train it
    assert name == "left, flow_steps=2, seed 0"
    assert str(gone.energies) in reason
    assert f"remove {gone.record}" in reason
    assert gone.record.read_bytes() == before


def test_energies_of_other_images_are_not_taken(recorded, monkeypatch):
    study, settings = recorded
    plan = make_plan(study, settings)
    left = plan.categories["left"]
    other = replace(left, train=left.train[1:])
    plan = replace(plan, categories={"left": other})
    outcome = rescore_study(plan, settings, quiet)
    assert (outcome.recorded, len(outcome.failed)) == (0, 2)


def test_what_an_old_record_did_not_say_of_its_data_is_said(recorded):
    study, settings = recorded
    plan = make_plan(study, settings)
    places = [plan.place(c) for c in plan.cells]
    wanted = [read_record(p.record).data for p in places]
    for place in places:
        content = json.loads(place.record.read_text())
        content["schema"] = 1
        del content["data"]["complete"], content["data"]["published_form"]
        place.record.write_text(json.dumps(content))
    assert rescore_study(plan, settings, quiet).recorded == 2
    assert [read_record(p.record).data for p in places] == wanted


def test_a_rule_that_does_not_apply_is_told_and_the_rest_goes_on(recorded, monkeypatch):
    study, settings = recorded
    wider = replace(study, vary=({}, {"epoch_selection": "best-pixel-on-test"}))
    plan = make_plan(wider, settings)
    left = plan.categories["left"]
    bare = tuple(replace(s, masks=()) for s in left.test)
    masked = replace(left, test=bare)
    masked.__dict__["_content"] = left._content  # the same images: only the masks are gone
    outcome = rescore_study(replace(plan, categories={"left": masked}), settings, quiet)
    assert outcome.recorded == 2
    assert [name for name, _ in outcome.failed] == [
        f"left, epoch_selection=best-pixel-on-test, seed {s}" for s in (0, 1)
    ]

"""Choosing without the test set, end to end on the embedded surfaces with a tiny training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY, Here

from harness.experiment.choices import METHODS
from harness.experiment.settings import Settings
from harness.experiment.store import read_record
from harness.experiment.study import Study
from harness.features.cache import FeatureCache
from harness.methods.contract import Energies
from harness.run import learn
from harness.run.evaluate import evaluate_epoch
from harness.run.history import History, load_energies
from harness.run.plan import images_to_pass, make_plan
from harness.run.rescore import rescore_study
from harness.run.sweep import run_study
from harness.score.metrics import image_metrics, pixel_metrics
from harness.score.rule import score
from harness.score.select_epoch import validation_score

HELD = TINY.replace(holdout=0.25, eval_every=1, learning_rate=5e-3)
VALIDATED = HELD.replace(validation="synthetic")


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    """A study with and without validation, run once: its plan, settings and outcome."""
    folder = tmp_path_factory.mktemp("surfaces")
    settings = Settings(
        results=folder / "results", device="cpu", jobs=2, speed=False, categories=("grass",)
    )
    study = Study(
        name="tiny", asks="Which epoch?", dataset="surfaces", bases={"base": VALIDATED},
        vary=({}, {"validation": "none"}, {"epoch_selection": "label-free"}), seeds=(0,),
    )  # fmt: skip
    plan = make_plan(study, settings)
    torch.set_num_threads(1)
    outcome = run_study(plan, settings, lambda text: None, executor=Here())
    assert outcome.failed == []
    return plan, settings, outcome


def records(plan):
    return [read_record(plan.place(cell).record) for cell in plan.cells]


def test_the_copies_pass_once_and_are_reckoned_with(surfaces):
    plan, settings, outcome = surfaces
    train, test = plan.sizes["grass"]
    assert images_to_pass(plan.cells, plan.sizes) == {
        (HELD.feature_spec, "grass"): 2 * train + test
    }
    assert outcome.passes == 2 * train + test
    ((folder, _, _),) = FeatureCache(settings.cache / "features").entries()
    assert len(np.load(folder / "synthetic-0.npy", mmap_mode="r")) == train


def test_validation_is_of_the_held_out_images_and_separates_neither_all_nor_none(surfaces):
    plan, *_ = surfaces
    validated, plain, chosen = records(plan)
    assert all(e.validation is None for e in plain.epochs)
    assert [e.epoch for e in validated.epochs] == [1, 2, 3]
    for epoch in validated.epochs:
        assert set(epoch.validation) == {"image_auroc", "pixel_auroc"}
        assert all(0.4 < value < 1 for value in epoch.validation.values())
    assert validation_score(validated.epochs[-1]) > 0.55
    best = max(chosen.epochs, key=validation_score)
    assert (chosen.selection.rule, chosen.selection.oracle) == ("label-free", False)
    assert (chosen.selection.epoch, chosen.metrics) == (best.epoch, best.metrics)
    assert chosen.epochs == validated.epochs  # of one training


def test_validation_changes_nothing_that_is_learnt(surfaces):
    plan, *_ = surfaces
    validated, plain, _ = records(plan)
    assert validated.loss == plain.loss
    assert [(e.metrics, e.holdout) for e in validated.epochs] == [
        (e.metrics, e.holdout) for e in plain.epochs
    ]
    assert validated.training_digest != plain.training_digest


def test_its_figures_are_those_of_its_maps(surfaces):
    plan, *_ = surfaces
    validated, *_ = records(plan)
    history = load_energies(
        plan.place(plan.cells[0]).energies, data=validated.data.digest,
        weights=validated.weights.sha256, arithmetic=validated.environment.arithmetic,
    )  # fmt: skip
    held = round(0.25 * plan.sizes["grass"][0])
    maps, scores = score(VALIDATED, history.energies.part("validation")[3])
    assert len(scores) == 2 * held
    size = VALIDATED.image_size
    bits = np.unpackbits(history.energies.read("validation/masks.npy"), axis=1)
    masks = np.concatenate([np.zeros_like(bits), bits]).astype(bool).reshape(-1, size, size)
    expected = image_metrics(scores.numpy(), masks.any((1, 2)))
    expected |= pixel_metrics(maps.numpy(), masks)
    got = validated.epochs[-1].validation
    assert got == pytest.approx({name: expected[name] for name in got}, rel=1e-6)


@pytest.mark.whole
def test_other_score_rules_are_validated_without_training(surfaces, tmp_path, monkeypatch):
    plan, settings, _ = surfaces
    rules = ({}, {"smoothing": 2.0}, {"epoch_selection": "label-free", "smoothing": 2.0})
    wider = make_plan(replace(plan.study, vary=rules), settings)
    with monkeypatch.context() as patch:
        patch.setattr(learn, "train", None)
        assert rescore_study(wider, settings, lambda text: None).recorded == 3
    elsewhere = replace(settings, results=tmp_path)
    run = make_plan(wider.study, elsewhere)
    run_study(run, elsewhere, lambda text: None, executor=Here())
    for scored, ran in zip(records(wider), records(run), strict=True):
        assert (scored.epochs, scored.selection) == (ran.epochs, ran.selection)
    plain, smooth, _ = records(wider)
    assert plain.epochs[-1].validation != smooth.epochs[-1].validation


def test_a_method_without_maps_is_validated_by_its_image_scores():
    variant = VALIDATED.replace(method="differnet", holdout=0.5, validation="synthetic")
    assert not METHODS["differnet"].localises
    history = History(loss=[1.0])
    history.energies.save(1, [Energies(images=torch.tensor([0.0, 1.0]))])
    values = torch.tensor([1.0, 4.0, 2.0, 5.0])  # two good ones, then their copies
    history.energies.part("validation").save(1, [Energies(images=values)])
    bits = np.full((2, variant.image_size**2 // 8), 255, np.uint8)
    history.energies.write("validation/masks", bits)
    epoch = evaluate_epoch(variant, history, 1, np.array([0, 1]), None)
    assert epoch.validation == {"image_auroc": 0.75}

"""Photos cut into tiles: figures are of photos, and a detector gives them again."""

import numpy as np
import pytest
import torch
from tiny import TINY, Here, write_category

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.tiles import tiled
from harness.detect.detector import Detector
from harness.detect.make import make_detector, unseen
from harness.errors import InputError
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.run.plan import make_plan, plan_without_data
from harness.run.rescore import rescore_study
from harness.run.sweep import run_study
from harness.run.train import split

TILED = TINY.replace(
    image_size=32, tile_size=48, weights="random", epochs=1, flow_steps=1, eval_every=0
)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Photos of 80 × 80 pixels: two tiles a side."""
    folder = tmp_path_factory.mktemp("data") / "plates"
    return write_category(folder, good=4, bad=2, size=80)


def run(plates, results, variant):
    study = Study(name="one", asks="?", bases={"base": variant}, seeds=(0,), dataset="surfaces")
    settings = Settings(results=results, data=plates, speed=False, jobs=1, keep=True)
    plan = make_plan(study, settings)
    outcome = run_study(plan, settings, lambda text: None, executor=Here())
    assert not outcome.failed
    return plan, settings, outcome


RULES = {
    "FastFlow": {},
    "of several maps, by photo held out": {
        "holdout": 0.5, "validation": "synthetic", "image_score_map": "nll",
        "tap_scale": "quantile", "augmentation": "flips", "augmentation_copies": 1,
    },
    "padded": {"resize": "pad", "image_size": (32, 64)},
    "PatchCore, scores of its own": {"method": "patchcore", "coreset": 0.1},
    "without a map": {"method": "differnet", "epochs": 1, "views": 2, "hidden_channels": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.whole
def test_records_are_of_photos_and_the_detector_gives_their_scores(name, plates, tmp_path):
    variant = TILED.replace(**RULES[name])
    plan, settings, outcome = run(plates, tmp_path / "r", variant)
    (record,) = read_records(settings.results)
    assert (record.data.train, record.data.test, len(record.images.score)) == (4, 4, 4)
    copies = variant.feature_spec.copies + (variant.validation == "synthetic")
    assert outcome.passes == 4 * (4 + 4 + 4 * copies)
    assert plan.images_of(variant, "plates") == (16, 16)
    detector = make_detector(plan, settings)
    detector.save(tmp_path / "d.safetensors")
    again = Detector.load(tmp_path / "d.safetensors", "cpu")
    got = again([s.path for s in plan.categories["plates"].test])
    np.testing.assert_allclose(got.score, record.images.score, rtol=1e-5, atol=1e-5)
    assert "image_auroc" in record.metrics
    if got.anomaly_map is not None:
        side = round(80 * max(variant.shape) / 48) if max(variant.shape) < 48 else 80
        assert got.anomaly_map.shape == (4, side, side)
        assert (record.protocol.map_size, record.images.pixels) == ((side, side), side * side)
        assert max(record.images.defect_pixels) == pytest.approx((24 * side / 80) ** 2, rel=0.15)
        assert {"pixel_auroc", "aupro"} < record.metrics.keys()
        with np.load(plan.place(plan.cells[0]).gallery) as kept:
            assert kept["images"].shape[1:3] == kept["maps"].shape[1:] == (side, side)
    assert rescore_study(plan, settings).recorded == 1
    (scored,) = read_records(settings.results)
    assert (scored.metrics, scored.images) == (record.metrics, record.images)


def test_a_photo_is_held_out_whole(plates):
    category = MvtecAd(plates).load("plates")
    variant = TILED.replace(holdout=0.5)
    calibrating, _ = unseen(variant, category, 3)
    kept, held = split(4, 0.5, torch.Generator().manual_seed(3), tiles=[4] * 4)
    tiles = tiled(category, variant.feature_spec).train
    assert sorted([*kept, *held]) == list(range(16))
    assert {tiles[i].path for i in held} == {s.path for s in calibrating}
    assert not {tiles[i].path for i in kept} & {s.path for s in calibrating}


def test_no_tiles_without_the_photos(settings):
    study = Study(name="t", asks="?", bases={"t": TILED}, seeds=(0,), dataset="mvtec_ad")
    with pytest.raises(InputError, match="tile_size: expected --data DIR"):
        plan_without_data(study, settings)


def test_without_tiles_nothing_is_other_than_it_was(plates):
    category = MvtecAd(plates).load("plates")
    spec = TINY.feature_spec
    assert tiled(category, spec) is category
    assert not {"tile_size", "tile_overlap"} & spec.about().keys()

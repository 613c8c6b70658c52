"""What lies around a photo has no part in a score, a map or a metric."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_maps import draw_masks
from tiny import TINY, Here

from harness.data.frame import Box
from harness.errors import InputError
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.run.evaluate import PackedMasks, evaluate, per_image
from harness.run.history import History
from harness.run.plan import make_plan
from harness.run.rescore import rescore_study
from harness.run.sweep import run_study
from harness.score.reference import make_reference
from harness.score.rule import score, score_in_chunks

FRAME, GRIDS = (32, 48), ((8, 12), (4, 6))
PAD = Variant(image_size=FRAME, resize="pad", taps=(1, 2), smoothing=2.0)
BOXES = [Box(0, 10, 32, 39), Box(0, 10, 32, 39), Box(7, 0, 25, 48), Box(0, 0, *FRAME)] * 2
HUGE = 1e4
RULES = [
    {},
    {"image_score": "top-k", "centring": "mean", "image_centring": "median", "test_turns": 3},
    {"image_score": "mean", "tap_scale": "standardised", "tap_position": "position"},
    {"image_score": "std", "scale_aggregation": "max", "align_corners": True},
    {"image_score": "joined", "tap_scale": "neg-log-p", "tap_position": "smoothed"},
    {"image_tap_scale": "quantile", "image_centring": "border", "centring": "tenth"},
]


def said(around, seed=0):
    """Energies, with this value at every position outside an image's box."""
    generator = torch.Generator().manual_seed(seed)
    taps = []
    for grid in GRIDS:
        energy = torch.rand(len(BOXES), *grid, generator=generator)
        outside = torch.ones_like(energy, dtype=torch.bool)
        for one, box in zip(outside, BOXES, strict=True):
            inside = box.positions(FRAME, grid)
            one[inside.rows, inside.columns] = False
        energy[outside] = around
        taps.append((energy, energy / 7))
    return Energies(taps)


def history(around):
    kept = History(loss=[1.0])
    energies, turned = kept.energies, kept.energies.part("turned")
    energies.save_boxes(BOXES)
    turned.save_boxes([box for box in BOXES for _ in range(2)])
    energies.save(1, [said(around).rows(slice(0, 3)), said(around).rows(slice(3, 8))])
    copies = torch.arange(8).repeat_interleave(2)
    turned.save(1, [said(around, 1).rows(copies.tolist())])
    good = said(around, 2)
    energies.save_reference(1, "fitted", make_reference([good], BOXES, FRAME))
    return kept


def drawn():
    masks = draw_masks(np.random.default_rng(0), (len(BOXES), *FRAME))
    masks[::2] = False
    packed = PackedMasks(len(BOXES), FRAME)
    for i, box in enumerate(BOXES):
        inside = np.zeros(FRAME, dtype=bool)
        inside[box.rows, box.columns] = masks[i][box.rows, box.columns]
        packed.put(i, inside)
    return masks.any((1, 2)).astype(int), packed


@pytest.mark.parametrize("rule", RULES, ids=lambda r: " ".join(map(str, r.values())) or "default")
def test_no_value_around_a_photo_changes_a_figure(rule):
    variant, (labels, masks) = PAD.replace(**rule), drawn()
    quiet, loud = (history(around) for around in (0.5, HUGE))
    epochs = [evaluate(variant, h, labels, masks) for h in (quiet, loud)]
    assert epochs[0] == epochs[1]
    assert {"image_auroc", "pixel_auroc", "aupro"} < epochs[0][0].metrics.keys()
    images = [per_image(variant, h, 1, labels, masks) for h in (quiet, loud)]
    for name in ("scores", "found", "clear", "defect_pixels", "pixels"):
        one, other = (getattr(image, name) for image in images)
        np.testing.assert_array_equal(one, other)
    assert images[0].pixels.tolist() == [int(np.prod(box.shape)) for box in BOXES]


def test_without_boxes_it_would():
    quiet, loud = (score(PAD, said(around)) for around in (0.5, HUGE))
    assert (quiet[1] < loud[1]).tolist() == ([True] * 3 + [False]) * 2


def test_a_box_of_the_whole_frame_is_no_box():
    energies, whole = said(0.5), [Box(0, 0, *FRAME)] * len(BOXES)
    plain, boxed = (
        score(PAD.replace(centring="median"), energies, None, b) for b in (None, whole)
    )
    assert torch.equal(plain[0], boxed[0])
    assert torch.equal(plain[1], boxed[1])


def test_a_map_is_blank_around_its_photo_and_chunks_are_of_one_box():
    maps, scores = score(PAD, said(HUGE), None, BOXES)
    for one, value, box in zip(maps, scores, BOXES, strict=True):
        inside = torch.zeros(FRAME, dtype=torch.bool)
        inside[box.rows, box.columns] = True
        assert torch.equal(one.isnan(), ~inside)
        assert one[inside].max() == value < HUGE
    chunks = [m.shape for m, _ in score_in_chunks(PAD, [said(0.5)], None, BOXES)]
    assert chunks == [(2, 32, 29), (1, 18, 48), (1, 32, 48)] * 2


def test_tables_are_of_what_is_seen():
    boxes = [Box(0, 0, 32, 24)] * len(BOXES)
    values = torch.rand(len(BOXES), 8, 12)
    (seen,) = make_reference([Energies([(values, values)])], boxes, FRAME)
    (alone,) = make_reference([Energies([(values[:, :, :6], values[:, :, :6])])])
    assert seen.count == alone.count == len(BOXES) * 8 * 6
    assert torch.allclose(seen.tables[0], alone.tables[0])  # by the mean of all positions
    assert torch.allclose(seen.moments[..., :6], alone.moments)


def test_square_photos_in_a_wide_input_end_to_end(settings):
    """Copies, turns, tables and drawn defects among it; scored anew it is what it was."""
    variant = TINY.replace(
        image_size=(32, 64), resize="pad", epochs=1, eval_every=1, flow_steps=1,
        weights="random", holdout=0.25,
        validation="synthetic", augmentation="turns", augmentation_copies=1, test_turns=2,
        tap_scale="quantile",
    )  # fmt: skip
    study = Study(name="wide", asks="?", bases={"wide": variant}, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False)
    plan = make_plan(study, settings)
    assert not run_study(plan, settings, print, executor=Here()).failed
    (record,) = read_records(settings.results)
    assert Variant.from_fields(record.variant) == variant
    assert (record.protocol.map_size, record.images.pixels) == ((32, 64), 32 * 32)
    assert max(record.images.defect_pixels) == 12**2  # 24 of 64 pixels a side
    assert record.epochs[0].validation.keys() == {"image_auroc", "pixel_auroc"}
    with np.load(plan.place(plan.cells[0]).gallery) as kept:
        assert (
            np.isnan(kept["maps"]).sum(2).tolist() == np.full((len(kept["maps"]), 32), 32).tolist()
        )
        assert (kept["images"][..., [*range(16), *range(48, 64)], :] == 255).all()
    assert rescore_study(plan, settings).recorded == 1
    (again,) = read_records(settings.results)
    assert (again.metrics, again.images) == (record.metrics, record.images)


@pytest.mark.parametrize("method", ["patchcore", "differnet"])
def test_a_score_that_would_see_the_padding_is_refused(method, settings):
    variant = TINY.replace(method=method, resize="pad", image_size=(32, 64))
    study = Study(name="own", asks="?", bases={"own": variant}, vary=({},), seeds=(0,))
    with pytest.raises(InputError, match=r"resize: .* own image score would see .*; got pad"):
        make_plan(study, settings)
    variant = variant.replace(image_size=64)  # which the photos fill
    make_plan(replace(study, bases={"own": variant}), settings)

"""From energies to figures: chunk by chunk as whole, and what each image got."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_maps import close, draw_masks

from harness.errors import RunFailed
from harness.experiment.measured import finite
from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.run.evaluate import PackedMasks, evaluate, per_image
from harness.run.history import History
from harness.score.metrics import image_metrics, pixel_metrics
from harness.score.reference import make_reference
from harness.score.rule import score

IMAGES, SIZE = 70, 64
CHUNK_BYTES = 300 * 2**20  # maps of 16 images at 448 pixels as they are made, and the like
VARIANT = Variant(image_size=SIZE, smoothing=2.0)
OWN = VARIANT.replace(method="patchcore")
GLOBAL = VARIANT.replace(method="differnet")


def packed(masks):
    held = PackedMasks(len(masks), masks.shape[1])
    for i, mask in enumerate(masks):
        held.put(i, mask)
    return held


def made(*, taps=2, own=False, epochs=(2, 5)):
    """A history with energies that are higher where the masks have a defect."""
    masks = draw_masks(np.random.default_rng(0), (IMAGES, SIZE, SIZE))
    masks[::2] = False
    generator = torch.Generator().manual_seed(0)
    history = History(loss=[1.0] * max(epochs))
    for epoch in epochs:
        raise_ = torch.from_numpy(masks[:, ::4, ::4].astype(np.float32))
        each = [
            torch.randn(IMAGES, s, s, generator=generator)
            + torch.nn.functional.interpolate(raise_[:, None], (s, s))[:, 0]
            for s in (16, 8)
        ]
        images = torch.randn(IMAGES, generator=generator) if own else None
        energies = Energies([(e, e / 9) for e in each[:taps]], images)
        history.energies.save(epoch, [energies.rows(slice(i, i + 9)) for i in range(0, IMAGES, 9)])
    return history, masks.any((1, 2)).astype(np.int64), masks


@pytest.mark.parametrize(
    ("variant", "options"),
    [(VARIANT, {}), (VARIANT.replace(image_score="top-k"), {}), (OWN, {"taps": 1, "own": True})],
)
@pytest.mark.parametrize("batch", [1 << 26, 10_000])
def test_in_chunks_as_whole(variant, options, batch, monkeypatch):
    monkeypatch.setattr("harness.score.ranking.BATCH", batch)
    history, labels, masks = made(**options)
    for epoch in evaluate(variant, history, labels, packed(masks)):
        maps, scores = score(variant, history.energies[epoch.epoch])
        expected = image_metrics(scores.numpy(), labels) | pixel_metrics(maps.numpy(), masks)
        assert len(expected) == 9
        assert epoch.metrics == {k: close(v) for k, v in expected.items()}
        assert epoch.loss == 1.0


def test_each_image_has_its_share_of_the_auroc():
    history, labels, masks = made()
    (_, last) = evaluate(VARIANT, history, labels, packed(masks))
    got = per_image(VARIANT, history, 5, labels, packed(masks))
    np.testing.assert_array_equal(got.defect_pixels, masks.sum((1, 2)))
    np.testing.assert_array_equal(got.scores, score(VARIANT, history.energies[5])[1].numpy())
    assert got.scores.dtype == np.float32
    assert np.isnan(got.found).tolist() == (labels == 0).tolist()
    auroc = close(last.metrics["pixel_auroc"])
    defective, normal = got.defect_pixels, SIZE**2 - got.defect_pixels
    assert np.nansum(got.found * defective) / defective.sum() == auroc
    assert (got.clear * normal).sum() / normal.sum() == auroc


@pytest.mark.parametrize("with_masks", [False, True])
def test_without_masks_or_maps_there_are_image_scores_alone(with_masks):
    own, labels, masks = made(taps=0, own=True)
    cases = [(GLOBAL, own, packed(masks) if with_masks else None)]
    cases += [] if with_masks else [(VARIANT, made()[0], None)]
    for variant, history, given in cases:
        epochs = evaluate(variant, history, labels, given)
        got = per_image(variant, history, 5, labels, given)
        expected = image_metrics(got.scores, labels)
        assert epochs[-1].metrics == finite(expected)
        assert list(expected) == ["image_auroc", "image_ap", "image_f1max"]
        assert np.isnan(got.found).all()
        assert np.isnan(got.clear).all()
        assert got.defect_pixels.tolist() == [0] * IMAGES


def test_masks_held_as_bits_are_the_masks():
    masks = draw_masks(np.random.default_rng(1), (5, 13, 13))
    held = packed(masks)
    assert held.shape == masks.shape
    np.testing.assert_array_equal(held[:], masks)
    np.testing.assert_array_equal(held[1:3], masks[1:3])
    np.testing.assert_array_equal(held[[4, 0]], masks[[4, 0]])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.long
def test_memory_is_bounded():
    """A hundredth of the case that the bound is stated for; see benchmarks/bound.py."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bound", "100", "1"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grows = (2**31 - CHUNK_BYTES) / 100  # with the images; the rest is of a chunk
    assert int(done.stdout) <= grows + CHUNK_BYTES


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [0.5, 0.0]),  # exp(-200) is 0 in float32, exp(-50) is not
        ({"score_map": "nll"}, [0.0, 0.0]),
        ({"score_map": "nll", "image_score_map": "exp-mean"}, [0.5, 0.0]),
        ({"score_map": "likelihood"}, [0.5, 0.0]),
        ({"score_map": "nll", "tap_scale": "quantile"}, [0.5, 0.5]),  # above all good ones
        ({"score_map": "nll", "tap_scale": "neg-log-p", "tap_position": "position"}, [0.5, 0.5]),
        ({"score_map": "nll", "tap_scale": "standardised"}, [0.0, 0.0]),
    ],
)
def test_the_share_of_a_map_at_its_end_is_known(change, expected):
    far = [torch.tensor([1.0, large]).view(2, 1, 1).expand(2, 4, 4) for large in (200.0, 50.0)]
    history = History(loss=[1.0])
    history.energies.save(1, [Energies([(e, torch.zeros_like(e)) for e in far])])
    good = Energies([(torch.rand(9, 4, 4) + 2, torch.zeros(9, 4, 4))] * 2)
    history.energies.save_reference(1, "fitted", make_reference([good]))
    found = per_image(VARIANT.replace(**change), history, 1, np.array([0, 1]), None)
    assert found.saturated == expected


def test_maps_that_are_not_finite_are_a_failure_in_one_line():
    history = History(loss=[1.0])
    huge = torch.full((2, 4, 4), 3e38)
    history.energies.save(1, [Energies([(huge, torch.zeros_like(huge))] * 3)])
    variant = VARIANT.replace(score_map="nll", scale_aggregation="sum")
    with pytest.raises(RunFailed, match=r"epoch 1 are not all finite.*try another score_map"):
        evaluate(variant, history, np.array([0, 1]), None)

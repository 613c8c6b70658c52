"""AUPIMO, and what each image has of the pixel AUROC: pencil, brute force, identities."""

from itertools import pairwise
from math import log, nan

import numpy as np
import pytest
from drawn_maps import SCORES, close, draw_masks, every_score, every_seed
from sklearn.metrics import roc_auc_score

from harness.score import metrics
from harness.score.localisation import Localisation
from harness.score.metrics import pixel_metrics
from harness.score.ranking import Highest


def localisation(maps, masks, *, chunk=2):
    starts = range(0, len(maps), chunk)
    chunks = lambda: ((maps[i : i + chunk], masks[i : i + chunk]) for i in starts)
    return Localisation.of(chunks, pixels=maps.size, defective=int(masks.sum())), chunks


# --- AUPIMO -----------------------------------------------------------------------------------


def side_by_side(normal, anomalous, found):
    """Maps (2, 1, W): a normal image, and one whose pixels scoring ``found`` are defective."""
    width = max(len(normal), len(anomalous) + len(found))
    maps = np.full((2, 1, width), -9.0)
    masks = np.zeros(maps.shape, bool)
    maps[0, 0, : len(normal)] = normal
    maps[1, 0, : len(anomalous)] = anomalous
    maps[1, 0, width - len(found) :] = found
    masks[1, 0, width - len(found) :] = True
    return maps, masks


def test_aupimo_by_pencil():
    # Of 100,000 normal pixels 3 score above 0.4 and 30 above 0.1. A defective pixel at 2 is found
    # at the rate 0, one at 0.4 from 3e-5 on, one at 0.1 never below 1e-4: recall 1/3 up to 3e-5,
    # 2/3 from there. The defective image's own normal pixel at 9 counts nowhere.
    normal = [1.0] * 3 + [0.2] * 27 + [0.0] * 99_970
    maps, masks = side_by_side(normal, [9.0], [2.0, 0.4, 0.1])
    expected = (log(3) * 1 / 3 + log(10 / 3) * 2 / 3) / log(10)
    assert pixel_metrics(maps, masks)["aupimo"] == close(expected)


def test_aupimo_of_a_tie_by_pencil():
    # The defective pixel ties with all of 5 normal ones: recall rises from 0 at the rate 0 to 1
    # at 5e-5, so from 1e-5 to 5e-5 it is f / 5e-5, whose integral over log f is 4e-5 / 5e-5.
    maps, masks = side_by_side([1.0] * 5 + [0.0] * 99_995, [], [1.0])
    assert pixel_metrics(maps, masks)["aupimo"] == close((0.8 + log(2)) / log(10))


def test_aupimo_of_a_tie_across_both_ends_by_pencil():
    # All scores tie: recall is f.
    maps, masks = side_by_side([0.0] * 200_000, [], [0.0])
    assert pixel_metrics(maps, masks)["aupimo"] == close((1e-4 - 1e-5) / log(10))


def test_aupimo_is_a_mean_over_images_not_pixels():
    maps, masks = np.zeros((3, 1, 100_000)), np.zeros((3, 1, 100_000), bool)
    masks[1, 0, :2], maps[1, 0, :2] = True, 5
    masks[2, 0, :6], maps[2, 0, :3] = True, 5
    maps[2, 0, 3:6] = -1
    assert pixel_metrics(maps, masks)["aupimo"] == close((1 + 0.5) / 2)


@pytest.mark.parametrize(("pixels", "defined"), [(99_999, False), (100_000, True)])
def test_aupimo_needs_as_many_normal_pixels_as_resolve_the_lowest_rate(pixels, defined):
    maps, masks = side_by_side([0.0] * pixels, [0.0] * (pixels - 1), [1.0])
    assert pixel_metrics(maps, masks)["aupimo"] == close(1.0 if defined else nan)


def aupimo_by_loops(maps, masks, low, high):
    """The definition: at every threshold, the shared rate and every image's recall."""
    has = masks.any((1, 2))
    normal = maps[~has]
    thresholds = np.unique(maps)[::-1]
    rates = np.array([0.0, *((normal >= t).mean() for t in thresholds)])
    images = []
    for scores, mask in zip(maps[has], masks[has], strict=True):
        recall = np.array([0.0, *((scores[mask] >= t).mean() for t in thresholds)])
        total = 0.0
        for (a, b), (ra, rb) in zip(pairwise(rates), pairwise(recall), strict=True):
            s, e = np.clip([a, b], low, high)
            if e > s:  # recall is ra + slope * (f - a); its integral over log f
                slope = (rb - ra) / (b - a)
                total += slope * (e - s) + (ra - slope * a) * log(e / s)
        images.append(total / log(high / low))
    return np.mean(images)


@every_seed
@every_score
def test_aupimo_equals_brute_force_over_all_thresholds(kind, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng, shape=(6, 12, 11))
    masks[3] = False
    maps = SCORES[kind](rng, masks)
    monkeypatch.setattr(metrics, "AUPIMO", (1 / 50, 1 / 3))
    monkeypatch.setattr("harness.score.localisation.CLEAN_RATE", 1 / 3)
    expected = close(aupimo_by_loops(maps, masks, 1 / 50, 1 / 3))
    assert pixel_metrics(maps, masks)["aupimo"] == expected
    monkeypatch.setattr(metrics, "CHUNK", 1)
    assert pixel_metrics(maps, masks)["aupimo"] == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_highest_of_a_stream_are_held_with_how_often_they_came(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, rng.integers(1, 40), 300).astype(np.float32)
    highest = Highest(rate=0.1, most=300)
    for part in np.split(values, np.sort(rng.integers(0, 300, 9))):
        highest.add(part)
    assert highest.count == 300
    assert highest.values.size <= 31
    every, times = np.unique(values, return_counts=True)
    above = np.array([(values > v).sum() for v in every])
    held = dict(zip(highest.values, highest.times, strict=True))
    for value, came, higher in zip(every, times, above, strict=True):
        if higher < 30:
            assert held[value] == came


# --- what each image has of the AUROC ---------------------------------------------------------


def test_placements_by_pencil():
    # Image 1: defective 2 and 3, normal 2 and 0; image 2: normal 1, 3, 1, 3. Of the 6 normal
    # pixels the defective 2 beats 0, 1, 1 and ties with 2: 3.5; the defective 3 beats four and
    # ties with two: 5. Of the 2 defective ones the normal 2 is below one and ties with one: 1.5;
    # 0 is below both; in image 2 1 is below both, and 3 ties with one: 0.5.
    maps = np.array([[[2, 3, 2, 0]], [[1, 3, 1, 3]]])
    masks = np.array([[[True, True, False, False]], [[False] * 4]])
    pixels, chunks = localisation(maps, masks)
    assert pixels.found() == close([(3.5 + 5) / 2 / 6, nan])
    assert pixels.clear(chunks) == close([(1.5 + 2) / 2 / 2, (2 + 0.5) / 2 / 2])


@every_seed
@every_score
@pytest.mark.parametrize("chunk", [1, 2, 9])
def test_both_placements_average_to_the_pixel_auroc(kind, seed, chunk):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng)
    maps = SCORES[kind](rng, masks)
    pixels, chunks = localisation(maps, masks, chunk=chunk)
    auroc = roc_auc_score(masks.ravel(), maps.ravel())
    defective, normal = pixels.defect_pixels, pixels.normal_pixels
    found, clear = pixels.found(), pixels.clear(chunks)
    assert (found[defective > 0] * defective[defective > 0]).sum() / defective.sum() == close(
        auroc
    )
    assert (clear * normal).sum() / normal.sum() == close(auroc)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            truth = np.r_[np.ones(mask.sum()), np.zeros((~masks).sum())]
            own = roc_auc_score(truth, np.r_[scores[mask], maps[~masks]])
            assert found[i] == close(own)
        else:
            assert np.isnan(found[i])
        truth = np.r_[np.ones(masks.sum()), np.zeros((~mask).sum())]
        assert clear[i] == close(roc_auc_score(truth, np.r_[maps[masks], scores[~mask]]))


@pytest.mark.parametrize("value", [False, True])
def test_placements_without_a_class_are_nan(value):
    maps = np.zeros((2, 3, 3))
    pixels, chunks = localisation(maps, np.full(maps.shape, value))
    assert np.isnan(pixels.found()).all()
    assert np.isnan(pixels.clear(chunks)).all()

"""Metrics: pencil answers, agreement with independent implementations, borders, memory."""

import subprocess
import sys
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from drawn_maps import SCORES, close, draw_masks, every_score, every_seed
from skimage.measure import label
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from harness.score import metrics, ranking
from harness.score.metrics import image_metrics, pixel_metrics


def f1max_by_sklearn(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()


def area_up_to(limit, fpr, overlap):
    """Trapezoids under the points (fpr, overlap), cut at the limit by interpolation."""
    inside = fpr <= limit
    xs = np.append(fpr[inside], limit)
    ys = np.append(overlap[inside], np.interp(limit, fpr, overlap))
    return np.trapezoid(ys, xs) / limit


def aupro_by_weighted_roc(maps, masks, limit):
    """The ROC curve of scikit-learn, each anomalous pixel weighing 1 / (size of its region)."""
    weights = np.ones(maps.shape)
    for weight, mask in zip(weights, masks, strict=True):
        regions = label(mask, connectivity=2)
        weight[mask] = 1 / np.bincount(regions.ravel())[regions[mask]]
    fpr, overlap, _ = roc_curve(
        masks.ravel(), maps.ravel(), sample_weight=weights.ravel(), drop_intermediate=False
    )
    return area_up_to(limit, fpr, overlap)


def aupro_by_loops(maps, masks, limit):
    """The definition: at every threshold, the mean over the regions of the share found."""
    regions = []
    for number, mask in enumerate(masks):
        labelled = label(mask, connectivity=2)
        regions += [(number, labelled == k) for k in range(1, labelled.max() + 1)]
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        fpr.append(found[~masks].mean())
        overlap.append(np.mean([found[number][region].mean() for number, region in regions]))
    return area_up_to(limit, np.array(fpr), np.array(overlap))


# --- pencil answers ---------------------------------------------------------------------------


def test_image_metrics_by_pencil():
    # Pairs (anomalous, normal): .35 > .1, .35 < .4, .8 > .1, .8 > .4  => AUROC 3/4.
    # At .8: TP 1, FP 0, precision 1, F1 2/(1+2). At .35: TP 2, FP 1, precision 2/3, F1 4/(3+2).
    # AP = 1/2 * 1 + 1/2 * 2/3.
    assert image_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == {
        "image_auroc": 0.75,
        "image_ap": close(5 / 6),
        "image_f1max": 0.8,
    }


def test_image_metrics_with_a_tie_by_pencil():
    # Pairs: 1 = 1 counts half, 1 > 0 counts one => AUROC 1.5/2.
    # The tied pair is reported together: TP 1, FP 1 => AP = precision = 1/2, F1 = 2/(2+1).
    assert image_metrics([1, 1, 0], [True, False, False]) == {
        "image_auroc": 0.75,
        "image_ap": 0.5,
        "image_f1max": close(2 / 3),
    }


@pytest.mark.parametrize(
    ("limit", "aupro"),
    [
        # FPR 0 to .1: only region A found, overlap (1 + 0)/2. From FPR .1 (normal 8 reported):
        # also half of B, overlap (1 + 1/2)/2. From FPR .5 (8 6 5 4 3 reported): all, overlap 1.
        (0.1, 0.5),
        (0.3, (0.1 * 0.5 + 0.2 * 0.75) / 0.3),  # 2/3
        (0.5, (0.1 * 0.5 + 0.4 * 0.75) / 0.5),  # 7/10
        (1.0, 0.1 * 0.5 + 0.4 * 0.75 + 0.5),  # 17/20
    ],
)
def test_aupro_by_pencil(limit, aupro):
    maps = [[[9, 8, 7, 2, 6, 5, 4, 3, 1, 1, 1, 1, 1]]]  # 10 normal pixels
    masks = [[[1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]]  # region A = {9}, region B = {7, 2}
    assert pixel_metrics(maps, masks, fpr_limit=limit)["aupro"] == close(aupro)


def test_aupro_interpolates_a_tie_at_the_limit_by_pencil():
    # One region pixel tied with one of two normal pixels: the curve rises from (0, 0) straight to
    # (.5, 1), is .6 at the limit .3, and the triangle below it is .3 * .6 / 2 = .09; .09/.3 = .3.
    assert pixel_metrics([[[5, 5, 1]]], [[[1, 0, 0]]])["aupro"] == close(0.3)


def test_pixels_of_all_images_are_pooled_but_regions_are_not():
    # Anomalous 3 (image 1), 1 (image 2); normal 2, 0 in each. Pairs: 3 beats all four, 1 beats
    # two of four => AUROC 6/8. At 1: TP 2, FP 2 => AP (1 + 1/2)/2, F1 4/(4+2); at 3: F1 2/3.
    # AUPRO: overlap 1/2 until FPR .5 => 1/2 up to .3.
    values = pixel_metrics([[[3, 2, 0]], [[1, 2, 0]]], [[[1, 0, 0]], [[1, 0, 0]]])
    assert values == {
        "pixel_auroc": 0.75,
        "pixel_ap": 0.75,
        "pixel_f1max": close(2 / 3),
        "aupro": close(0.5),
        "aupro_05": close(0.5),
        "aupimo": close(nan),  # no image is without a defect
    }


def test_diagonal_neighbours_are_one_region():
    # One region {9, 9, 0, 0} of which half is found at FPR 0, the rest last: overlap 1/2.
    # As four 1-pixel regions it would be 1/2 as well, so the lone pixel 9 tells: (1/2 + 1)/2
    # for two regions, (1 + 1 + 0 + 0 + 1)/5 for five.
    maps = np.full((1, 4, 6), 5)
    masks = np.zeros((1, 4, 6), dtype=bool)
    for k, score in enumerate([9, 9, 0, 0]):
        masks[0, k, k], maps[0, k, k] = True, score
    masks[0, 0, 5], maps[0, 0, 5] = True, 9
    assert pixel_metrics(maps, masks)["aupro"] == close(0.75)


# --- agreement with other implementations -----------------------------------------------------


@every_seed
@every_score
def test_image_metrics_equal_sklearn(kind, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(200) < rng.integers(1, 200))
    scores = SCORES[kind](rng, labels)
    assert image_metrics(scores, labels) == {
        "image_auroc": close(roc_auc_score(labels, scores)),
        "image_ap": close(average_precision_score(labels, scores)),
        "image_f1max": close(f1max_by_sklearn(labels, scores)),
    }


@every_seed
@every_score
def test_pixel_metrics_equal_sklearn_and_both_aupros(kind, seed):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng)
    maps = SCORES[kind](rng, masks)
    limit = rng.choice([0.01, 0.05, 0.3, 1.0])
    values = pixel_metrics(maps, masks, fpr_limit=limit)
    truth, scores = masks.ravel(), maps.ravel()
    assert values == {
        "pixel_auroc": close(roc_auc_score(truth, scores)),
        "pixel_ap": close(average_precision_score(truth, scores)),
        "pixel_f1max": close(f1max_by_sklearn(truth, scores)),
        "aupro": close(aupro_by_weighted_roc(maps, masks, limit)),
        "aupro_05": close(aupro_by_weighted_roc(maps, masks, 0.05)),
        "aupimo": close(nan),  # too few normal pixels: see test_aupimo.py
    }
    assert values["aupro"] == close(aupro_by_loops(maps, masks, limit))


def test_a_long_ranking_equals_sklearn():
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((6, 32, 512)) < 0.2, 16, axis=1)
    maps = (rng.normal(size=masks.shape) + masks).astype(np.float32)
    values = pixel_metrics(maps, masks)
    assert values["pixel_auroc"] == close(roc_auc_score(masks.ravel(), maps.ravel()))
    assert values["pixel_ap"] == close(average_precision_score(masks.ravel(), maps.ravel()))


@every_score
@pytest.mark.parametrize(
    ("module", "constant", "small"),
    [
        (ranking, "CHUNK", 7),
        (ranking, "BATCH", 50),
        (ranking, "BATCH", 599),
        (metrics, "CHUNK", 1),
    ],
)
def test_working_in_parts_changes_nothing(kind, module, constant, small, monkeypatch):
    rng = np.random.default_rng(0)
    masks = draw_masks(rng)
    maps = SCORES[kind](rng, masks)
    whole = pixel_metrics(maps, masks)
    monkeypatch.setattr(module, constant, small)
    assert pixel_metrics(maps, masks) == {name: close(value) for name, value in whole.items()}


# --- properties -------------------------------------------------------------------------------


@every_seed
@pytest.mark.parametrize("grow", [np.exp, lambda s: s**3 - 5, lambda s: s.astype(np.float32)])
def test_only_the_order_of_the_scores_counts(grow, seed):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng)
    maps = rng.integers(-9, 9, masks.shape) + 2.0 * masks
    same = {
        name: pytest.approx(v, abs=0, nan_ok=True)
        for name, v in pixel_metrics(maps, masks).items()
    }
    assert pixel_metrics(grow(maps), masks) == same
    assert image_metrics(grow(maps).ravel(), masks.ravel()) == image_metrics(
        maps.ravel(), masks.ravel()
    )


@every_seed
def test_image_and_pixel_level_agree_on_the_same_numbers(seed):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng)
    maps = SCORES["integers"](rng, masks)
    image, pixel = image_metrics(maps.ravel(), masks.ravel()), pixel_metrics(maps, masks)
    for name in ("auroc", "ap", "f1max"):
        assert image[f"image_{name}"] == pixel[f"pixel_{name}"]


@every_seed
def test_aupro_of_one_region_up_to_one_is_auroc(seed):
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 9, 9), dtype=bool)
    masks[1, 2:6, 3:9] = True
    values = pixel_metrics(SCORES["integers"](rng, masks), masks, fpr_limit=1)
    assert values["aupro"] == close(values["pixel_auroc"])


@every_seed
@pytest.mark.parametrize("limit", [1e-6, 0.1, 0.3, 0.7, 1])
def test_perfect_is_exactly_one_and_inverted_is_zero(limit, seed):
    masks = draw_masks(np.random.default_rng(seed), shape=(7, 320, 320))  # aupimo needs pixels
    assert set(pixel_metrics(masks * 1.0, masks, fpr_limit=limit).values()) == {1.0}
    inverted = pixel_metrics(masks * -1.0, masks, fpr_limit=limit)
    assert {inverted[m] for m in ("pixel_auroc", "aupro", "aupro_05", "aupimo")} == {0.0}


@every_seed
@every_score
def test_values_are_fractions_and_plain_floats(kind, seed):
    rng = np.random.default_rng(seed)
    masks = draw_masks(rng)
    for name, value in pixel_metrics(SCORES[kind](rng, masks), masks).items():
        assert type(value) is float
        assert 0 <= value <= 1 or name == "aupimo"


def test_inputs_are_left_alone():
    rng = np.random.default_rng(0)
    masks = draw_masks(rng)
    maps = SCORES["float32"](rng, masks)
    kept = maps.copy(), masks.copy()
    pixel_metrics(maps, masks)
    image_metrics(maps.ravel(), masks.ravel())
    np.testing.assert_array_equal(maps, kept[0])
    np.testing.assert_array_equal(masks, kept[1])


# --- borders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_metrics_without_both_classes_are_nan(labels):
    scores = np.arange(len(labels), dtype=np.float32)
    image = image_metrics(scores, labels)
    pixel = pixel_metrics(scores.reshape(1, 1, -1), np.array(labels).reshape(1, 1, -1))
    assert list(image) == ["image_auroc", "image_ap", "image_f1max"]
    assert list(pixel) == [
        *("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05", "aupimo")
    ]
    assert all(isnan(value) for value in (image | pixel).values())


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        ([[1, 2]], [[0, 1]], r"expected scores of shape \(N\); got \(1, 2\)"),
        ([1, 2, 3], [0, 1], r"expected labels shaped as scores, \(3,\); got \(2,\)"),
        ([1, 2, 3], [0, 1, 255], r"expected labels 0 and 1; got 255"),
        ([1, 2, 3], [-1, 1, 1], r"expected labels 0 and 1; got -1"),
        ([1, np.nan, np.inf], [0, 1, 1], r"expected finite scores; got 2 non-finite of 3"),
    ],
)
def test_image_metrics_refuse(scores, labels, match):
    with pytest.raises(ValueError, match=match):
        image_metrics(scores, labels)


@pytest.mark.parametrize(
    ("shape", "mask_shape", "match"),
    [
        ((2, 1, 3, 3), (2, 3, 3), r"expected scores of shape \(N, H, W\); got \(2, 1, 3, 3\)"),
        ((2, 3, 3), (2, 3, 4), r"expected labels shaped as scores, \(2, 3, 3\); got \(2, 3, 4\)"),
    ],
)
def test_pixel_metrics_refuse_shapes(shape, mask_shape, match):
    with pytest.raises(ValueError, match=match):
        pixel_metrics(np.zeros(shape), np.zeros(mask_shape, dtype=bool))


def test_pixel_metrics_refuse_non_finite_maps():
    maps = np.zeros((2, 3, 3), dtype=np.float32)
    maps[1, 0] = -np.inf
    with pytest.raises(ValueError, match="got 3 non-finite of 18"):
        pixel_metrics(maps, maps.astype(bool) * 0)


@pytest.mark.parametrize("limit", [0, -0.1, 1.1, float("nan")])
def test_pixel_metrics_refuse_a_limit_outside_its_range(limit):
    with pytest.raises(ValueError, match="expected 0 < fpr_limit <= 1; got"):
        pixel_metrics(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), dtype=bool), fpr_limit=limit)


# --- memory -----------------------------------------------------------------------------------

MEASURE = """
import numpy as np
from pathlib import Path
from harness.score.metrics import pixel_metrics

rng = np.random.default_rng(0)
maps = np.empty((391, 448, 448), dtype=np.float32)
masks = np.zeros(maps.shape, dtype=bool)
for i, (map_, mask) in enumerate(zip(maps, masks)):
    rng.standard_normal(out=map_, dtype=np.float32)
    for y, x in rng.integers(0, 300, (2, 2)) if i % 10 else ():
        mask[y : y + 100, x : x + 100] = True
    map_[mask] += 1
values = pixel_metrics(maps, masks)
assert all(0 < value < 1 for value in values.values()), values
# Not ru_maxrss: a child starts with the peak of the process that spawned it.
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.long
def test_the_largest_category_at_448_pixels_fits_in_2_gib():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2 * 1024**2  # KiB

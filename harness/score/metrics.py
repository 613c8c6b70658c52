"""Detection metrics at image and pixel level, exact with ties, in bounded memory.

Notation: a *positive* is an anomalous sample (image or pixel), a *negative* a normal one; at a
threshold t everything scoring ``>= t`` is reported as anomalous. Each metric here is a mean or a
maximum, over the positives, of something that depends only on how many negatives and positives
score higher (:class:`harness.score.ranking.Ranking`):

- AUROC: the mean credit of the positives (`Ranking.credit` with limit 1; Hanley & McNeil 1982);
- AUPRO: the mean over regions of the mean credit of the region's pixels, up to a limit;
- AUPIMO: the mean over images of the mean credit of the image's pixels, among the pixels of normal
  images alone and over the logarithm of the false-positive rate;
- AP: the mean, over the positives, of the precision at their own score;
- F1-max: the largest F1 at a positive's score (a threshold between two positives only adds
  false positives).

All values are fractions in [0, 1]. A metric is undefined, and nan, where one class is missing.
A metric is one entry of `METRICS`: records, tables and reports follow that table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.score.localisation import Localisation, Truth, check_finite, summary
from harness.score.ranking import Ranking, Values

CHUNK = 1 << 20  # pixels of the maps that are looked at together
AUPIMO = (1e-5, 1e-4)  # false-positive rates between which recall counts (section 4)


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Measure how well image scores separate anomalous from normal images.

    Args:
        scores: (N,) image scores, larger = more anomalous.
        labels: (N,) bool, or integers 0 and 1; true = anomalous.

    Returns:
        ``image_auroc``, ``image_ap`` and ``image_f1max``, defined as scikit-learn's
        ``roc_auc_score``, ``average_precision_score`` and the largest F1 over all thresholds of
        ``precision_recall_curve``. All nan without an anomalous or without a normal image.

    Raises:
        ValueError: On shapes that differ, labels other than 0 and 1, or non-finite scores.

    >>> image_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["image_auroc"]  # 3 pairs of 4
    0.75
    """
    values, truth = _checked(scores, labels, dims="N")
    check_finite(values)
    return _measure("image", Detection(values, truth))


def pixel_metrics(
    maps: ArrayLike, masks: ArrayLike, *, fpr_limit: float = 0.3
) -> dict[str, float]:
    """Measure how well anomaly maps separate anomalous from normal pixels, over all images.

    Args:
        maps: (N, H, W) anomaly maps, larger = more anomalous.
        masks: (N, H, W) bool, or integers 0 and 1; true = anomalous.
        fpr_limit: False-positive rate up to which AUPRO is integrated, a fraction in (0, 1].

    Returns:
        ``pixel_auroc``, ``pixel_ap`` and ``pixel_f1max``, as in `image_metrics`.

        ``aupro``: the per-region overlap (the share of an 8-connected ground-truth region that is
        found, averaged over all regions) integrated over the false-positive rate of the normal
        pixels of all images, from 0 to the limit, and divided by the limit (Bergmann et al., The
        MVTec Anomaly Detection Dataset, IJCV 129, 2021); ``aupro_05``: the same up to 0.05
        (Heckler-Kram et al., The MVTec AD 2 Dataset, arXiv 2503.21622).

        ``aupimo``: thresholds are chosen on the images without a defect, by the share of their
        pixels that is reported; an anomalous image's recall, the share of its defective pixels
        that is found, is integrated over the logarithm of that share from 1e-5 to 1e-4, divided
        by log 10, and averaged over the anomalous images (Bertoldo et al., AUPIMO, arXiv
        2401.01984). Tied pixels are reported one by one, in the mean of all orders. nan where the
        images without a defect have fewer than 1e5 pixels.

        All nan without an anomalous or without a normal pixel.

    Raises:
        ValueError: On shapes that differ, masks other than 0 and 1, non-finite scores, or a limit
            outside (0, 1].

    >>> pixel_metrics([[[3, 2], [1, 0]]], [[[1, 0], [0, 0]]])["aupro"]  # 1 region, found first
    1.0
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"expected 0 < fpr_limit <= 1; got {fpr_limit}")
    values, truth = _checked(maps, masks, dims="NHW")
    step = max(1, CHUNK // max(1, values[:1].size))

    def chunks() -> Iterator[tuple[Values, Truth]]:
        starts = range(0, len(values), step)
        return ((values[i : i + step], truth[i : i + step]) for i in starts)

    sizes = {"pixels": values.size, "defective": int(truth.sum())}
    return measure_pixels(Localisation.of(chunks, **sizes, fpr_limit=fpr_limit))


def measure_pixels(pixels: Localisation) -> dict[str, float]:
    """Compute every pixel metric, as `pixel_metrics` gives them, from maps that came in chunks."""
    return _measure("pixel", pixels)


@dataclass(frozen=True)
class Detection:
    """Hold what an image metric is computed from.

    Args:
        scores: (N,) of images; larger = more anomalous.
        truth: (N,) bool, true = anomalous.

    >>> Detection(np.array([0.1, 0.9]), np.array([False, True])).summary["auroc"]
    1.0
    """

    scores: Values
    truth: Truth

    @cached_property
    def ranking(self) -> Ranking:
        """Rank the anomalous images among the normal ones, once for all metrics."""
        return Ranking.of_split(self.scores[self.truth], self.scores[~self.truth])

    @cached_property
    def summary(self) -> dict[str, float]:
        """Compute AUROC, AP and F1-max in one pass; all nan where one class is missing."""
        return summary(self.ranking)


class Metric(NamedTuple):
    """Describe a metric: as it is printed, of images or pixels, and how it is computed.

    ``compute`` is given a `Detection` of images, or a `Localisation` of pixels.

    >>> METRICS["aupro"].label, METRICS["aupro"].level
    ('AUPRO', 'pixel')
    """

    label: str
    level: Literal["image", "pixel"]
    compute: Callable[[Any], float]


def _measure(level: str, given: Detection | Localisation) -> dict[str, float]:
    """Every metric of a level."""
    return {
        name: metric.compute(given) for name, metric in METRICS.items() if metric.level == level
    }


def _aupro(pixels: Localisation, limit: float) -> float:
    """Mean over the regions of all masks of their mean credit; nan where one class is missing."""
    if not pixels.ranking.is_defined:
        return float("nan")
    overlaps = pixels.means(lambda ranks: pixels.ranking.credit(ranks, limit), pixels.regions)
    return float(overlaps.mean())


def _aupimo(pixels: Localisation) -> float:
    """Mean over the anomalous images of their recall, over the logarithm of the shared rate.

    nan where a class is missing, or where one pixel of the normal images is more than the lowest
    rate: below it recall is not known.
    """
    clean, positives = pixels.clean, pixels.ranking.positives
    low, high = AUPIMO
    if not positives.size or clean.count * low < 1:
        return float("nan")
    recalls = pixels.means(
        lambda ranks: clean.log_credit(positives[ranks], low, high), pixels.defect_pixels
    )
    return float(np.nanmean(recalls))


def _checked(scores: ArrayLike, labels: ArrayLike, *, dims: str) -> tuple[Values, Truth]:
    """Values and labels as arrays of one shape with the named dimensions; labels as bool."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != len(dims):
        raise ValueError(f"expected scores of shape ({', '.join(dims)}); got {scores.shape}")
    if labels.shape != scores.shape:
        raise ValueError(f"expected labels shaped as scores, {scores.shape}; got {labels.shape}")
    truth = labels.astype(bool, copy=False)
    if truth is not labels and not np.array_equal(truth, labels):
        raise ValueError(f"expected labels 0 and 1; got {labels[truth != labels][0]}")
    return scores, truth


METRICS: dict[str, Metric] = {
    "image_auroc": Metric("image AUROC", "image", lambda d: d.summary["auroc"]),
    "image_ap": Metric("image AP", "image", lambda d: d.summary["ap"]),
    "image_f1max": Metric("image F1-max", "image", lambda d: d.summary["f1max"]),
    "pixel_auroc": Metric("pixel AUROC", "pixel", lambda d: d.summary["auroc"]),
    "pixel_ap": Metric("pixel AP", "pixel", lambda d: d.summary["ap"]),
    "pixel_f1max": Metric("pixel F1-max", "pixel", lambda d: d.summary["f1max"]),
    "aupro": Metric("AUPRO", "pixel", lambda d: _aupro(d, d.fpr_limit)),
    "aupro_05": Metric("AUPRO 0.05", "pixel", lambda d: _aupro(d, 0.05)),
    "aupimo": Metric("AUPIMO", "pixel", _aupimo),
}

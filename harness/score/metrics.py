"""Detection metrics at image and pixel level, exact with ties, in bounded memory.

Notation: a *positive* is an anomalous sample (image or pixel), a *negative* a normal one; at a
threshold t everything scoring ``>= t`` is reported as anomalous. Each metric here is a mean or a
maximum, over the positives, of something that depends only on how many negatives and positives
score higher. So both sides are sorted once (`_Ranking`) and the rest is binary search:

- AUROC: the mean credit of the positives (`_Ranking.credit` with limit 1; Hanley & McNeil 1982);
- AUPRO: the mean over regions of the mean credit of the region's pixels, up to a limit;
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
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

_CHUNK = 1 << 20  # positives counted at a time: bounds each 8-byte temporary to 8 MiB
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)

Values = NDArray[Any]  # any real dtype; never converted, float32 stays float32
Floats = NDArray[np.float64]
Counts = NDArray[np.intp]
Truth = NDArray[np.bool_]


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
    return _measure("image", Detection(*_checked(scores, labels, dims="N")))


def pixel_metrics(
    maps: ArrayLike, masks: ArrayLike, *, fpr_limit: float = 0.3
) -> dict[str, float]:
    """Measure how well anomaly maps separate anomalous from normal pixels, over all images.

    Works in one copy of ``maps``, one of ``masks`` and 8 bytes for each anomalous pixel.

    Args:
        maps: (N, H, W) anomaly maps, larger = more anomalous.
        masks: (N, H, W) bool, or integers 0 and 1; true = anomalous.
        fpr_limit: False-positive rate up to which AUPRO is integrated, a fraction in (0, 1].

    Returns:
        ``pixel_auroc``, ``pixel_ap`` and ``pixel_f1max``, as in `image_metrics`, and ``aupro``:
        the per-region overlap (the share of an 8-connected ground-truth region that is found,
        averaged over all regions) integrated over the false-positive rate of the normal pixels
        of all images, from 0 to the limit, and divided by the limit (Bergmann et al., The MVTec
        Anomaly Detection Dataset, IJCV 129, 2021). All nan without an anomalous or without a
        normal pixel.

    Raises:
        ValueError: On shapes that differ, masks other than 0 and 1, non-finite scores, or a limit
            outside (0, 1].

    >>> pixel_metrics([[[3, 2], [1, 0]]], [[[1, 0], [0, 0]]])["aupro"]  # 1 region, found first
    1.0
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"expected 0 < fpr_limit <= 1; got {fpr_limit}")
    return _measure("pixel", Detection(*_checked(maps, masks, dims="NHW"), fpr_limit))


@dataclass(frozen=True)
class Detection:
    """Hold what a metric is computed from: scores with the truth of the same shape.

    Args:
        scores: (N,) of images, or (N, H, W) of their pixels; larger = more anomalous.
        truth: bool, true = anomalous.
        fpr_limit: where AUPRO ends.

    >>> Detection(np.array([0.1, 0.9]), np.array([False, True])).summary["auroc"]
    1.0
    """

    scores: Values
    truth: Truth
    fpr_limit: float = 0.3

    @cached_property
    def ranking(self) -> _Ranking:
        """Sort the scores of both classes, once for all metrics."""
        return _Ranking.of(self.scores, self.truth)

    @cached_property
    def summary(self) -> dict[str, float]:
        """Compute AUROC, AP and F1-max in one pass; all nan where one class is missing."""
        return _summary(self.ranking)


class Metric(NamedTuple):
    """Describe a metric: as it is printed, of images or pixels, and how it is computed.

    >>> METRICS["aupro"].label, METRICS["aupro"].level
    ('AUPRO', 'pixel')
    """

    label: str
    level: Literal["image", "pixel"]
    compute: Callable[[Detection], float]


def _measure(level: str, detection: Detection) -> dict[str, float]:
    """Every metric of a level."""
    return {
        name: metric.compute(detection)
        for name, metric in METRICS.items()
        if metric.level == level
    }


@dataclass(frozen=True)
class _Ranking:
    """The scores of the negatives (n,) and of the positives (p,), each ascending."""

    negatives: Values
    positives: Values

    @classmethod
    def of(cls, scores: Values, truth: Truth) -> _Ranking:
        """Split scores by the truth of the same shape, and sort both sides in place."""
        ranking = cls(scores[~truth], scores[truth])
        ranking.negatives.sort()
        ranking.positives.sort()
        return ranking

    @property
    def is_defined(self) -> bool:
        """Tell whether both classes are present."""
        return self.negatives.size > 0 and self.positives.size > 0

    def counts(self) -> Iterator[tuple[slice, Counts, Counts, Counts]]:
        """Count what is reported at the score of each positive, `_CHUNK` positives at a time.

        Yields:
            The slice of the positives, of length k; then (k,) each: positives at or above the
            score, negatives above it, negatives at or above it.
        """
        n, p = self.negatives.size, self.positives.size
        for start in range(0, p, _CHUNK):
            part = slice(start, start + _CHUNK)
            scores = self.positives[part]
            found = p - self.positives.searchsorted(scores, side="left")
            above = n - self.negatives.searchsorted(scores, side="right")
            reached = n - self.negatives.searchsorted(scores, side="left")
            yield part, found, above, reached

    def credit(self, above: Counts, reached: Counts, limit: float) -> Floats:
        """Area under the ROC curve of each single positive, up to a false-positive rate.

        That curve is 0 until the negatives above the positive are reported, rises linearly while
        those tied with it are, and is 1 from there on. The area under the ROC curve of many
        positives, however weighted, is the weighted sum of these areas.

        Args:
            above: (k,) negatives above each positive.
            reached: (k,) negatives at or above each positive.
            limit: False-positive rate where the area ends, a fraction in (0, 1].

        Returns:
            (k,) areas divided by the limit, in [0, 1].
        """
        end = limit * self.negatives.size
        start, stop = np.minimum(above, end), np.minimum(reached, end)
        ramp = (stop - start) ** 2 / (2 * np.maximum(reached - above, 1))
        area: Floats = (end - stop + ramp) / end
        return area


def _summary(ranking: _Ranking) -> dict[str, float]:
    """AUROC, AP and F1-max of a ranking; all nan where one class is missing."""
    if not ranking.is_defined:
        return dict.fromkeys(("auroc", "ap", "f1max"), float("nan"))
    p = ranking.positives.size
    credit = precision = f1max = 0.0
    for _, found, above, reached in ranking.counts():
        credit += float(ranking.credit(above, reached, limit=1.0).sum())
        precision += float((found / (found + reached)).sum())
        f1max = max(f1max, float((2 * found / (found + reached + p)).max()))
    return {"auroc": credit / p, "ap": precision / p, "f1max": f1max}


def _aupro(detection: Detection) -> float:
    """Mean over the regions of all masks of their mean credit; nan where one class is missing."""
    ranking, maps, masks = detection.ranking, detection.scores, detection.truth
    if not ranking.is_defined:
        return float("nan")
    credit = np.empty(ranking.positives.size)
    for part, _, above, reached in ranking.counts():
        credit[part] = ranking.credit(above, reached, detection.fpr_limit)
    overlaps: list[Floats] = []
    for scores, mask in zip(maps, masks, strict=True):
        if mask.any():
            regions = ndimage.label(mask, _EIGHT_CONNECTED)[0][mask] - 1
            order = scores[mask].argsort()  # neighbouring look-ups share cache lines
            found = ranking.positives.searchsorted(scores[mask][order])
            overlaps.append(np.bincount(regions[order], credit[found]) / np.bincount(regions))
    return float(np.concatenate(overlaps).mean())


def _checked(scores: ArrayLike, labels: ArrayLike, *, dims: str) -> tuple[Values, Truth]:
    """Values and labels as arrays of one shape with the named dimensions: finite, and bool."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != len(dims):
        raise ValueError(f"expected scores of shape ({', '.join(dims)}); got {scores.shape}")
    if labels.shape != scores.shape:
        raise ValueError(f"expected labels shaped as scores, {scores.shape}; got {labels.shape}")
    truth = labels.astype(bool, copy=False)
    if truth is not labels and not np.array_equal(truth, labels):
        raise ValueError(f"expected labels 0 and 1; got {labels[truth != labels][0]}")
    bad = scores.size - np.count_nonzero(np.isfinite(scores))
    if bad:
        raise ValueError(f"expected finite scores; got {bad} non-finite of {scores.size}")
    return scores, truth


METRICS: dict[str, Metric] = {
    "image_auroc": Metric("image AUROC", "image", lambda d: d.summary["auroc"]),
    "image_ap": Metric("image AP", "image", lambda d: d.summary["ap"]),
    "image_f1max": Metric("image F1-max", "image", lambda d: d.summary["f1max"]),
    "pixel_auroc": Metric("pixel AUROC", "pixel", lambda d: d.summary["auroc"]),
    "pixel_ap": Metric("pixel AP", "pixel", lambda d: d.summary["ap"]),
    "pixel_f1max": Metric("pixel F1-max", "pixel", lambda d: d.summary["f1max"]),
    "aupro": Metric("AUPRO", "pixel", _aupro),
}

"""Estimates with their uncertainty: seeds, test images, and several variants at once.

Two things make a difference between variants uncertain, and each has its interval:

- **seeds**: train again, and the figures move. :func:`paired_estimate` takes the paired
  differences of every category.
- **test images**: photograph other parts, and the figures move. :func:`crossed_estimate` takes
  what every image contributes, under every seed, and covers both sources.

What an image contributes to an AUROC is its *placement*: the share of the other class that it is
on the right side of (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

LEVEL = 0.95
POWER = 0.8  # of a test that a number of photos is given for

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Hold a mean with its standard error and degrees of freedom.

    ``error`` is nan where nothing tells how far the mean may be off. ``seeds`` and ``images``
    are the parts of its square that each source brings, where they are told apart.

    >>> Estimate(2.0, error=0.5, df=inf).interval()
    (1.020..., 2.979...)
    """

    mean: float
    error: float = nan
    df: float = nan
    seeds: float = nan
    images: float = nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Give the two-sided t interval; (nan, nan) without a standard error."""
        # SciPy's distributions say the same, in fifty times as long.
        half = self.error * float(special.stdtrit(self.df, (1 + level) / 2))
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Compute the two-sided p-value of "the mean is zero"; nan without a standard error."""
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * special.stdtr(self.df, -abs(self.mean) / self.error))


def paired_interval(groups: Sequence[ArrayLike], level: float = LEVEL) -> tuple[float, float]:
    """Compute the t interval of the mean over categories and seeds; see :func:`paired_estimate`.

    Args:
        groups: the differences of every category, one value a seed.
        level: how often it is to hold the truth.

    Returns:
        (low, high), in the unit of the differences; (nan, nan) where no category has two values.

    >>> paired_interval([[1.0, 2.0, 3.0]])  # 2 ± 4.303 · 1/√3
    (-0.484..., 4.484...)
    """
    return paired_estimate(groups).interval(level)


def paired_estimate(groups: Sequence[ArrayLike]) -> Estimate:
    """Estimate the mean over categories and seeds from the spread within the categories.

    The categories are taken as fixed. Their variances need not be equal: the degrees of freedom
    are Welch's and Satterthwaite's, which are Σ(n−1) where the variances are alike and fewer
    where one category is noisier than the rest; there, Σ(n−1) would make the interval too narrow.

    Args:
        groups: the differences of every category, one value a seed; empty ones are left out. A
            category with a single value has the mean variance of the others.
    """
    values = [g for g in (np.asarray(group, dtype=float).ravel() for group in groups) if g.size]
    total = sum(g.size for g in values)
    if not total:
        return Estimate(nan)
    mean = float(sum(g.sum() for g in values) / total)
    known = [g for g in values if g.size > 1]
    if not known:
        return Estimate(mean)
    parts = [g.size * float(g.var(ddof=1)) / total**2 for g in known]
    missed = total - sum(g.size for g in known)
    scale = total / (total - missed)  # what the categories of a single value add
    freedom = [g.size - 1 for g in known]
    variance = scale * sum(parts)
    return Estimate(mean, sqrt(variance), _freedom(parts, freedom), seeds=variance, images=0.0)


def placements(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Compute what share of the other class each image is on the right side of, (N,).

    For a defective image the share of good images that score lower, for a good one the share of
    defective images that score higher; ties count half. The mean over either class is the AUROC.

    Args:
        scores: (N,) larger = more anomalous.
        labels: (N,) true = defective.

    Returns:
        (N,) fractions; nan where one class is missing.

    >>> placements([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    array([1. , 0.5, 0.5, 1. ])
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    good, bad = np.sort(scores[~labels]), np.sort(scores[labels])
    shares = np.full(scores.shape, nan)
    if good.size and bad.size:
        shares[labels] = _share_below(good, scores[labels])
        shares[~labels] = 1 - _share_below(bad, scores[~labels])
    return shares


def influences(shares: ArrayLike, labels: ArrayLike) -> Floats:
    """Compute how far each image moves an AUROC from its mean, (N,).

    The sum over resampled images of what they bring is, to first order, how far the AUROC of the
    resampled images lies off.

    Args:
        shares: (N,) of :func:`placements`.
        labels: (N,) true = defective.
    """
    shares, labels = np.asarray(shares, dtype=float), np.asarray(labels, dtype=bool)
    return clustered_influences(
        found=np.where(labels, shares, nan), found_weight=labels,
        clear=np.where(labels, nan, shares), clear_weight=~labels,
    )  # fmt: skip


def clustered_influences(
    *, found: ArrayLike, found_weight: ArrayLike, clear: ArrayLike, clear_weight: ArrayLike
) -> Floats:
    """Compute how far each image moves an AUROC over what lies in the images, (N,).

    Of pixel AUROC: an image brings defective pixels, normal ones, or both, and its pixels stand
    or fall together (Obuchowski, Biometrics 53, 1997).

    Args:
        found: (N,) mean placement of the image's defective pixels; anything where it has none.
        found_weight: (N,) their number.
        clear: (N,) mean placement of its normal pixels.
        clear_weight: (N,) their number.
    """
    total = np.zeros(np.shape(found))
    for share, weight in ((found, found_weight), (clear, clear_weight)):
        weight = np.asarray(weight, dtype=float)
        value = np.where(weight > 0, np.asarray(share, dtype=float), 0.0)
        if (count := weight.sum()) == 0:
            return np.full(total.shape, nan)
        total += weight * (value - (weight * value).sum() / count) / count
    return total


@dataclass(frozen=True)
class Crossed:
    """Hold a category's differences between two variants, by seed, and by seed and image.

    Attributes:
        differences: (S,) of the metric, a seed each.
        influences: (S, N) of :func:`influences`, the variant's minus the reference's.
        labels: (N,) true = defective: images are thought of as drawn within their label.
    """

    differences: Floats
    influences: Floats
    labels: NDArray[np.bool_]


def crossed_estimate(categories: Sequence[Crossed]) -> Estimate:
    """Estimate the mean difference over seeds and test images, both thought of as drawn anew.

    The same images are scored under every seed. So the spread between seeds, with whatever
    images and seeds do together, is read off the differences, and what the images alone do is
    the covariance of the influences of two seeds: the variance of Obuchowski and Rockette
    (Communications in Statistics 24, 1995), with seeds in the place of readers, and degrees of
    freedom after Hillis (Statistics in Medicine 26, 2007), with a part for the images, as these
    may be few. A crossed bootstrap of three seeds would be too narrow, as any bootstrap of three.

    Args:
        categories: the categories are taken as fixed and weigh the same.

    Returns:
        The estimate. With one seed its interval covers the images alone (``seeds`` is nan). No
        error where some label has fewer than two images.
    """
    count = len(categories)
    if not count:
        return Estimate(nan)
    mean = float(np.mean([c.differences.mean() for c in categories]))
    between: list[tuple[float, float]] = []  # variance of the mean over seeds, its freedom
    within: list[tuple[float, float]] = []  # of the images, a label each
    for c in categories:
        seeds = len(c.differences)
        if seeds > 1:
            between.append((float(c.differences.var(ddof=1)) / seeds, seeds - 1))
        for label in (False, True):
            of_label = c.influences[:, c.labels == label]
            if (images := of_label.shape[1]) < 2:
                return Estimate(mean, seeds=nan if seeds == 1 else 0.0)
            moves = of_label - of_label.mean(axis=1, keepdims=True)
            together, alone = (moves.sum(axis=0) ** 2).sum(), (moves**2).sum()
            # The mean covariance of two seeds, by its images' number.
            apart = (together - alone) / (seeds * (seeds - 1)) if seeds > 1 else alone
            within.append((max(float(apart) * images / (images - 1), 0.0), images - 1))
    parts = [(v / count**2, f) for v, f in (*between, *within)]
    images_part = sum(v for v, _ in within) / count**2
    seeds_part = sum(v for v, _ in between) / count**2 if between else nan
    variance = sum(v for v, _ in parts)
    freedom = _freedom([v for v, _ in parts], [f for _, f in parts])
    return Estimate(mean, sqrt(variance), freedom, seeds=seeds_part, images=images_part)


def delong(one: ArrayLike, other: ArrayLike, labels: ArrayLike) -> Estimate:
    """Test whether two scores of the same images have one AUROC (DeLong and others, 1988).

    Args:
        one: (N,) scores, larger = more anomalous.
        other: (N,) scores of the same images.
        labels: (N,) true = defective.

    Returns:
        The difference of their AUROCs, one − other, with DeLong's error and a normal p-value.

    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> delong([1, 2, 3, 4, 5, 6], [1, 5, 3, 2, 4, 6], labels).mean  # 1 − 6/9
    0.333...
    """
    labels = np.asarray(labels, dtype=bool)
    shares = [placements(scores, labels) for scores in (one, other)]
    moved = influences(shares[0], labels) - influences(shares[1], labels)
    difference = float(shares[0][labels].mean() - shares[1][labels].mean())
    variance = 0.0
    for label in (False, True):
        of_label = moved[labels == label]
        if of_label.size < 2:
            return Estimate(difference)
        variance += of_label.size * float(of_label.var(ddof=1))
    return Estimate(difference, sqrt(variance), inf, images=variance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for being several (Holm, Scandinavian Journal of Statistics 6, 1979).

    One that is nan stays so, and is not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [nan] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


def needed(estimate: Estimate, difference: float, seeds: int) -> tuple[float, int]:
    """Compute how many times the test images, and how many seeds, would show a difference.

    So many that a normal test at 5 % finds it in four of five studies. Half of the variance that
    is allowed is left to each source, and more to the images where the seeds need less; all of it
    to the seeds where the images are taken as they are.

    Args:
        estimate: of :func:`crossed_estimate`.
        difference: to be found, in its unit; not 0.
        seeds: those that were run.

    Returns:
        The factor on the number of images, at least 1, and the number of seeds.

    >>> needed(Estimate(1.0, error=1.0, df=10, seeds=0.0, images=1.0), 1.0, seeds=3)
    (7.84..., 3)
    """
    normal = float(stats.norm.ppf([(1 + LEVEL) / 2, POWER]).sum())
    allowed = (difference / normal) ** 2
    of_seeds = 0.0 if np.isnan(estimate.seeds) else estimate.seeds
    share = allowed / 2 if estimate.images > 0 else allowed
    more_seeds = max(seeds, ceil(seeds * of_seeds / share))
    if estimate.images == 0:
        return 1.0, more_seeds
    left = allowed - of_seeds * seeds / more_seeds
    return max(1.0, estimate.images / left), more_seeds


def _share_below(reference: Floats, scores: Floats) -> Floats:
    """The share of sorted values below each score, ties half."""
    low, high = (reference.searchsorted(scores, side=s) for s in ("left", "right"))
    return (low + high) / (2 * reference.size)


def _freedom(parts: Sequence[float], freedom: Sequence[float]) -> float:
    """The degrees of freedom of a sum of independent estimates of variance.

    Welch's and Satterthwaite's formula with the unbiased estimate of each variance's square.
    """
    largest, squares = sum(freedom), sum(_squares(parts, freedom))
    if squares == 0:
        return largest
    return float(np.clip(sum(parts) ** 2 / squares - 2, min(freedom), largest))


def _squares(parts: Iterable[float], freedom: Iterable[float]) -> Iterator[float]:
    yield from (part**2 / (f + 2) for part, f in zip(parts, freedom, strict=True))

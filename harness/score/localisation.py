"""What pixel metrics are computed from: defective pixels, ranked among the normal ones.

Maps and masks come chunk by chunk and are forgotten; kept are the defective pixels' ranks, region
by region, and the highest pixels of the images without a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.score.ranking import Counts, Floats, Highest, Ranking, Values

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
CLEAN_RATE = 1e-4  # largest false-positive rate that is asked of the images without a defect

Truth = NDArray[np.bool_]
Chunks = Callable[[], Iterable[tuple[Values, Truth]]]
"""Gives maps (B, H, W) with their masks, the same ones in the same order at every call."""


@dataclass(frozen=True)
class Localisation:
    """Hold what pixel metrics are computed from.

    Attributes:
        ranking: of the defective pixels among the normal pixels of all images; its ``ranks`` go
            image by image, and in an image region by region.
        regions: (r,) pixels of every 8-connected region.
        defect_pixels: (N,) defective pixels of every image.
        normal_pixels: (N,) the others.
        clean: the highest pixels of the images without a defect.
        fpr_limit: where AUPRO ends, a fraction in (0, 1].

    >>> maps, masks = np.array([[[3, 1], [2, 0]]]), np.array([[[True, False], [False, False]]])
    >>> Localisation.of(lambda: [(maps, masks)], pixels=4, defective=1).found().tolist()
    [1.0]
    """

    ranking: Ranking
    regions: Counts
    defect_pixels: Counts
    normal_pixels: Counts
    clean: Highest
    fpr_limit: float = 0.3

    @classmethod
    def of(
        cls, chunks: Chunks, *, pixels: int, defective: int, fpr_limit: float = 0.3
    ) -> Localisation:
        """Look through the maps: once, or twice where the normal pixels fill a batch.

        Args:
            chunks: maps with their masks.
            pixels: of all of them.
            defective: those of the pixels that are.
            fpr_limit: where AUPRO ends.

        Raises:
            ValueError: a map has a non-finite score.
        """
        regions: list[int] = []  # not arrays: small ones kept between large ones that come and
        defects: list[int] = []  # go scatter over the heap
        sides: list[int] = []
        clean = Highest(rate=CLEAN_RATE, most=pixels)

        def pairs() -> Iterator[tuple[Values, Values]]:
            for maps, masks in chunks():
                check_finite(maps)
                found = masks.sum((1, 2))
                defects.extend(found.tolist())
                sides.extend([masks[0].size] * len(masks))
                clean.add(maps[found == 0].ravel())
                positives = []
                for scores, mask in zip(maps, masks, strict=True):
                    if mask.any():
                        ordered, sizes = _by_region(scores, mask)
                        positives.append(ordered)
                        regions.extend(sizes.tolist())
                yield np.concatenate([maps[:0].ravel(), *positives]), maps[~masks]

        def again() -> Iterator[Values]:
            return (maps[~masks] for maps, masks in chunks())

        ranking = Ranking.of(pairs(), again, positives=defective, negatives=pixels - defective)
        counts = np.array(defects, np.int64)
        others = np.array(sides, np.int64) - counts
        return cls(ranking, np.array(regions, np.int64), counts, others, clean, fpr_limit)

    @cached_property
    def summary(self) -> dict[str, float]:
        """Compute AUROC, AP and F1-max in one pass; all nan where one class is missing."""
        return summary(self.ranking)

    def means(self, credit: Callable[[Counts], Floats], sizes: Counts) -> Floats:
        """Average over groups of successive defective pixels what each of them is given.

        Args:
            credit: gives it, (k,), to k of the sorted positives of the ranking.
            sizes: (g,) of the groups: ``regions`` or ``defect_pixels``.

        Returns:
            (g,) means; nan of an empty group.
        """
        total, ends = np.zeros(sizes.size), sizes.cumsum()
        for part in self.ranking.parts():
            ranks = self.ranking.ranks[part]
            group = ends.searchsorted(np.arange(part.start, part.start + ranks.size), side="right")
            total += np.bincount(group, credit(ranks), minlength=sizes.size)
        means = np.full(sizes.size, nan)
        np.divide(total, sizes, out=means, where=sizes > 0)
        return means

    def found(self) -> Floats:
        """Measure every image's share of the pixel AUROC, as its defective pixels have it.

        Returns:
            (N,) means over an image's defective pixels of the share of all normal pixels that
            score lower, ties half: the placements V10 of DeLong et al., Biometrics 44, 1988. nan
            of an image without defective pixels, or where there is no normal pixel.
        """
        if not self.ranking.is_defined:
            return np.full(self.defect_pixels.size, nan)
        return self.means(lambda ranks: self.ranking.credit(ranks, 1.0), self.defect_pixels)

    def clear(self, chunks: Chunks) -> Floats:
        """Measure every image's share of the pixel AUROC, as its normal pixels have it.

        Args:
            chunks: the same maps once more.

        Returns:
            (N,) means over an image's normal pixels of the share of all defective pixels that
            score higher, ties half: the placements V01 of DeLong et al., 1988. nan of an image
            without normal pixels, or where there is no defective pixel.
        """
        positives = self.ranking.positives
        shares = []
        for maps, masks in chunks():
            for scores, mask in zip(maps, masks, strict=True):
                normal = np.sort(scores[~mask])  # neighbouring look-ups share cache lines
                pairs = 2 * normal.size * positives.size
                shares.append((pairs - _lower_twice(positives, normal)) / pairs if pairs else nan)
        return np.array(shares)


def summary(ranking: Ranking) -> dict[str, float]:
    """Compute AUROC, AP and F1-max of a ranking; all nan where one class is missing."""
    if not ranking.is_defined:
        return dict.fromkeys(("auroc", "ap", "f1max"), nan)
    p = ranking.positives.size
    credit = precision = f1max = 0.0
    for part in ranking.parts():
        found = p - ranking.positives.searchsorted(ranking.positives[part])
        reached = ranking.reached[part]
        credit += float(ranking.credit(part, limit=1.0).sum())
        precision += float((found / (found + reached)).sum())
        f1max = max(f1max, float((2 * found / (found + reached + p)).max()))
    return {"auroc": credit / p, "ap": precision / p, "f1max": f1max}


def check_finite(scores: Values) -> None:
    """Refuse scores that no order is defined for."""
    bad = scores.size - np.count_nonzero(np.isfinite(scores))
    if bad:
        raise ValueError(f"expected finite scores; got {bad} non-finite of {scores.size}")


def _by_region(scores: Values, mask: Truth) -> tuple[Values, Counts]:
    """An image's defective pixels, region by region, and the regions' sizes."""
    regions = ndimage.label(mask, EIGHT_CONNECTED)[0][mask] - 1
    return scores[mask][regions.argsort(kind="stable")], np.bincount(regions)


def _lower_twice(positives: Values, normal: Values) -> int:
    """Twice the pairs whose positive is lower, ties half; both are sorted, none is empty."""
    lower = positives.searchsorted(normal, side="left")
    tied = normal == positives[np.minimum(lower, positives.size - 1)]  # few: looked up once more
    ties = positives.searchsorted(normal[tied], side="right") - lower[tied]
    return 2 * int(lower.sum()) + int(ties.sum())

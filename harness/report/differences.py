"""Which variants differ from a reference, and whether seeds or photos leave it open."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Literal

import numpy as np

from harness.data.counts import PUBLISHED_COUNTS
from harness.experiment.record import Images, Record
from harness.report.selection import Selection
from harness.score.statistics import (
    Crossed,
    Estimate,
    Floats,
    clustered_influences,
    crossed_estimate,
    holm,
    influences,
    paired_estimate,
    placements,
)

ALPHA = 0.05  # of all comparisons of a table together
IMAGES_TOO = ("image_auroc", "pixel_auroc")  # metrics whose interval can take in the test images

Source = Literal["seeds", "photos"]


@dataclass(frozen=True)
class Difference:
    """Hold how a variant differs from the reference, in points.

    Attributes:
        variant: its name.
        pairs: runs of both with one category and seed.
        by_seeds: over seeds, the test images taken as they are.
        by_photos: over seeds and test images; its ``mean`` alone where it cannot be had.
        decides: which of the two the verdict rests on.
        adjusted: that one's p-value, adjusted by Holm for the variants of the table.

    >>> gain = Difference("wide", 9, Estimate(2.0, 0.5, 6), Estimate(2.0), "seeds", 0.01)
    >>> gain.verdict, gain.interval[0] > 0
    ('gains', True)
    """

    variant: str
    pairs: int
    by_seeds: Estimate
    by_photos: Estimate
    decides: Source
    adjusted: float = nan

    @property
    def deciding(self) -> Estimate:
        """Give the estimate that the verdict rests on."""
        return self.by_photos if self.decides == "photos" else self.by_seeds

    @property
    def interval(self) -> tuple[float, float]:
        """Give its 95 % interval, in points."""
        return self.deciding.interval()

    @property
    def verdict(self) -> str:
        """Say ``gains``, ``loses``, ``open``, or ``unknown`` where nothing tells the spread."""
        if isnan(self.adjusted):
            return "unknown"
        if self.adjusted >= ALPHA:
            return "open"
        return "gains" if self.deciding.mean > 0 else "loses"


def differences(
    selection: Selection,
    metric: str = "image_auroc",
    reference: str | None = None,
    *,
    photos: Container[str] | None = None,
) -> list[Difference]:
    """Compare every variant with the reference, paired over category and seed.

    On a published or embedded data set the test images are what everybody is measured on, and
    seeds decide; on a person's own photos the question is about the parts to come, so photos
    decide.

    Args:
        selection: the records.
        metric: of :data:`harness.score.metrics.METRICS`.
        reference: a variant's name; None: the study's first.
        photos: the variants whose interval over photos is computed though it does not decide,
            which takes long; None: all.
    """
    digests = {name: digest for digest, name in selection.labels.items()}
    reference = reference or next(iter(digests))
    decides: Source = "photos" if own_photos(selection.dataset) else "seeds"
    found = []
    for name, digest in digests.items():
        if name == reference:
            continue
        crossed = decides == "photos" or photos is None or name in photos
        key = ("difference", name, metric, reference, crossed)
        if key not in selection.memo:
            pairs = _pairs(selection, digest, digests[reference], metric)
            selection.memo[key] = difference(name, pairs, metric, decides, crossed=crossed)
        found.append(selection.memo[key])
    return corrected(found)


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Adjust the p-values of all differences of a table together (Holm)."""
    ps = [d.deciding.p if _has_seeds(d.deciding) else nan for d in found]
    return [replace(d, adjusted=p) for d, p in zip(found, holm(ps), strict=True)]


def own_photos(dataset: str) -> bool:
    """Tell whether a data set is a person's own: nothing of that name is published or embedded.

    >>> own_photos("my_photos"), own_photos("mvtec_ad"), own_photos("disturbed-surfaces")
    (True, False, False)
    """
    return dataset.removeprefix("disturbed-") not in PUBLISHED_COUNTS


Pairs = dict[str, list[tuple[Record, Record]]]  # category → records of one seed


def _pairs(selection: Selection, digest: str, other: str, metric: str) -> Pairs:
    """The runs of a variant and the reference on the same images, with the metric, by category."""
    mine, others = (selection.by_variant.get(d, {}) for d in (digest, other))
    found: Pairs = {}
    for (category, seed), record in mine.items():
        pair = others.get((category, seed))
        if not pair or metric not in record.metrics or metric not in pair.metrics:
            continue
        if pair.data.digest == record.data.digest:
            found.setdefault(category, []).append((record, pair))
    return found


def difference(
    name: str, pairs: Pairs, metric: str, decides: Source, *, crossed: bool = True
) -> Difference:
    """Estimate the mean of first minus second over pairs of runs on the same images, in points.

    Args:
        name: of what the first ones are.
        pairs: by category, runs of one seed each.
        metric: that all of them have.
        decides: which interval the verdict rests on.
        crossed: whether the interval over photos is computed.
    """
    by_category = [
        np.array([100 * (one.metrics[metric] - other.metrics[metric]) for one, other in runs])
        for runs in pairs.values()
    ]
    by_seeds = paired_estimate(by_category)
    by_photos = Estimate(by_seeds.mean, seeds=by_seeds.seeds)
    runs_of = zip(pairs.values(), by_category, strict=True) if crossed else ()
    found = [_crossed(runs, values, metric) for runs, values in runs_of]
    whole = [c for c in found if c is not None]
    if crossed and len(whole) == len(found):
        by_photos = crossed_estimate(whole)
    return Difference(name, sum(map(len, by_category)), by_seeds, by_photos, decides)


def _crossed(runs: Sequence[tuple[Record, Record]], values: Floats, metric: str) -> Crossed | None:
    """A category's differences by image; None where some record does not list its images."""
    lists = [r.images for pair in runs for r in pair]
    known = [i for i in lists if i is not None]
    if metric not in IMAGES_TOO or not known or len(known) < len(lists):
        return None
    if any(i.path != known[0].path for i in known):
        return None
    moved = [_moved(i, metric) for i in known]
    apart = np.array([one - other for one, other in zip(moved[::2], moved[1::2], strict=True)])
    if not np.isfinite(apart).all():
        return None
    return Crossed(values, 100 * apart, np.array(known[0].labels))


def _moved(images: Images, metric: str) -> Floats:
    """How far each image moves the metric, as a fraction."""
    if metric == "image_auroc":
        labels = np.array(images.labels)
        return influences(placements(images.score, labels), labels)
    if not images.found:
        return np.full(len(images.path), nan)
    defective = np.array(images.defect_pixels)
    normal = np.array(images.pixels) - defective
    return clustered_influences(
        found=np.array(images.found, dtype=float), found_weight=defective,
        clear=np.array(images.clear, dtype=float), clear_weight=normal,
    )  # fmt: skip


def _has_seeds(estimate: Estimate) -> bool:
    """Whether more than one seed stands behind an estimate; without, it covers photos alone."""
    return not isnan(estimate.seeds)

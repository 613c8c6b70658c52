"""Test images of a run with what it made of them: which were missed, which flagged in vain."""

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.report.selection import Selection
from harness.report.site.pictures import Picture, Scale, heat, photo, typeset

THRESHOLD_NOTE = (
    "The threshold is the one at which F1 is largest on these test images: it is chosen with "
    "their labels and shows what is possible, not what new photos would give. A detector's own is "
    "set on good photos alone."
)
# What a map of a rule says, where its figures would surprise.
SIGNS = {
    "exp-mean": "scores are minus a likelihood, so they are negative: −1 is normal, 0 anomalous",
    "likelihood": "scores are minus a likelihood, so they are negative: 0 is the most anomalous",
    "nll": "a negative log-likelihood, which has no end above",
    "nll-log-det": "a negative log-likelihood, which may be below 0",
    "nll-both": "a negative log-likelihood with half of its log-determinant, which may be below 0",
}


@dataclass(frozen=True)
class Shot:
    """Hold a test image with its mask, its map and its score.

    Attributes:
        place: its number among the category's test images.
        defect: its kind; ``good`` for none.
        score: of the image.
        image: (H, W, 3).
        mask: (H, W).
        map: (H, W).

    >>> nothing = np.zeros((1, 1))
    >>> Shot(0, "good", 0.5, nothing, nothing, nothing).bad
    False
    """

    place: int
    defect: str
    score: float
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    map: NDArray[np.floating[Any]]

    @property
    def bad(self) -> bool:
        """Tell whether it is defective."""
        return self.defect != "good"


@dataclass(frozen=True)
class Pair:
    """Hold a photo beside its map, as a page shows it.

    >>> Pair([], "missed: scratch", "0.40", "0.50", flagged=False).flagged
    False
    """

    images: Sequence[Picture]
    title: str
    score: str
    threshold: str
    flagged: bool


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Find the threshold at which F1 is largest; what scores at least as much is flagged.

    Args:
        scores: (N,) larger = more anomalous.
        labels: (N,) true = defective.

    Returns:
        A score between the lowest that is flagged and the highest that is not; nan where one
        class is missing.

    >>> best_threshold([1, 2, 3, 4], [0, 0, 1, 1])
    2.5
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if truth.all() or not truth.any():
        return nan
    cuts = np.unique(values)
    flagged = values[None, :] >= cuts[:, None]
    found = (flagged & truth).sum(1)
    f1 = 2 * found / (flagged.sum(1) + truth.sum())
    best = int(f1.argmax())
    return float((cuts[best] + cuts[best - 1]) / 2) if best else float(cuts[0])


def shots(selection: Selection, record: Record) -> list[Shot]:
    """Read the test images that a run kept; none where it kept none, or they are damaged."""
    place = Place(selection.results, record.digest, record.dataset, record.category, record.seed)
    try:
        with np.load(io.BytesIO(place.gallery.read_bytes())) as file:
            kept = {name: file[name] for name in file.files}
        count = len(kept["images"])
        rows = kept.get("rows", np.full(count, -1))
        return [
            Shot(
                int(rows[i]), str(kept["defects"][i]), float(kept["scores"][i]),
                kept["images"][i], kept["masks"][i].astype(bool), kept["maps"][i],
            )
            for i in range(count)
        ]  # fmt: skip
    except (OSError, ValueError, EOFError, KeyError, IndexError, BadZipFile, zlib.error):
        return []


def common_scale(groups: Sequence[Sequence[Shot]], score_map: str = "") -> Scale:
    """Make the colours' scale that holds all maps of some runs."""
    maps = [s.map for group in groups for s in group]
    low = min((float(np.nanmin(m)) for m in maps), default=0.0)
    high = max((float(np.nanmax(m)) for m in maps), default=1.0)
    return Scale(low, high, SIGNS.get(score_map, "larger = more anomalous"))


def worst_and_best(kept: Sequence[Shot]) -> Iterator[tuple[str, Shot]]:
    """Yield the lowest defect, the highest good image, and the best of either, in words.

    None is yielded twice.
    """
    bad = sorted((s for s in kept if s.bad), key=lambda s: s.score)
    good = sorted((s for s in kept if not s.bad), key=lambda s: -s.score)
    seen: set[int] = set()
    for says, some in (
        ("hardest defect", bad[:1]), ("good photo most like a defect", good[:1]),
        ("plainest defect", bad[-1:]), ("plainest good photo", good[-1:]),
    ):  # fmt: skip
        for shot in some:
            if id(shot) not in seen:
                seen.add(id(shot))
                yield says, shot


def pair(shot: Shot, scale: Scale, threshold: float, says: str) -> Pair:
    """Show a photo beside its map, with the score and what the threshold makes of it."""
    kind = shot.defect.replace("_", " ")
    images = [
        photo(shot.image, shot.mask, f"test photo, {kind}" + ", outlined" * bool(shot.mask.any())),
        heat(shot.map, scale, f"anomaly map of the same photo, score {shot.score:.3g}"),
    ]
    cut = typeset(threshold) if np.isfinite(threshold) else ""
    title = f"{says}: {kind}" if shot.bad and says else says or kind
    return Pair(images, title, typeset(shot.score), cut, flagged=shot.score >= threshold)


def same_images(groups: Sequence[Sequence[Shot]]) -> list[Shot]:
    """List the first group's photos that all groups have: by place and kind."""
    common = set.intersection(*({(s.place, s.defect) for s in group} for group in groups))
    return [s for s in groups[0] if (s.place, s.defect) in common]


def plain_photo(shot: Shot) -> tuple[Picture, str]:
    """Show a photo alone, with the kind of its defect."""
    kind = shot.defect.replace("_", " ")
    return photo(shot.image, shot.mask, f"test photo, {kind}"), kind


def map_rule(record: Record) -> tuple[str, ...]:
    """Say by which rule a run's maps are made: maps of one rule are on one scale."""
    fields = ("score_map", "tap_scale", "scale_aggregation", "centring", "method")
    return tuple(str(record.variant.get(name, "")) for name in fields)

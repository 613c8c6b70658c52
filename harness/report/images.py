"""What each test image got: as a list, and on the images that two sets of records share."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.errors import InputError, warn
from harness.experiment.place import Place
from harness.experiment.record import Images, Record
from harness.experiment.store import read_record, read_sound
from harness.report.selection import Selection
from harness.score.metrics import image_metrics


class Row(NamedTuple):
    """Say what an image got in one run; ``found`` and ``clear`` as in a record."""

    variant: str
    category: str
    seed: int
    path: str
    defect: str
    score: float
    found: float | None
    clear: float | None


def images(selection: Selection) -> pd.DataFrame:
    """List every test image of every recorded run; see :class:`Row` for the columns.

    Runs whose records are from before images were listed have none: ``harness rescore`` adds them.

    >>> from harness.report.selection import select
    >>> images(select("kernels", "nowhere", dataset="mvtec_ad", categories=["screw"])).empty
    True
    """
    rows = (row for record in selection.records for row in _rows(record, selection))
    return pd.DataFrame(rows, columns=list(Row._fields))


def on_common(selection: Selection, other: Path) -> pd.DataFrame:
    """Compare image AUROCs with those of earlier records, on the test images common to both.

    Args:
        selection: the records of today.
        other: another folder of results; the same one: records that were set aside there when
            images were added.

    Columns: variant, category, seed, images, common, before, now (in %, on the common images) and
    data (the digest of the earlier images).
    """
    rows = []
    for record in selection.records:
        place = Place(
            selection.results, record.digest, record.dataset, record.category, record.seed
        )
        for earlier in _earlier(place, other):
            if record.images and earlier.images:
                rows.append(_compared(record, record.images, earlier, earlier.images, selection))
    columns = ["variant", "category", "seed", "images", "common", "before", "now", "data"]
    return pd.DataFrame(rows, columns=columns)


def _rows(record: Record, selection: Selection) -> Iterator[Row]:
    if (listed := record.images) is None:
        return
    nothing = [None] * len(listed.path)
    columns = (listed.path, listed.defect, listed.score)
    shares = (listed.found or nothing, listed.clear or nothing)
    for path, defect, score, found, clear in zip(*columns, *shares, strict=True):
        name = selection.labels[record.digest]
        yield Row(name, record.category, record.seed, path, defect, score, found, clear)


def _earlier(place: Place, other: Path) -> Iterator[Record]:
    if other.resolve() == place.results.resolve():
        for path in place.earlier():
            try:
                yield read_record(path)
            except InputError as error:
                warn(error)
        return
    there = Place(other, place.digest, place.dataset, place.category, place.seed)
    if record := read_sound(there, damaged=warn):
        yield record


def _compared(
    record: Record, now: Images, earlier: Record, before: Images, selection: Selection
) -> tuple[object, ...]:
    """A row of :func:`on_common`; the images are known by their content and label."""
    both = (before, now)
    scores = [dict(zip(zip(i.sha256, i.labels, strict=True), i.score, strict=True)) for i in both]
    common = sorted(set(scores[0]) & set(scores[1]))
    labels = np.array([label for _, label in common], dtype=bool)
    values = [
        image_metrics([of[image] for image in common], labels)["image_auroc"] if common else np.nan
        for of in scores
    ]
    name = selection.labels[record.digest]
    run = (name, record.category, record.seed, len(now.path), len(common))
    return (*run, *(round(100 * v, 2) for v in values), earlier.data.digest)

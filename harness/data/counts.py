"""The published data sets' categories and counts, to plan without data and to check a copy.

Sources: Bergmann et al. 2021 (MVTec AD, Table 1); the BTAD release; Krizhevsky 2009 (CIFAR-10);
Zou et al. 2022 (VisA, the one-class split); Huang et al. 2018 (magnetic tiles, split by us).
"""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from harness.files import read_table

TABLE = Path(__file__).with_name("counts.csv")


class Counts(NamedTuple):
    """Count the images of a category's official split; ``masks``: 0 without any.

    >>> PUBLISHED_COUNTS["mvtec_ad"]["screw"].train
    320
    """

    train: int
    test: int
    defective: int
    masks: int


def _published() -> tuple[dict[str, dict[str, Counts]], dict[tuple[str, str], list[str]]]:
    """Data set → category → counts; and the forms that a release is stored in, where known."""
    columns = ("dataset", "category", *Counts._fields, "forms")
    rows = read_table(TABLE, columns).values()
    counts = {
        dataset: {r["category"]: Counts(*(int(r[k]) for k in Counts._fields)) for r in group}
        for dataset, group in groupby(rows, key=lambda r: r["dataset"])
    }
    return counts, {(r["dataset"], r["category"]): r["forms"].split(" or ") for r in rows}


PUBLISHED_COUNTS, FORMS = _published()
CIFAR10_CLASSES = tuple(PUBLISHED_COUNTS["cifar10"])  # in the order of their numbers


class Copy(NamedTuple):
    """Say how a copy of a data set stands to the published one; None: nothing is known.

    Attributes:
        official: whether the counts are the published ones.
        complete: false where there are fewer images.
        published_form: false where the images are stored in another form.
        copy: the same in words.
    """

    official: bool | None
    complete: bool | None
    published_form: bool | None
    copy: str


def compare(dataset: str, category: str, counts: Mapping[str, int], form: str) -> Copy:
    """Compare a copy with the release.

    Args:
        dataset: its name in records; a disturbed one has the images of the one it is made of.
        category: one of its categories.
        counts: train, test, defective and masks, as found.
        form: as :attr:`harness.data.contract.Category.form`; empty where it is not known.

    >>> counts = {"train": 209, "test": 83, "defective": 63, "masks": 63}
    >>> compare("mvtec_ad", "bottle", counts, "JPEG 900x900").copy
    'the published counts, in another form than the published PNG 900x900'
    """
    dataset = dataset.removeprefix("disturbed-")
    published = PUBLISHED_COUNTS.get(dataset, {}).get(category)
    forms = FORMS.get((dataset, category), [""])
    published_form = form in forms if form and forms[0] else None
    if published is None:
        return Copy(None, None, published_form, "no published counts")
    found = Counts(**{name: counts[name] for name in Counts._fields})
    complete = sum(found) >= sum(published)
    said = "the published counts"
    if found != published:
        less = "not" if complete else "a part of"
        said = f"{less} the published {published.train} train, {published.test} test"
    if published_form is False:
        said += f", in another form than the published {forms[0]}"
    return Copy(found == published, complete, published_form, said)

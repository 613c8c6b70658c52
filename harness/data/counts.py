"""The published data sets' categories and counts, to plan without data and to check a copy.

Sources: Bergmann et al. 2021 (MVTec AD, Table 1); the BTAD release; Krizhevsky 2009 (CIFAR-10);
Zou et al. 2022 (VisA, the one-class split); Huang et al. 2018 (magnetic tiles, split by us).
"""

from collections.abc import Mapping
from typing import NamedTuple


class Counts(NamedTuple):
    """Count the images of a category's official split; ``masks``: 0 without any."""

    train: int
    test: int
    defective: int
    masks: int


def _same(train: int, test: int, defective: int) -> Counts:
    return Counts(train, test, defective, defective)


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

PUBLISHED_COUNTS: dict[str, dict[str, Counts]] = {
    "mvtec_ad": {
        "bottle": _same(209, 83, 63),
        "cable": _same(224, 150, 92),
        "capsule": _same(219, 132, 109),
        "carpet": _same(280, 117, 89),
        "grid": _same(264, 78, 57),
        "hazelnut": _same(391, 110, 70),
        "leather": _same(245, 124, 92),
        "metal_nut": _same(220, 115, 93),
        "pill": _same(267, 167, 141),
        "screw": _same(320, 160, 119),
        "tile": _same(230, 117, 84),
        "toothbrush": _same(60, 42, 30),
        "transistor": _same(213, 100, 40),
        "wood": _same(247, 79, 60),
        "zipper": _same(240, 151, 119),
    },
    "btad": {
        "01": _same(400, 70, 49),
        "02": _same(399, 230, 200),
        "03": _same(1000, 441, 41),
    },
    # The embedded set: 24 good and 36 defective test images of each surface.
    "surfaces": {name: _same(48, 60, 36) for name in ("brick", "grass", "gravel")},
    # One class against the other nine; every test image of the ten classes is judged.
    "cifar10": {name: Counts(5000, 10000, 9000, 0) for name in CIFAR10_CLASSES},
    "visa": {
        "candle": _same(900, 200, 100),
        "capsules": _same(542, 160, 100),
        "cashew": _same(450, 150, 100),
        "chewinggum": _same(453, 150, 100),
        "fryum": _same(450, 150, 100),
        "macaroni1": _same(900, 200, 100),
        "macaroni2": _same(900, 200, 100),
        "pcb1": _same(904, 200, 100),
        "pcb2": _same(901, 200, 100),
        "pcb3": _same(905, 201, 100),
        "pcb4": _same(904, 201, 100),
        "pipe_fryum": _same(450, 150, 100),
    },
    # No split is official: the released 952 defect-free tiles, every fifth of them a test image.
    "magnetic_tile": {"magnetic_tile": _same(762, 582, 392)},
}

_SIDES = {"bottle": 900, "capsule": 1000, "metal_nut": 700, "pill": 800, "tile": 840}
FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "mvtec_ad": {
        c: (f"PNG {(n := _SIDES.get(c, 1024))}x{n}",) for c in PUBLISHED_COUNTS["mvtec_ad"]
    },
    "cifar10": {c: ("array 32x32", "PNG 32x32") for c in CIFAR10_CLASSES},  # both lossless
}
"""How the images of a release are stored, where that is one format and size."""


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
    forms = FORMS.get(dataset, {}).get(category, ())
    published_form = form in forms if form and forms else None
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

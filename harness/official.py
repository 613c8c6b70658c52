"""The published data sets' categories and counts, to plan without data and to check a copy.

Sources: Bergmann et al. 2021 (MVTec AD, Table 1); the BTAD release; Krizhevsky 2009 (CIFAR-10).
"""

from typing import NamedTuple


class Counts(NamedTuple):
    """Images of a category's official split; ``masks`` is 0 where the data set has none."""

    train: int
    test: int
    defective: int
    masks: int


def _same(train: int, test: int, defective: int) -> Counts:
    return Counts(train, test, defective, defective)


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

OFFICIAL: dict[str, dict[str, Counts]] = {
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
}

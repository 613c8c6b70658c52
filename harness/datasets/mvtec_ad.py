"""The MVTec AD layout (Bergmann et al. 2021), for that data set and for one's own images.

``<category>/train/good/*``, ``<category>/test/good/*``, ``<category>/test/<defect>/*`` and,
optionally, ``<category>/ground_truth/<defect>/<image's name>_mask.png``.
"""

from pathlib import Path

from harness.datasets.contract import Category, Sample
from harness.errors import InputError, unknown

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut",
    "pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class MvtecAd:
    """A folder in the MVTec AD layout, either of all categories or of one.

    Args:
        root: the folder.
        name: the data set's name in records; None: ``mvtec_ad`` if every category is one of
            MVTec AD's, else the folder's own name.

    Raises:
        InputError: no folder, or no category in it.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        root = root.expanduser()
        if not root.is_dir():
            raise InputError(f"--data: expected a folder; got {root}, which is not one")
        if (root / "train" / "good").is_dir():  # the folder of a single category
            root, found = root.resolve().parent, [root.resolve().name]
        else:
            found = sorted(p.parent.parent.name for p in root.glob("*/train/good"))
        if not found:
            raise InputError(
                f"--data: expected <category>/train/good below {root}; found no such folder"
            )
        self.root, self._categories = root, tuple(found)
        official = all(c in CATEGORIES for c in found)
        self.name = name or ("mvtec_ad" if official else root.resolve().name.replace(" ", "-"))

    def categories(self) -> tuple[str, ...]:
        """The categories' names, sorted."""
        return self._categories

    def load(self, category: str) -> Category:
        """One category.

        Raises:
            InputError: it does not exist, lacks train or test images, or has masks for some
                defective images only.
        """
        if category not in self._categories:
            raise unknown("category", category, self._categories)
        folder = self.root / category
        train = tuple(Sample(p) for p in _images(folder / "train" / "good"))
        test = tuple(
            Sample(path, defect.name, _mask(folder, defect.name, path))
            for defect in sorted(p for p in (folder / "test").glob("*") if p.is_dir())
            for path in _images(defect)
        )
        if not train:
            raise InputError(f"{folder / 'train' / 'good'}: expected training images; found none")
        if not test:
            raise InputError(
                f"{folder / 'test'}: expected <defect>/ folders of images; found none"
            )
        bad = [s for s in test if s.label]
        bare = [s for s in bad if s.mask is None]
        if bare and len(bare) < len(bad):
            raise InputError(
                f"{bare[0].path}: expected a mask, as {len(bad) - len(bare)} other defective "
                f"images of {category} have one; {len(bare)} lack it; add them or remove "
                f"{folder / 'ground_truth'}"
            )
        return Category(self.name, category, train, test)


def _images(folder: Path) -> list[Path]:
    found = (p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(p for p in found if p.is_file())


def _mask(folder: Path, defect: str, image: Path) -> Path | None:
    if defect == "good":
        return None
    masks = folder / "ground_truth" / defect
    candidates = (masks / f"{image.stem}_mask.png", masks / f"{image.stem}.png")
    return next((p for p in candidates if p.is_file()), None)

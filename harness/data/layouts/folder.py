"""A plain folder of good images, optionally with test images and masks: one category.

The good images lie in the folder itself, or else in its ``train/good``, ``train`` or ``good``.
Optional are ``test/good/*``, ``test/<defect>/*`` and ``ground_truth/<defect>/*``, as in MVTec AD.
Without ``test/good``, about every fifth good image is a test image, by a hash of its name, so that
photos that are added later move none (:func:`harness.data.folders.held_out`).
"""

from pathlib import Path

from harness.data.contract import Category, Sample, make_category
from harness.data.folders import existing_folder, held_out, images_in, safe_name
from harness.data.layouts.mvtec_ad import labelled
from harness.errors import InputError, unknown

PLACES = (".", "train/good", "train", "good")


class Folder:
    """Read a folder of good images; data set and category have its name.

    Raises:
        InputError: no folder, or no images in it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for number in range(10):
    ...         Path(folder, f"{number}.png").touch()
    ...     photos = Folder(Path(folder))
    ...     photos.load(photos.name).counts()
    {'train': 8, 'test': 2, 'defective': 0, 'masks': 0}
    """

    layout = "folder"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether there are images where this layout looks for good ones."""
        return bool(good_images(path))

    def __init__(self, root: Path) -> None:
        self.root = existing_folder(root)
        self.name = safe_name(self.root.resolve().name)
        self._good = good_images(self.root)
        if not self._good:
            raise InputError(
                f"--data: expected images (.png, .jpg, .bmp, .tif, .webp) in {root}, or in its "
                "train/good, train or good; found none"
            )

    def categories(self) -> tuple[str, ...]:
        """List the only one."""
        return (self.name,)

    def load(self, category: str) -> Category:
        """Load the images.

        Raises:
            InputError: a split is empty, or the masks do not match the images.
        """
        if category != self.name:
            raise unknown("category", category, (self.name,))
        test: list[Sample] = []
        if (self.root / "test").is_dir():
            test = list(labelled(self.root / "test", self.root / "ground_truth"))
        train = self._good
        if all(s.label for s in test):
            if len(train) == 1:
                raise InputError(
                    f"{train[0].parent}: expected at least 2 good images, as one of them is a "
                    f"test image; got 1, {train[0].name}; add some, or good ones in test/good"
                )
            train, held = held_out(train)
            test = [*(Sample(p) for p in held), *test]
        return make_category(self, self.name, (Sample(p) for p in train), test, self.root)


def good_images(root: Path) -> list[Path]:
    """Find the good images of a plain folder, from the first place that has any."""
    return next(filter(None, (images_in(root / place) for place in PLACES)), [])

"""The MVTec AD layout (Bergmann et al. 2021), for that data set and for one's own images.

``<category>/train/good/*``, ``<category>/test/good/*``, ``<category>/test/<defect>/*`` and,
optionally, ``<category>/ground_truth/<defect>/<image's name>_mask.png``.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.data.contract import Category, Sample, make_category
from harness.data.counts import PUBLISHED_COUNTS
from harness.data.folders import (
    entries,
    existing_folder,
    images_in,
    masks_in,
    printable,
    refuse_unpaired,
    safe_name,
    subfolders,
)
from harness.errors import InputError, unknown


class MvtecAd:
    """Read a folder in the MVTec AD layout, either of all categories or of one.

    Args:
        root: the folder.
        name: the data set's name in records; None: ``mvtec_ad`` if every category is one of
            MVTec AD's, else the folder's own name.
        drawn: see :class:`harness.data.contract.Category`.

    Raises:
        InputError: no folder, or no category in it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("train/good/0.png", "test/good/1.png", "test/scratch/2.png"):
    ...         Path(folder, "bolt", name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(folder, "bolt", name).touch()
    ...     MvtecAd(Path(folder)).load("bolt").counts()
    {'train': 1, 'test': 2, 'defective': 1, 'masks': 0}
    """

    layout = "mvtec_ad"
    good = "good"  # the name of the folders without defects

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether it is a tree of categories, or one with good images in train and test.

        One category without good test images is a plain folder, which keeps some for the test.
        """
        one = all((path / split / cls.good).is_dir() for split in ("train", "test"))
        return one or any((p / "train" / cls.good).is_dir() for p in subfolders(path))

    def __init__(self, root: Path, name: str | None = None, *, drawn: str = "") -> None:
        root = existing_folder(root)
        if (root / "train" / self.good).is_dir():  # the folder of a single category
            root, found = root.resolve().parent, [root.resolve().name]
        else:
            found = [p.name for p in subfolders(root) if (p / "train" / self.good).is_dir()]
        if not found:
            raise InputError(
                f"--data: expected <category>/train/{self.good} below {root}; found no such folder"
            )
        self.root, self.drawn, self._categories = root, drawn, tuple(found)
        official = all(c in PUBLISHED_COUNTS[self.layout] for c in found)
        self.name = name or (self.layout if official else safe_name(root.resolve().name))

    def categories(self) -> tuple[str, ...]:
        """List the categories' names, sorted."""
        return self._categories

    def load(self, category: str) -> Category:
        """Load one category.

        Raises:
            InputError: it does not exist, lacks train or test images, or its masks do not
                match its images.
        """
        if category not in self._categories:
            raise unknown("category", category, self._categories)
        folder = self.root / category
        train = [Sample(p) for p in images_in(folder / "train" / self.good)]
        if not train:
            raise InputError(
                f"{folder / 'train' / self.good}: expected training images; found none; add some"
            )
        test = list(labelled(folder / "test", folder / "ground_truth", good=self.good))
        return replace(make_category(self, category, train, test, folder), drawn=self.drawn)


def labelled(test: Path, masks: Path, *, good: str = "good") -> Iterator[Sample]:
    """Yield the samples of ``test/<defect>/*`` with the masks of ``<masks>/<defect>/*``.

    Raises:
        InputError: images without a label or a label without images, or masks without an image.
    """
    if loose := images_in(test):
        raise InputError(
            f"{loose[0]}: expected test images in {test.name}/{good}/ or {test.name}/<defect>/; "
            "move it to where it belongs"
        )
    folders = subfolders(test)
    if not folders:
        raise InputError(f"{test}: expected <defect>/ folders of images; found none; add them")
    for folder in subfolders(masks):
        if entries(folder) and folder.name not in {p.name for p in folders}:
            raise InputError(
                f"{folder}: expected the images of these masks in {test / folder.name}; "
                "found no such folder; add them or remove the masks"
            )
    for folder in folders:
        found, drawn = images_in(folder), masks_in(masks / folder.name)
        if not found:
            raise InputError(f"{folder}: expected images; found none; add some or remove it")
        refuse_unpaired(drawn, found)
        label = "good" if folder.name == good else printable(folder.name)
        for path in found:
            yield Sample(path, label, (drawn[path.stem],) if path.stem in drawn else ())

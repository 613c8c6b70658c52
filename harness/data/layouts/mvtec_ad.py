"""The MVTec AD layout (Bergmann et al. 2021), for that data set and for one's own images.

``<category>/train/good/*``, ``<category>/test/good/*``, ``<category>/test/<defect>/*`` and,
optionally, ``<category>/ground_truth/<defect>/<image's name>_mask.png``; names as in
:mod:`harness.data.roles`, so ``Train/OK`` is read too. MVTec LOCO AD's masks, a folder an image,
are read with them.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from harness.data.contract import Category, make_category
from harness.data.counts import PUBLISHED_COUNTS
from harness.data.folders import existing_folder, own_name, printable, safe_name, subfolders
from harness.data.reading import read_folder
from harness.data.roles import TEST, TRAIN, is_good, key, means, spelled
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
    good = "good"  # the published name of the folders without defects

    @classmethod
    def calls_good(cls, folder: Path) -> bool:
        """Tell whether a folder of training images is called good in this layout: ok is BTAD's."""
        return is_good(folder) and key(folder.name) != "ok"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether it is a tree of categories, or one with good images in train and test.

        One category without good test images is a plain folder, which keeps some for the test.
        """
        if _has(path, TRAIN, is_good):
            return _has(path, TRAIN, cls.calls_good) and _has(path, TEST, is_good)
        folders = subfolders(path)
        if any(is_good(p) or means(p, TRAIN) for p in folders):  # it has good images of its own
            return False
        return any(_has(p, TRAIN, cls.calls_good) for p in folders)

    def __init__(self, root: Path, name: str | None = None, *, drawn: str = "") -> None:
        root = existing_folder(root)
        found: dict[str, Path] = {}
        if _has(root, TRAIN, is_good):  # the folder of a single category
            found, self.root = {own_name(root): root}, root.absolute().parent
        else:
            self.root = root
            for folder in (p for p in subfolders(root) if _has(p, TRAIN, is_good)):
                name_ = spelled(printable(folder.name))
                if other := found.get(name_):
                    raise InputError(
                        f"{folder}: expected categories of different names; {other} is another "
                        "spelling of the same; rename one"
                    )
                found[name_] = folder
        if not any(_has(p, TRAIN, self.calls_good) for p in found.values()):
            raise InputError(
                f"--data: expected <category>/train/{self.good} below {root}; found no such folder"
            )
        self.drawn, self._folders = drawn, found
        official = all(c in PUBLISHED_COUNTS[self.layout] for c in found)
        self.name = name or (self.layout if official else safe_name(own_name(self.root)))

    def categories(self) -> tuple[str, ...]:
        """List the categories' names, sorted."""
        return tuple(sorted(self._folders))

    def load(self, category: str) -> Category:
        """Load one category.

        Raises:
            InputError: it does not exist, lacks train or test images, or its masks do not
                match its images.
        """
        if category not in self._folders:
            raise unknown("category", category, self.categories())
        folder = self._folders[category]
        if not any(means(p, TEST) for p in subfolders(folder)):
            raise InputError(
                f"{folder / 'test'}: expected <defect>/ folders of images; found none; add them"
            )
        train, test = read_folder(folder)
        if not train:
            raise InputError(
                f"{folder / 'train' / self.good}: expected training images; found none; add some"
            )
        return replace(make_category(self, category, train, test, folder), drawn=self.drawn)


def _has(category: Path, splits: Iterable[str], named: Callable[[Path], bool]) -> bool:
    """Whether some split has a folder of such a name."""
    folders = [p for p in subfolders(category) if means(p, splits)]
    return any(named(p) for folder in folders for p in subfolders(folder))

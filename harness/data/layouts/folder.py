"""A person's own folder: one category, by the names of its folders, or by what is said of them.

The good images lie in ``train/good``, ``train``, ``good`` or else in the folder itself; those with
a defect in ``test/<defect>/``, or in ``<defect>/`` beside ``good/``; masks in ``ground_truth/`` or
beside their images (:mod:`harness.data.reading`). Without good test images, about every fifth good
image is one, by a hash of its path, so that photos that are added later move none
(:func:`harness.data.folders.held_out`).
"""

from pathlib import Path

from harness.data.contract import Category, make_category
from harness.data.folders import brief, existing_folder, held_out, own_name, safe_name
from harness.data.reading import BY_NAME, has_good_images, read_folder, unknown_folders
from harness.errors import InputError, unknown
from harness.experiment.settings import Folders


class Folder:
    """Read a folder of good images; data set and category have its name.

    Args:
        root: the folder.
        said: folders whose role a person names.

    Raises:
        InputError: no folder, or no good images in it.

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
        return path.is_dir() and has_good_images(path)

    def __init__(self, root: Path, said: Folders = BY_NAME) -> None:
        self.root, self._said = existing_folder(root), said
        self.name = safe_name(own_name(self.root))
        if not has_good_images(self.root, said):
            raise InputError(
                f"--data: expected images (.png, .jpg, .bmp, .tif, .webp) in {root}, or in its "
                f"train/good, train or good; found none{which_are_good(self.root)}"
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
        train, test = read_folder(self.root, self._said)
        if all(s.label for s in test):
            if len(train) == 1:
                only = train[0].path
                raise InputError(
                    f"{only.parent}: expected at least 2 good images, as one of them is a test "
                    f"image; got 1, {only.name}; add some, or good ones in test/good"
                )
            good = {s.path: s for s in train}
            left, held = held_out(list(good), self.root)
            train, test = [good[p] for p in left], [*(good[p] for p in held), *test]
        return make_category(self, self.name, train, test, self.root)


def which_are_good(root: Path) -> str:
    """Say how to go on where only folders of unknown role hold images; empty where none does."""
    names = unknown_folders(root)
    if not names:
        return ""
    listed = ", ".join(map(brief, names[:4])) + (" …" if len(names) > 4 else "")
    return f"; which of its folders ({listed}) hold good images? Say --good NAME, --defective NAME"

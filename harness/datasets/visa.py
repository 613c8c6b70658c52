"""VisA (Zou et al. 2022), by its own table of the one-class split, ``split_csv/1cls.csv``.

Columns ``object,split,label,image,mask``; a mask's pixels hold the number of the defect's kind,
and any number counts as defective.
"""

from pathlib import Path

from harness.datasets.contract import Category, make_category
from harness.datasets.manifest import named, read_rows, samples
from harness.datasets.trees import existing_folder, safe_name
from harness.errors import InputError, unknown
from harness.official import OFFICIAL

SPLIT = Path("split_csv", "1cls.csv")


class Visa:
    """The folder that holds ``split_csv/1cls.csv`` and the objects' folders.

    Raises:
        InputError: no such folder or table, or an object that cannot name a folder. Objects of
            the table whose folder is not there are left out: a part of the data set can be used.
    """

    layout = "visa"

    def __init__(self, root: Path) -> None:
        self.root = existing_folder(root)
        self.table = self.root / SPLIT
        if not self.table.is_file():
            raise InputError(f"--data: expected {SPLIT} below {root}; found no such file")
        rows = read_rows(self.table, ("object", "split", "label", "image", "mask"))
        self._rows = {n: {**r, "path": r["image"]} for n, r in rows.items()}
        names = sorted(named(rows, "object", self.table))
        self._categories = tuple(n for n in names if n and (self.root / n).is_dir())
        if not self._categories:
            raise InputError(
                f"--data: expected the folders of {SPLIT}'s objects below {root}; found none "
                f"of: {', '.join(names)}"
            )
        official = all(c in OFFICIAL["visa"] for c in self._categories)
        self.name = "visa" if official else safe_name(self.root.resolve().name)

    def categories(self) -> tuple[str, ...]:
        """The objects' names, sorted."""
        return self._categories

    def load(self, category: str) -> Category:
        """One object.

        Raises:
            InputError: it does not exist, or a row cannot be used; the line is named.
        """
        if category not in self._categories:
            raise unknown("category", category, self._categories)
        rows = {n: r for n, r in self._rows.items() if r["object"] == category}
        train, test = samples(rows, self.table, self.root)
        return make_category(self, category, train, test, self.table)

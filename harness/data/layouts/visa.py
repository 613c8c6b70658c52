"""VisA (Zou et al. 2022), by its own table of the one-class split, ``split_csv/1cls.csv``.

Columns ``object,split,label,image,mask``; a mask's pixels hold the number of the defect's kind,
and any number counts as defective.
"""

from pathlib import Path

from harness.data.counts import PUBLISHED_COUNTS
from harness.data.folders import existing_folder, safe_name
from harness.data.layouts.manifest import Table, grouped, named
from harness.errors import InputError
from harness.files import read_table

SPLIT = Path("split_csv", "1cls.csv")


class Visa(Table):
    r"""Read the folder that holds ``split_csv/1cls.csv`` and the objects' folders.

    Raises:
        InputError: no such folder or table, or an object that cannot name a folder. Objects of
            the table whose folder is not there are left out: a part of the data set can be used.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("candle", "split_csv"):
    ...         Path(folder, name).mkdir()
    ...     table = ("object,split,label,image,mask", "candle,train,normal,candle/0.JPG,")
    ...     written = Path(folder, SPLIT).write_text("\n".join(table))
    ...     Visa(Path(folder)).categories()
    ('candle',)
    """

    layout = "visa"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether the table of the split is there."""
        return (path / SPLIT).is_file()

    def __init__(self, root: Path) -> None:
        folder = existing_folder(root)
        table = folder / SPLIT
        if not table.is_file():
            raise InputError(f"--data: expected {SPLIT} below {root}; found no such file")
        rows = read_table(table, ("object", "split", "label", "image", "mask"))
        names = sorted(named(rows, "object", table))
        objects = grouped({n: {**r, "path": r["image"]} for n, r in rows.items()}, "object")
        there = {n: objects[n] for n in names if n and (folder / n).is_dir()}
        if not there:
            raise InputError(
                f"--data: expected the folders of {SPLIT}'s objects below {root}; found none "
                f"of: {', '.join(names)}"
            )
        official = all(name in PUBLISHED_COUNTS["visa"] for name in there)
        name = "visa" if official else safe_name(folder.resolve().name)
        super().__init__(name, table, folder, there)

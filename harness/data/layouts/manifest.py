"""A table of images: ``path,split,label,mask`` and, optionally, ``category``; CSV in UTF-8.

Paths count from the file's own folder. ``split`` is ``train`` or ``test``; ``label`` is ``good``
(``normal``, ``ok`` and ``0`` mean the same) or the defect's name; ``mask`` may be empty.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from harness.data.contract import Category, Sample, make_category
from harness.data.folders import brief, existing, safe_name
from harness.data.roles import is_good, spelled
from harness.errors import InputError, unknown
from harness.files import read_table

COLUMNS = ("path", "split", "label", "mask", "category")
LONGEST = 255  # bytes, of a file's name

Row = Mapping[str, str]


class Table:
    """Read categories that are rows of a table: what a manifest and VisA share.

    Args:
        name: of the data set.
        file: the table.
        root: what its paths count from.
        rows: category → line → row, as :func:`samples` takes them.
    """

    layout: str

    def __init__(
        self, name: str, file: Path, root: Path, rows: Mapping[str, Mapping[int, Row]]
    ) -> None:
        self.name, self.file, self.root, self._rows = name, file, root, rows

    def categories(self) -> tuple[str, ...]:
        """List the categories' names, sorted."""
        return tuple(sorted(self._rows))

    def load(self, category: str) -> Category:
        """Load one category.

        Raises:
            InputError: it does not exist, or a row cannot be used; the line is named.
        """
        if category not in self._rows:
            raise unknown("category", category, self.categories())
        train, test = samples(self._rows[category], self.file, self.root)
        return make_category(self, category, train, test, self.file)


class Manifest(Table):
    r"""Read the images that a CSV file names; the data set has the file's name.

    Raises:
        InputError: no such file, or not a table of this form; the line is named.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("0.png", "1.png"):
    ...         Path(folder, name).touch()
    ...     lines = ("path,split,label", "0.png,train,good", "1.png,test,scratch")
    ...     written = Path(folder, "bolts.csv").write_text("\n".join(lines))
    ...     Manifest(Path(folder, "bolts.csv")).load("bolts").counts()
    {'train': 1, 'test': 1, 'defective': 1, 'masks': 0}
    """

    layout = "manifest"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether it is a file of CSV by its suffix."""
        return path.is_file() and path.suffix.lower() == ".csv"

    def __init__(self, file: Path) -> None:
        file = existing(file)
        if not file.is_file():
            raise InputError(f"--data: expected a .csv file; got the folder {file}")
        rows = read_table(file, COLUMNS, optional=("mask", "category"))
        named(rows, "category", file)
        name = safe_name(file.stem)
        super().__init__(name, file, file.parent, grouped(rows, "category", name))


def grouped(
    rows: Mapping[int, Row], column: str, otherwise: str = ""
) -> dict[str, dict[int, Row]]:
    """Group rows by what they say in a column; ``otherwise`` where that is empty."""
    groups: dict[str, dict[int, Row]] = {}
    for line, row in rows.items():
        groups.setdefault(row[column] or otherwise, {})[line] = row
    return groups


def named(rows: Mapping[int, Row], column: str, file: Path) -> set[str]:
    """List the names in a column of categories, perhaps the empty one.

    Raises:
        InputError: one of them cannot name a folder of records.
    """
    for line, row in rows.items():
        name = row[column]
        if name and (safe_name(name) != name.replace(" ", "-") or len(name.encode()) > LONGEST):
            raise InputError(
                f"{file}, line {line}: expected a category that can name a folder, at most "
                f"{LONGEST} bytes of letters, digits and '_.- '; got '{brief(name)}'; rename it"
            )
    return {row[column] for row in rows.values()}


def samples(
    rows: Mapping[int, Row], file: Path, folder: Path
) -> tuple[list[Sample], list[Sample]]:
    """Make the train and test samples of a category's rows.

    Raises:
        InputError: a row cannot be used; the line is named.
    """
    splits: dict[str, list[Sample]] = {"train": [], "test": []}
    lines: dict[Path, int] = {}
    for line, row in rows.items():
        where = f"{file}, line {line}"
        if row["split"] not in splits:
            raise InputError(f"{where}: expected the split train or test; got '{row['split']}'")
        if not row["label"]:
            raise InputError(f"{where}: expected the label good or a defect's name; got nothing")
        label = (
            "good"
            if (is_good(Path(row["label"])) or row["label"] == "0")
            else spelled(row["label"])
        )
        if row["split"] == "train" and label != "good":
            raise InputError(
                f"{where}: expected good images alone in train; got the label '{label}'; "
                "move it to test"
            )
        path = _file(folder, row["path"], where)
        if path in lines:
            raise InputError(
                f"{where}: expected every image once; {path} is on line {lines[path]} too"
            )
        lines[path] = line
        masks = (_file(folder, row["mask"], where),) if row["mask"] else ()
        splits[row["split"]].append(Sample(path, label, masks))
    return splits["train"], splits["test"]


def _file(folder: Path, text: str, where: str) -> Path:
    path, beside = folder / text, []
    try:
        if text and path.is_file():
            return path
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:  # a name too long, a folder that may not be read
        pass
    near = get_close_matches(path.name, beside, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"{where}: expected a file; got '{brief(text)}', which is none below {folder}{hint}"
    )

"""Every file below ``--data``, accounted for: which no category uses, and why."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from harness.data import images
from harness.data.contract import Category, Dataset
from harness.data.folders import entries, printable, walk
from harness.data.remarks import Remark, remarks
from harness.data.roles import TEST, TRAIN, VALIDATION, means, spelled
from harness.errors import InputError

SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"}


def left_out(data: Path, dataset: Dataset, categories: Iterable[Category]) -> list[Remark]:
    """Say which files below ``--data`` are not used, and why; one remark a reason.

    Args:
        data: the folder; or a table, whose images' folders are looked into.
        dataset: what was read from it.
        categories: those that are used; the folders of others are not looked into.

    >>> from tempfile import TemporaryDirectory
    >>> from harness.data.layouts.folder import Folder
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("1.png", "2.png", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     photos = Folder(Path(folder))
    ...     for remark in left_out(Path(folder), photos, [photos.load(photos.name)]):
    ...         print(remark)
    1 file left out: no image by its name, as notes.txt
    """
    if table := data.is_file():
        categories = [dataset.load(name) for name in dataset.categories()]
    categories = list(categories)
    samples = [s for c in categories for s in (*c.train, *c.test)]
    used = {_as_called(path) for s in samples for path in (s.path, *s.masks)}
    if table:
        there = [p for f in sorted({p.parent for p in used}) for p in f.iterdir() if p.is_file()]
        used.add(_as_called(data))
    else:
        there = _below(data, set(dataset.categories()) - {c.name for c in categories})
    stems = {(p.parent, p.stem) for p in used}
    top = data.parent if table else data
    return remarks(
        (f"left out: {_why(path, top, stems, table=table)}", _name(path, top))
        for path in map(_as_called, there)
        if path not in used
    )


def as_read(category: Category) -> str:
    """Say in a line what was taken for what: training images with their folders, test by label.

    >>> from harness.data.contract import Sample
    >>> good, bad = Sample(Path("a/1.png")), Sample(Path("b/2.png"), "dent")
    >>> as_read(Category("mine", "bolt", (good,), (good, bad, bad)))
    'bolt: train 1 good (a); test 1 good, 2 dent'
    """
    folders = dict.fromkeys(_name(s.path.parent, category.root) for s in category.train)
    shown = ", ".join(list(folders)[:3]) + ", …" * (len(folders) > 3)
    kinds = Counter(s.defect for s in category.test)
    test = ", ".join(
        f"{n} {printable(kind)}" for kind, n in sorted(kinds.items(), key=_good_first)
    )
    return f"{category.name}: train {len(category.train)} good ({shown}); test {test}"


def _good_first(kind: tuple[str, int]) -> tuple[bool, str]:
    return kind[0] != "good", kind[0]


def _as_called(path: Path) -> Path:
    """The path from the root, links as they are called."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow them


def _name(path: Path, top: Path) -> str:
    return printable(Path(os.path.relpath(path, top)).as_posix())


def _below(top: Path, others: Collection[str]) -> list[Path]:
    """Every file, and each folder that is not looked into, as one; none of other categories."""

    def of_another(path: Path) -> bool:
        first = path.relative_to(top).parts
        split = len(first) == 2 and means(path.parent, TRAIN | TEST)
        return (split or len(first) == 1) and spelled(path.name) in others and path.is_dir()

    def enter(path: Path) -> bool:
        return not (_of_system(path) or of_another(path)) and _can_read(path)

    return [path for path in walk(top, enter) if not of_another(path)]


def _can_read(folder: Path) -> bool:
    try:
        entries(folder)
    except InputError:
        return False
    return True


def _of_system(path: Path) -> bool:
    return path.name.startswith(".") or path.name.casefold() in SYSTEM


def _why(path: Path, top: Path, stems: Collection[tuple[Path, str]], *, table: bool) -> str:
    inside = [Path(name) for name in Path(os.path.relpath(path, top)).parent.parts]
    if _of_system(path):
        return "hidden, or the system's own"
    if path.is_dir():
        return "a folder that cannot be read, or a link in a circle"
    if not path.exists():
        return "a link that leads nowhere"
    if path.suffix.lower() not in images.SUFFIXES:
        return images.unread(path.suffix) or "no image by its name"
    if table:
        return "not named by the table"
    if any(means(folder, VALIDATION) for folder in inside):
        return "validation images (holdout=0.2 keeps a share of the training images)"
    if (path.parent, path.stem) in stems:
        return "beside a photo of its name"
    if not inside:
        return "in no folder, while the good photos are in one"
    return "in a folder whose role is not known (--good, --defective or --masks says it)"

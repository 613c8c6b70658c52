"""Data sets: categories of good training images, labelled test images and optional masks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.data.contract import Category, Dataset, Sample
from harness.data.counts import CIFAR10_CLASSES
from harness.data.disturbed import disturbed
from harness.data.embedded.surfaces import write_surfaces
from harness.data.folders import existing, subfolders
from harness.data.layouts.btad import Btad
from harness.data.layouts.cifar10 import Cifar10, find_batches
from harness.data.layouts.folder import Folder, good_images
from harness.data.layouts.magnetic_tile import FREE, MagneticTile
from harness.data.layouts.manifest import Manifest
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.layouts.visa import SPLIT, Visa
from harness.errors import InputError, unknown

__all__ = [
    "DATASETS",
    "NAMES",
    "Category",
    "Dataset",
    "Sample",
    "disturbed",
    "open_dataset",
    "recognise",
]

LAYOUTS: Mapping[str, Callable[[Path], Dataset]] = {
    "mvtec_ad": MvtecAd,
    "btad": Btad,
    "cifar10": Cifar10,
    "visa": Visa,
    "magnetic_tile": MagneticTile,
    "folder": Folder,
    "manifest": Manifest,
}
DATASETS = ("surfaces", *LAYOUTS)
DISTURBED = "disturbed-"
NAMES = (*DATASETS, *(DISTURBED + name for name in DATASETS))


def open_dataset(name: str, *, folder: Path | None, cache: Path) -> Dataset:
    """A data set by name.

    Args:
        name: one of :data:`DATASETS`, or ``disturbed-`` and one of them. ``surfaces`` is
            embedded; with a folder it means whatever layout is recognised there.
        folder: ``--data``.
        cache: where the embedded set is written, once.

    Raises:
        InputError: an unknown name, a folder that was not given, or one that is not of the
            layout.
    """
    if name.startswith(DISTURBED):
        inner = name.removeprefix(DISTURBED)
        return disturbed(open_dataset(inner, folder=folder, cache=cache))
    if name not in DATASETS:
        raise unknown("data set", name, NAMES)
    if folder is None:
        if name == "surfaces":
            return MvtecAd(write_surfaces(cache), name="surfaces")
        raise InputError(
            f"this study runs on {name}, which is not embedded; expected --data DIR with its "
            "images, or --dataset surfaces"
        )
    folder = existing(folder)
    found = recognise(folder)
    if name == "surfaces":
        if found is None:
            raise InputError(
                f"--data: expected images or a known layout ({', '.join(LAYOUTS)}) in {folder}; "
                "found neither"
            )
        return LAYOUTS[found](folder)
    try:
        return LAYOUTS[name](folder)
    except InputError as error:
        if found in (None, name):
            raise
        raise InputError(
            f"{error}; the layout looks like {found}: add --dataset {found}"
        ) from None


def recognise(folder: Path) -> str | None:
    """The layout of a folder or file, a key of :data:`LAYOUTS`; None if it is of no known one."""
    if folder.is_file():
        return "manifest" if folder.suffix.lower() == ".csv" else None
    parts = subfolders(folder)
    classes = {p.name for p in subfolders(folder / "train")} & set(CIFAR10_CLASSES)
    signs = {
        "mvtec_ad": _has("good", folder, parts),
        "btad": _has("ok", folder, parts),
        "visa": (folder / SPLIT).is_file(),
        "cifar10": len(classes) > 1 or any(find_batches(folder).values()),
        "magnetic_tile": (folder / FREE / "Imgs").is_dir(),
        "folder": bool(good_images(folder)),
    }
    return next((name for name, is_it in signs.items() if is_it), None)


def _has(good: str, folder: Path, parts: Sequence[Path]) -> bool:
    """Whether it is a tree of categories, or one category with good images in train and test.

    One category without good test images is a plain folder, which keeps some for the test.
    """
    one = all((folder / split / good).is_dir() for split in ("train", "test"))
    return one or any((p / "train" / good).is_dir() for p in parts)

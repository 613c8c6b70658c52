"""Data sets: categories of good training images, labelled test images and optional masks."""

from pathlib import Path

from harness.datasets.contract import Category, Dataset, Sample
from harness.datasets.mvtec_ad import MvtecAd
from harness.datasets.surfaces import write_surfaces
from harness.errors import InputError

__all__ = ["Category", "Dataset", "Sample", "open_dataset"]


def open_dataset(name: str, *, folder: Path | None, cache: Path) -> Dataset:
    """The data set of a study.

    Args:
        name: ``surfaces`` (embedded) or ``mvtec_ad``.
        folder: ``--data``; takes the place of the embedded set.
        cache: where the embedded set is written, once.

    Raises:
        InputError: the study needs a folder and none was given, or it is not a data set.
    """
    if folder is not None:
        return MvtecAd(folder)
    if name == "surfaces":
        return MvtecAd(write_surfaces(cache), name="surfaces")
    raise InputError(
        f"this study runs on {name}, which is not embedded; expected --data DIR with a folder "
        "in the MVTec AD layout (<category>/train/good, <category>/test/<defect>)"
    )

"""Ways to store a data set, one file each; each says whether it recognises a folder.

A new one is its file and its line in :data:`LAYOUTS`.
"""

from pathlib import Path
from typing import Protocol

from harness.data.contract import Dataset
from harness.data.layouts.btad import Btad
from harness.data.layouts.cifar10 import Cifar10
from harness.data.layouts.folder import Folder
from harness.data.layouts.magnetic_tile import MagneticTile
from harness.data.layouts.manifest import Manifest
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.layouts.visa import Visa


class Layout(Protocol):
    """Open a data set that is stored in one way."""

    def recognises(self, path: Path) -> bool:
        """Tell whether a folder or file is stored in this way; nothing is decoded for it."""
        ...

    def __call__(self, root: Path, /) -> Dataset:
        """Open it; an InputError says what is missing."""
        ...


# By the name that ``--dataset`` takes, in the order in which a folder is asked about.
LAYOUTS: dict[str, Layout] = {
    "mvtec_ad": MvtecAd,
    "btad": Btad,
    "visa": Visa,
    "cifar10": Cifar10,
    "magnetic_tile": MagneticTile,
    "folder": Folder,
    "manifest": Manifest,
}


def recognise(path: Path) -> str | None:
    """Name the layout of a folder or file, a key of :data:`LAYOUTS`; None for no known one.

    >>> recognise(Path("nowhere"))
    """
    return next((name for name, layout in LAYOUTS.items() if layout.recognises(path)), None)

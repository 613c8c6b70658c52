"""Magnetic tile surface defects (Huang et al. 2018): one category, five kinds of defect.

``MT_<kind>/Imgs/<name>.jpg`` with the mask ``<name>.png`` beside it; ``MT_Free`` is without
defect, and its (black) masks are not read. There is no official split: every fifth defect-free
tile by name is a test image (:func:`harness.data.folders.every_fifth`), of the released 952
tiles 762 train and 190 test. No tile was photographed twice, so none is on both sides.

The released masks were once JPEGs: beside 0 and 255 they hold greys around the defects. A pixel
counts from half the white on, here as everywhere; a few tiles of MT_Uneven have a black mask.
"""

from pathlib import Path

from harness.data.contract import Category, Sample, make_category
from harness.data.folders import entries, every_fifth, existing_folder, subfolders
from harness.data.folders import images_in as files_in
from harness.data.pairing import pair
from harness.errors import InputError, unknown

NAME = "magnetic_tile"
FREE = "MT_Free"


class MagneticTile:
    """Read the folder that holds ``MT_Free`` and the ``MT_*`` folders of defects.

    Raises:
        InputError: it does not.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in (
    ...         "MT_Free/Imgs/0.jpg", "MT_Free/Imgs/1.jpg",
    ...         "MT_Crack/Imgs/0.jpg", "MT_Crack/Imgs/0.png",
    ...     ):
    ...         Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(folder, name).touch()
    ...     MagneticTile(Path(folder)).load("magnetic_tile").counts()
    {'train': 1, 'test': 2, 'defective': 1, 'masks': 1}
    """

    name = layout = NAME

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether the defect-free tiles are there."""
        return (path / FREE / "Imgs").is_dir()

    def __init__(self, root: Path) -> None:
        self.root = existing_folder(root)
        if not (self.root / FREE / "Imgs").is_dir():
            raise InputError(f"--data: expected {FREE}/Imgs below {root}; found no such folder")

    def categories(self) -> tuple[str, ...]:
        """List the only one."""
        return (NAME,)

    def load(self, category: str) -> Category:
        """Load the tiles.

        Raises:
            InputError: a split is empty, a mask is missing or has no image.
        """
        if category != NAME:
            raise unknown("category", category, (NAME,))
        train, free = every_fifth(_tiles(self.root / FREE / "Imgs"))
        test = [Sample(p) for p in free]
        for folder in subfolders(self.root):
            if folder.name.startswith("MT_") and folder.name != FREE:
                test += _defective(folder)
        return make_category(self, NAME, (Sample(p) for p in train), test, self.root / FREE)


def _tiles(folder: Path) -> list[Path]:
    return [p for p in files_in(folder) if p.suffix.lower() != ".png"]


def _defective(folder: Path) -> list[Sample]:
    tiles = _tiles(folder / "Imgs")
    if not tiles:
        raise InputError(f"{folder / 'Imgs'}: expected .jpg images; found none; add some")
    masks = {p.stem: p for p in entries(folder / "Imgs") if p.suffix.lower() == ".png"}
    for path in tiles:
        if path.stem not in masks:
            raise InputError(
                f"{path}: expected its mask {path.stem}.png beside it; found none; add it or "
                "remove the image"
            )
    pairs = pair(dict.fromkeys(tiles, ()), dict.fromkeys(masks.values(), ()))
    defect = folder.name.removeprefix("MT_").lower()
    return [Sample(p, defect, pairs[p]) for p in tiles]

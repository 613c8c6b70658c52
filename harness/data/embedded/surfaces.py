"""The embedded data set: real surfaces with painted defects, in the MVTec AD layout.

The textures are three photographs that ship inside the scikit-image wheel, so nothing is
downloaded. Normal images are crops of them; training crops come from the left of a photograph
and test crops from the right, so that no pixel is seen twice. The same version is the same
pixels on every machine.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image as PILImage

from harness.claims import Claims, TakenOver
from harness.data.embedded.defects import DEFECTS, Image, Mask
from harness.errors import InputError, RunFailed
from harness.files import temporary

VERSION = 1
"""Raised when any pixel changes; part of the folder name."""

LEFTOVERS = (".surfaces-*", "claims/.*.tmp")
"""What killed starts leave where the data set is written."""

CATEGORIES: tuple[str, ...] = ("brick", "grass", "gravel")

SIZE = 128
"""Height and width of every image, in pixels."""

COUNTS = {"train": 48, "good": 24, "defect": 6}
"""Images a category: training, intact test images, test images of each kind of defect."""

COLUMNS = {"train": (0.0, 0.6), "test": (0.6, 1.0)}
"""The part of the photograph's width that a split may be cut from."""

STRENGTH = {
    "scratch": 5.0,
    "spot": 7.0,
    "stain": 3.2,
    "cut_paste": 1.4,
    "missing_texture": 1.0,
    "deformation": 0.65,
}
"""How visible each kind of defect is, in the unit that its function states."""


def write_surfaces(folder: Path) -> Path:
    """Write the data set below ``folder``, unless it is there, and return where it is.

    It appears whole or not at all. Several starts may ask for it at once: the first to come
    writes it, the others wait. What starts of this machine left that were killed once it was there
    is removed.
    """
    target = folder / f"surfaces-v{VERSION}"
    claims = Claims(folder, LEFTOVERS)
    if target.is_dir():
        with suppress(OSError, RunFailed, InputError):  # nothing need be written
            claims.clean()
        return target
    with claims:
        for _ in claims.each([target.name], lambda work, holder: None):
            if not target.is_dir():
                with suppress(TakenOver):  # it is come to again
                    _write_whole(target, claims)
    return target


def _write_whole(target: Path, claims: Claims) -> None:
    written = temporary(target)
    try:
        with claims.still(target.name):
            for category in CATEGORIES:
                _write_category(written / category, category)
        try:
            written.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _write_category(root: Path, category: str) -> None:
    photograph = getattr(skimage.data, category)().astype(np.float64)
    for split, kind, index in _plan():
        image, mask = _make(photograph, f"{category}/{split}/{kind}/{index:03d}")
        _write(root / split / kind / f"{index:03d}.png", image)
        if mask is not None:
            _write(
                root / "ground_truth" / kind / f"{index:03d}_mask.png", np.where(mask, 255.0, 0.0)
            )


def _plan() -> Iterator[tuple[str, str, int]]:
    """Split, kind and number of every image of a category."""
    yield from (("train", "good", index) for index in range(COUNTS["train"]))
    yield from (("test", "good", index) for index in range(COUNTS["good"]))
    for kind in STRENGTH:
        yield from (("test", kind, index) for index in range(COUNTS["defect"]))


def _make(photograph: Image, name: str) -> tuple[Image, Mask | None]:
    """One image, a function of the photograph and the name ``category/split/kind/number``."""
    _, split, kind, _ = name.split("/")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([*name.encode()])))
    image = _jitter(_crop(photograph, split, rng), rng)
    if kind == "good":
        return image, None
    return DEFECTS[kind](image, rng, STRENGTH[kind])


def _crop(photograph: Image, split: str, rng: np.random.Generator) -> Image:
    """A square at a random place of the split's part of the photograph, perhaps mirrored."""
    height, width = photograph.shape
    first, last = (int(width * fraction) for fraction in COLUMNS[split])
    row = rng.integers(0, height - SIZE, endpoint=True)
    column = rng.integers(first, last - SIZE, endpoint=True)
    crop = photograph[row : row + SIZE, column : column + SIZE]
    # Mirrored, the two sides of a photograph taken in perspective look alike.
    return crop[:, :: rng.choice([-1, 1])]


def _jitter(image: Image, rng: np.random.Generator) -> Image:
    """The image under a slightly different light: brightness in grey levels, and contrast."""
    mean = image.mean()
    jittered: Image = (image - mean) * rng.uniform(0.9, 1.1) + mean + rng.uniform(-8.0, 8.0)
    return jittered


def _write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)).save(path)

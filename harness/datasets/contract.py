"""What a data set gives: categories, splits, images, labels, masks."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.errors import InputError


@dataclass(frozen=True)
class Sample:
    """One image: its file, its defect (``good`` for none) and its mask, where there is one."""

    path: Path
    defect: str = "good"
    mask: Path | None = None

    @property
    def label(self) -> int:
        """0 for a good image, 1 for a defective one."""
        return int(self.defect != "good")


@dataclass(frozen=True)
class Category:
    """One category with its splits, in a fixed order."""

    dataset: str
    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def has_masks(self) -> bool:
        """Whether every defective test image has a mask, so that pixel metrics exist."""
        return all(s.mask is not None for s in self.test if s.label)

    def counts(self) -> dict[str, int]:
        """Train, test, defective and mask counts."""
        labels = Counter(s.label for s in self.test)
        masks = sum(s.mask is not None for s in self.test)
        return {
            "train": len(self.train),
            "test": len(self.test),
            "defective": labels[1],
            "masks": masks,
        }

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over the content of every file, in order, with its role."""
        total = hashlib.sha256()
        for split, samples in (("train", self.train), ("test", self.test)):
            for sample in samples:
                total.update(f"{split}/{sample.defect}".encode())
                for path in filter(None, (sample.path, sample.mask)):
                    total.update(hashlib.sha256(_content(path)).digest())
        return total.hexdigest()[:16]

    def limited(self, images: int) -> "Category":
        """The first images of the train split, and of the good and defective test images."""
        good = [s for s in self.test if not s.label][:images]
        bad = [s for s in self.test if s.label][:images]
        return replace(self, train=self.train[:images], test=(*good, *bad))


class Dataset(Protocol):
    """A named set of categories."""

    name: str

    def categories(self) -> tuple[str, ...]:
        """The categories' names, sorted."""
        ...

    def load(self, category: str) -> Category:
        """One category; an InputError where it does not exist or cannot be used."""
        ...


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """An image as RGB, resized to a square without a crop: (size, size, 3).

    Bilinear with anti-aliasing (PIL), as torchvision's Resize on PIL images in the
    reproductions.
    """
    image = _open(path)
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to white without a word.
        raise InputError(f"{path}: expected 8 bits a channel; got Pillow's mode {image.mode}")
    image = image.convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def read_mask(path: Path | None, size: int) -> NDArray[np.bool_]:
    """A mask resized with nearest neighbour, any non-zero pixel a defect: (size, size).

    No path: no defect anywhere.
    """
    if path is None:
        return np.zeros((size, size), dtype=bool)
    mask = Image.fromarray(np.asarray(_open(path).convert("L")) > 0)
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file ({error.strerror})") from None


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(
            f"{path}: expected an image; it cannot be read ({error}); replace or remove it"
        ) from None
    return image

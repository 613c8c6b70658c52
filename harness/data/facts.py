"""What is known of image and mask files once they are decoded, without keeping their pixels."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.data import images

_MOST = 200_000  # files

_Found = TypeVar("_Found")


class Facts(NamedTuple):
    """Describe an image.

    Attributes:
        sha256: of its content.
        format: Pillow's name of it.
        size: (width, height) as shown.
        shown: SHA-256 of its pixels, whatever file they are in.
        grey: the largest value of a grey image of 16 bits; None for any other.
        colour: the largest high byte of an image of 16 bits in colours; None for any other.
        pictures: how many the file holds; the first is what the rest is about.
    """

    sha256: bytes
    format: str
    size: tuple[int, int]
    shown: bytes
    grey: int | None = None
    colour: int | None = None
    pictures: int = 1


class MaskFacts(NamedTuple):
    """Describe a mask.

    Attributes:
        sha256: of its content.
        format: Pillow's name of it, or labelme.
        size: (width, height).
        share: of its pixels that are a defect.
        odd: what should be known of its values; empty for zero and one other.
        pictures: how many the file holds.
    """

    sha256: bytes
    format: str
    size: tuple[int, int]
    share: float
    odd: str = ""
    pictures: int = 1


def facts_of(path: Path) -> Facts:
    """Find an image file's facts, read once as long as the file does not change.

    Raises:
        InputError: it is damaged, or cannot be used.
    """
    return _kept(path, _read_facts)


def mask_facts_of(path: Path) -> MaskFacts:
    """Find a mask file's facts, likewise."""
    return _kept(path, _read_mask_facts)


def _kept(path: Path, read: Callable[[Path, int, int], _Found]) -> _Found:
    try:
        stat = path.stat()
    except OSError:
        images.read_bytes(path)  # says what is wrong
        raise
    return read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=_MOST)
def _read_facts(path: Path, changed: int, bytes_: int) -> Facts:
    content = images.read_bytes(path)
    picture = images.read_picture(path, content)
    image, grey, colour = picture.image, None, None
    if images.is_deep_grey(image):
        pixels = np.asarray(image).astype(np.uint16)
        grey = 65535 if picture.declared else int(pixels.max())
    else:
        pixels = np.asarray(images.to_rgb(image, path))
        if picture.deep:
            colour = int(pixels.max())
            if picture.format == "PPM":  # rounded and not cut off, so that 16383 is 64
                colour = max(0, colour * 257 - 128) >> 8
    return Facts(
        hashlib.sha256(content).digest(),
        picture.format,
        image.size,
        _digest(pixels),
        grey,
        colour,
        picture.pictures,
    )


@lru_cache(maxsize=_MOST)
def _read_mask_facts(path: Path, changed: int, bytes_: int) -> MaskFacts:
    content = images.read_bytes(path)
    mask = images.look_at_mask(path, content)
    height, width = mask.defects.shape
    return MaskFacts(
        hashlib.sha256(content).digest(),
        mask.format,
        (width, height),
        float(mask.defects.mean()),
        mask.odd,
        mask.pictures,
    )


def _digest(pixels: NDArray[np.generic]) -> bytes:
    total = hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode())
    total.update(np.ascontiguousarray(pixels).data)
    return total.digest()

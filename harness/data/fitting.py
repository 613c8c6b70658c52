"""How a photo and its mask are fitted into a backbone's input."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.frame import interior, surround
from harness.experiment.feature_spec import Size, shape_of

CROP = 256 / 224  # Resize(256), CenterCrop(224) of SPADE and PaDiM, for any size

Mask = NDArray[np.bool_]


def squared(image: Image.Image, size: Size, resize: str, filter_: Image.Resampling) -> Image.Image:
    """Fit an image into a backbone's input.

    Args:
        image: of any size.
        size: side of the square, or height and width, pixels.
        resize: a key of :data:`FITS`.
        filter_: Pillow's.

    >>> wide = Image.new("RGB", (512, 256))
    >>> [squared(wide, 224, resize, Image.Resampling.BILINEAR).size for resize in FITS]
    [(224, 224), (224, 224), (224, 224)]
    """
    return FITS[resize](image, shape_of(size), filter_)


def _stretched(
    image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling
) -> Image.Image:
    return image.resize(shape[::-1], filter_)


def _cropped(image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    """The centre, scaled to cover CROP of the shape: SPADE's Resize(256) and CenterCrop(224)."""
    wanted = shape[::-1]
    scale = max(round(w * CROP) / side for w, side in zip(wanted, image.size, strict=True))
    sides = [max(w, round(side * scale)) for w, side in zip(wanted, image.size, strict=True)]
    left, top = (round((side - w) / 2) for w, side in zip(wanted, sides, strict=True))
    whole = image.resize((sides[0], sides[1]), filter_)
    return whole.crop((left, top, left + wanted[0], top + wanted[1]))


def _padded(image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    box = interior(image.size, shape, "pad")
    inside = image.resize(box.shape[::-1], filter_)
    return Image.fromarray(surround(np.asarray(inside), box, shape))


# How an image is fitted into (height, width); of the field ``resize``.
FITS: dict[str, Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]] = {
    "square": _stretched,
    "crop": _cropped,
    "pad": _padded,
}


def squared_mask(mask: Mask, size: Size, resize: str, rule: str) -> Mask:
    """Fit a mask (H, W) as its image, (height, width); nothing beyond the image is a defect.

    Args:
        mask: in the image's own size.
        size: side of the square, or height and width, pixels.
        resize: as in :func:`squared`.
        rule: ``nearest``; or ``covered``: bilinear, and only pixels that the defect covers
            whole count (gathierry's reproduction casts the resized mask to whole numbers).
    """
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    filter_ = Image.Resampling.NEAREST if rule == "nearest" else Image.Resampling.BILINEAR
    whole = np.asarray(np.asarray(squared(grey, size, resize, filter_)) == 255)
    box = interior(grey.size, size, resize)
    inside = np.zeros_like(whole)
    inside[box.rows, box.columns] = whole[box.rows, box.columns]
    return inside

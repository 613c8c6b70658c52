"""What a map looks like on its photo: heat, a mask, boxes; all at the photo's own size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from harness.data.fitting import CROP

Map = NDArray[np.float32]

# From transparent to opaque: the map's usual values leave the photo as it is.
COLOURS = np.array([(255, 220, 60), (255, 120, 0), (215, 0, 60)], np.float64)
OPAQUE = 0.65
STRIP = 1 << 20  # pixels that are coloured together


class Region(NamedTuple):
    """Hold a part of a photo that exceeds the threshold.

    Attributes:
        box: left, top, right, bottom, pixels of the photo; right and bottom are outside.
        area: pixels.
        peak: the largest value of the map in it.

    >>> Region((0, 0, 2, 2), area=3, peak=1.5).area
    3
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


def on_photo(fitted: Map, size: tuple[int, int], resize: str) -> Map:
    """Give a fitted image's map (H, W) the photo's size; nan where the photo was not looked at.

    Args:
        fitted: of the photo alone.
        size: (width, height) of the photo.
        resize: how the photo was fitted, as a variant has it.

    >>> on_photo(np.zeros((4, 4), np.float32), (8, 6), "square").shape
    (6, 8)
    """
    width, height = size
    if resize != "crop":
        return _resized(fitted, (width, height))
    wanted = fitted.shape[::-1]
    scale = max(round(w * CROP) / side for w, side in zip(wanted, size, strict=True))
    inside = tuple(min(s, max(1, round(w / scale))) for w, s in zip(wanted, size, strict=True))
    left, top = ((s - i) // 2 for s, i in zip(size, inside, strict=True))
    whole = np.full((height, width), np.nan, np.float32)
    whole[top : top + inside[1], left : left + inside[0]] = _resized(fitted, inside)
    return whole


def regions(values: Map, threshold: float) -> list[Region]:
    """List the connected parts of a map that exceed a threshold, those of the highest peak first.

    >>> regions(np.array([[0, 2, 0], [0, 0, 3]], np.float32), 1.0)[0].box
    (1, 0, 3, 2)
    """
    above = values > threshold  # nan never does
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    numbers = range(1, count + 1)
    areas = ndimage.sum_labels(above, labels, numbers)
    peaks = ndimage.maximum(values, labels, numbers) if count else []
    found = [
        Region((c.start, r.start, c.stop, r.stop), int(area), float(peak))
        for (r, c), area, peak in zip(ndimage.find_objects(labels), areas, peaks, strict=True)
    ]
    return sorted(found, key=lambda region: -region.peak)


def overlay(
    photo: Image.Image, values: Map, low: float, high: float, boxes: Sequence[Region] = ()
) -> Image.Image:
    """Lay a map over its photo as heat, with a box around each region.

    Args:
        photo: RGB.
        values: of its size.
        low: up to which the photo is left as it is.
        high: from which the heat is at its end; of one scale for all photos that are compared.
        boxes: the regions.

    >>> overlay(Image.new("RGB", (8, 8)), np.zeros((8, 8), np.float32), 0.0, 1.0).size
    (8, 8)
    """
    mixed = np.array(photo.convert("RGB"))
    step = max(1, STRIP // photo.width)  # a strip at a time: large photos take no more memory
    for rows in (slice(i, i + step) for i in range(0, photo.height, step)):
        mixed[rows] = _heated(mixed[rows], (values[rows] - low) / max(high - low, 1e-12))
    drawn = Image.fromarray(mixed)
    pen, width = ImageDraw.Draw(drawn), max(1, round(max(drawn.size) / 300))
    for left, top, right, bottom in (region.box for region in boxes):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=(255, 255, 255), width=width)
    return drawn


def _heated(pixels: NDArray[np.uint8], shares: Map) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) under heat that is 0 to 1 of the scale (h, w); nan: none."""
    heat = np.nan_to_num(shares).clip(0, 1)[..., None]
    place = heat * (len(COLOURS) - 1)
    first = np.minimum(place.astype(int)[..., 0], len(COLOURS) - 2)
    part = place - first[..., None]
    colour = COLOURS[first] * (1 - part) + COLOURS[first + 1] * part
    opaque = OPAQUE * np.sqrt(heat)
    mixed = pixels * (1 - opaque) + colour * opaque
    return np.asarray(np.rint(mixed), np.uint8)


def _resized(values: Map, size: tuple[int, int]) -> Map:
    grey = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR))

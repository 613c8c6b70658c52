"""Defective copies of good images: defects are drawn on them, so that no label is needed.

What is drawn are the defects of the embedded surfaces (:mod:`harness.data.embedded.defects`),
which know grey images. A colour image's luminance is drawn on, and the change is added to each of
its channels: the colours stay, what is lighter or darker changes. A kind of defect and its
strength are drawn evenly, the strength from a range whose lower end can hardly be seen.

Where the border of an image is uniform, it shows an object before a background. A defect is then
drawn on a part of the image around a pixel of the object, at most DRAWS times, until at least
ON_OBJECT of it lies on the object; if none does, that with the largest share counts. Elsewhere the
whole image is the surface.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.data.embedded.defects import DEFECTS

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

VERSION = 1  # raised when any pixel changes: what is cached of an older one is made anew
SEED = 14  # of all draws, beside the image's own pixels
STRENGTHS = {  # in the unit that each kind's function states
    "scratch": (2.5, 8.0),
    "spot": (3.5, 11.0),
    "stain": (1.6, 5.0),
    "cut_paste": (0.7, 1.8),
    "missing_texture": (0.6, 1.0),
    "deformation": (0.35, 0.9),
}
PART = (0.5, 1.0)  # of the image's side: what a defect is drawn on, and sized by
VISIBLE = 3  # grey levels; a smaller change is left out
LEAST = 1 / 4096  # of the pixels, that a defect changes at the least
DRAWS = 20  # after which the best of them is taken
ON_OBJECT = 0.25  # share of a defect's pixels
UNIFORM = 8.0  # median absolute deviation of a border that is a background, grey levels
CROSSED = 0.12  # share of such a border that an object covers at the most
APART = 20.0  # grey levels from the background's median, in some channel, that make an object
LUMINANCE = (0.299, 0.587, 0.114)  # of RGB, ITU-R BT.601
BLOCK = 96  # grey levels; see _block


def with_defect(image: Pixels) -> tuple[Pixels, Mask]:
    """Draw one defect on an image.

    Args:
        image: (H, W, 3), RGB; at least 16 pixels a side.

    Returns:
        The defective copy, and where it differs from the image, (H, W): exactly there. It is a
        function of the image's pixels alone.

    >>> good = np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)
    >>> bad, mask = with_defect(good)
    >>> bool(mask.any()), bool((mask == (bad != good).any(2)).all())
    (True, True)
    """
    content = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, *content])))
    surface = object_of(image)
    best, most = _block(image), -1.0
    for _ in range(DRAWS):
        drawn = _draw(image, surface, rng)
        mask = (drawn != image).any(2)
        if mask.mean() < LEAST:
            continue
        share = float(surface[mask].mean())
        if share > most:
            best, most = drawn, share
        if share >= ON_OBJECT:
            break
    return best, (best != image).any(2)


def object_of(image: Pixels) -> Mask:
    """Find the object that an image (H, W, 3) shows before a uniform background, (H, W).

    Pixels that are far from the border's median. All of them where the border is not uniform (a
    texture reaches it everywhere), or hardly any is far from it.

    >>> image = np.full((64, 64, 3), 200, np.uint8)
    >>> image[20:40, 20:40] = 50
    >>> int(object_of(image).sum())
    400
    """
    height, width, _ = image.shape
    edge = max(1, min(height, width) // 32)
    inside = np.zeros((height, width), dtype=bool)
    inside[edge:-edge, edge:-edge] = True
    border = image[~inside].astype(np.float64)
    background = np.median(border, axis=0)
    spread = np.median(np.abs(border - background), axis=0).max()
    apart: Mask = np.abs(image - background).max(2) > max(APART, 4 * spread)
    if spread > UNIFORM or apart[~inside].mean() > CROSSED or apart.mean() < LEAST:
        return np.ones((height, width), dtype=bool)
    return apart


def _draw(image: Pixels, surface: Mask, rng: np.random.Generator) -> Pixels:
    """A copy with one defect somewhere; perhaps one that cannot be seen, or beside the object."""
    kind = str(rng.choice(list(STRENGTHS)))
    part = _part(surface, rng)
    before = image[part].astype(np.float64)
    grey = before @ np.array(LUMINANCE)
    drawn, mask = DEFECTS[kind](grey, rng, rng.uniform(*STRENGTHS[kind]))
    change = np.where(mask, drawn - grey, 0.0)
    after = np.clip(np.rint(before + change[:, :, None]), 0, 255)
    seen = np.abs(after - before).max(2, keepdims=True) >= VISIBLE
    copy = image.copy()
    copy[part] = np.where(seen, after, before).astype(np.uint8)
    return copy


def _part(surface: Mask, rng: np.random.Generator) -> tuple[slice, slice]:
    """A rectangle of the image's proportions around a pixel of the object."""
    pixels = np.flatnonzero(surface)
    centre = np.unravel_index(pixels[rng.integers(pixels.size)], surface.shape)
    scale = rng.uniform(*PART)
    slices = []
    for at, side in zip(centre, surface.shape, strict=True):
        length = max(8, round(scale * side))
        start = int(np.clip(at - length // 2, 0, side - length))
        slices.append(slice(start, start + length))
    return slices[0], slices[1]


def _block(image: Pixels) -> Pixels:
    """A copy whose middle is lighter or darker: where nothing else can be seen on the image."""
    height, width, _ = image.shape
    copy = image.copy()
    middle = copy[3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8]
    middle[:] = np.where(middle < 128, middle + BLOCK, middle - BLOCK)
    return copy


# How a good image becomes a defective one; of the field ``validation``.
DEFECTIVE_COPIES: dict[str, Callable[[Pixels], tuple[Pixels, Mask]] | None] = {
    "none": None,
    "synthetic": with_defect,
}

"""Six kinds of surface defect, each painted on a photograph of intact texture.

A defect is a function ``(image, rng, strength) -> (image, mask)``: a grey image (H, W) in
[0, 255] as float64, and a mask that is True where the picture was altered. Pixels outside the
mask keep their value exactly. Strengths of brightness are in units of the roughness of the
surface: the mean absolute difference between the image and its blurred self.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy  # whose parts are imported where they are used: reports draw nothing
from numpy.typing import NDArray

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
Defect = Callable[[Image, np.random.Generator, float], tuple[Image, Mask]]

FAINTEST = 0.1
"""Blending weight up to which a pixel counts as untouched, and is left untouched."""


def scratch(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Draw a thin curved line, lighter or darker than the surface, fading out at both ends."""
    side = min(image.shape)
    start = _centre(image, rng)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    along = np.array([math.sin(angle), math.cos(angle)])
    length, bend = side * rng.uniform(0.4, 0.8), side * rng.uniform(-0.15, 0.15)
    time = np.linspace(-1.0, 1.0, 4 * side)
    across = np.array([-along[1], along[0]])
    curve = start + np.outer(time * length / 2.0, along) + np.outer(time**2 * bend, across)
    pixels = np.indices(image.shape).reshape(2, -1).T
    distance, nearest = scipy.spatial.cKDTree(curve).query(pixels)
    line = np.clip(rng.uniform(1.2, 2.0) - distance, 0.0, 1.0) * (1.0 - time[nearest] ** 4)
    return _blend(image, _shifted(image, rng, strength), line.reshape(image.shape))


def spot(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Draw a small round blob, lighter or darker than the surface.

    >>> rng = np.random.default_rng(0)
    >>> image = rng.uniform(0, 255, (64, 64))
    >>> damaged, mask = spot(image, rng, 7.0)
    >>> bool(mask.any()), bool((damaged[~mask] == image[~mask]).all())
    (True, True)
    """
    radius = min(image.shape) * rng.uniform(0.05, 0.08)
    weight = _bump(_offsets(image, rng), radius)
    return _blend(image, _shifted(image, rng, strength), weight)


def stain(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Draw a large patch of irregular outline, a shade lighter or darker than the surface."""
    weight = _patch(image, rng, radius=rng.uniform(0.18, 0.26))
    return _blend(image, _shifted(image, rng, strength), weight)


def cut_paste(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Paste a patch of the same surface, turned and resized, over another place.

    The strength is the relative change of size; the patch turns by as many radians.
    """
    weight = _patch(image, rng, radius=rng.uniform(0.17, 0.24))
    growth = (1.0 + strength) ** rng.choice([-1.0, 1.0])
    angle = strength * rng.uniform(0.7, 1.0) * rng.choice([-1.0, 1.0])
    offsets = _offsets(image, rng)
    cos, sin = math.cos(angle) / growth, math.sin(angle) / growth
    turned = np.stack([cos * offsets[0] - sin * offsets[1], sin * offsets[0] + cos * offsets[1]])
    source = turned + _centre(image, rng)[:, None, None]
    return _blend(image, _sample(image, source), weight)


def missing_texture(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Wear a patch towards its local mean; at strength 1 no texture is left in it."""
    weight = _patch(image, rng, radius=rng.uniform(0.12, 0.18))
    worn = scipy.ndimage.gaussian_filter(image, sigma=0.03 * min(image.shape), mode="mirror")
    return _blend(image, image + strength * (worn - image), weight)


def deformation(image: Image, rng: np.random.Generator, strength: float) -> tuple[Image, Mask]:
    """Twist, pinch or push aside the surface in a disc.

    The strength is the largest displacement as a fraction of the radius of the disc.
    """
    radius = min(image.shape) * rng.uniform(0.18, 0.26)
    offsets = _offsets(image, rng)
    across = np.stack([-offsets[1], offsets[0]])
    angle = rng.uniform(0.0, 2.0 * math.pi)
    push = np.array([math.sin(angle), math.cos(angle)])[:, None, None] * np.ones(image.shape)
    field = [across / radius, offsets / radius, 0.29 * push][rng.integers(3)]
    sign = rng.choice([-1.0, 1.0])
    # The bump times the distance from its centre peaks at 0.29 radius: hence the factors.
    moved = sign * strength * radius / 0.29 * _bump(offsets, radius) * field
    touched = np.sqrt((moved**2).sum(axis=0)) > 0.5
    warped = _sample(image, np.indices(image.shape) + moved)
    return _blend(image, warped, touched.astype(np.float64))


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "spot": spot,
    "stain": stain,
    "cut_paste": cut_paste,
    "missing_texture": missing_texture,
    "deformation": deformation,
}


def _centre(image: Image, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random point (row, column) away from the border of the image."""
    return rng.uniform(0.25, 0.75, size=2) * image.shape


def _offsets(image: Image, rng: np.random.Generator) -> NDArray[np.float64]:
    """Row and column offset of every pixel from a random centre, (2, H, W)."""
    return np.indices(image.shape) - _centre(image, rng)[:, None, None]


def _bump(offsets: NDArray[np.float64], radius: float) -> Image:
    """A smooth hill of height 1 that is exactly 0 beyond the radius."""
    hill: Image = np.maximum(1.0 - (offsets**2).sum(axis=0) / radius**2, 0.0) ** 2
    return hill


def _patch(image: Image, rng: np.random.Generator, *, radius: float) -> Image:
    """A blending weight in [0, 1]: a disc with a wobbly outline and a soft border.

    The radius is a fraction of the shorter side of the image.
    """
    distance = np.sqrt((_offsets(image, rng) ** 2).sum(axis=0)) / (radius * min(image.shape))
    coarse = rng.uniform(-0.4, 0.4, size=(6, 6))
    wobble = scipy.ndimage.zoom(
        coarse, np.divide(image.shape, coarse.shape), order=3, mode="nearest"
    )
    ramp = np.clip((1.0 - distance + wobble) / 0.3, 0.0, 1.0)
    weight: Image = ramp**2 * (3.0 - 2.0 * ramp)
    return weight


def _shifted(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """The image made lighter or darker by about ``strength`` times its roughness."""
    roughness = np.abs(
        image - scipy.ndimage.gaussian_filter(image, sigma=4.0, mode="mirror")
    ).mean()
    sign = rng.choice([-1.0, 1.0])
    shifted: Image = image + sign * rng.uniform(0.8, 1.2) * strength * roughness
    return shifted


def _sample(image: Image, positions: NDArray[np.float64]) -> Image:
    """The image read at fractional positions (2, H, W), mirrored beyond its border."""
    sampled: Image = scipy.ndimage.map_coordinates(image, positions, order=3, mode="mirror")
    return sampled


def _blend(image: Image, altered: Image, weight: Image) -> tuple[Image, Mask]:
    """The image with ``altered`` laid over it, and where that can be seen."""
    mask = weight > FAINTEST
    return np.where(mask, image + weight * (altered - image), image), mask

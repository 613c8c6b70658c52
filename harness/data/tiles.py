"""Large photos cut into tiles, each of which is an image to a method; and where their maps go.

A tile shows a small defect at a size that a backbone sees. Figures are of photos all the same:
the maps of a photo's tiles are joined to one (:mod:`harness.score.blend`) before anything is
measured of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray
from PIL import Image

from harness.data.frame import Box
from harness.experiment.feature_spec import FeatureSpec, Size, shape_of

if TYPE_CHECKING:
    from harness.data.contract import Category, Sample

MAP_SIDE = 1024  # pixels of the longer side of a photo's map, at most: bounds memory and metrics


class Window(NamedTuple):
    """Bound what a tile shows of its photo; ``right`` and ``bottom`` are outside.

    >>> Window(0, 0, 512, 300).size
    (512, 300)
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Give width and height."""
        return self.right - self.left, self.bottom - self.top

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Take its part of a photo's pixels, (H, W) or (H, W, C)."""
        return pixels[self.top : self.bottom, self.left : self.right]


def windows(size: tuple[int, int], tile: int, overlap: float) -> list[Window]:
    """Cut a photo into overlapping tiles, row by row; the last of a row and column move inwards.

    Args:
        size: (width, height) of the photo as shown.
        tile: side of a tile, pixels of the photo; along a side that is shorter, that side.
        overlap: share of a tile that its neighbour shows too, at the least.

    >>> [(w.left, w.right) for w in windows((100, 40), tile=40, overlap=0.25)]
    [(0, 40), (30, 70), (60, 100)]
    """
    across, down = (_starts(side, tile, overlap) for side in size)
    wide, high = (min(tile, side) for side in size)
    return [Window(x, y, x + wide, y + high) for y in down for x in across]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    step = max(1, int(tile * (1 - overlap)))
    last = max(0, side - tile)
    return [min(i * step, last) for i in range(math.ceil(last / step) + 1)]


def windows_of(sample: Sample, spec: FeatureSpec) -> list[Window]:
    """Cut the photo of a sample as a recipe of features says."""
    return windows(sample.facts().size, spec.tile_size, spec.tile_overlap)


def tiles_of(samples: Sequence[Sample], spec: FeatureSpec) -> tuple[Sample, ...]:
    """Cut photos into the samples that a method sees: the photos themselves without tiles.

    >>> tiles_of((), FeatureSpec(backbone="resnet18.tv_in1k", tile_size=64))
    ()
    """
    if not spec.tile_size:
        return tuple(samples)
    return tuple(replace(s, window=w) for s in samples for w in windows_of(s, spec))


def tiled(category: Category, spec: FeatureSpec) -> Category:
    """Cut all photos of a category; the category itself without tiles.

    Its samples are those of the features; names, digest and figures are the photos' category's.
    """
    if not spec.tile_size:
        return category
    train, test = (tiles_of(samples, spec) for samples in (category.train, category.test))
    return replace(category, train=train, test=test)


_last: list[tuple[object, Image.Image]] = []  # the photo that the last tile was of
_reading = Lock()


def whole_photo(sample: Sample) -> Image.Image:
    """Read a photo, RGB, decoded once for all of its tiles where they come one after another."""
    changed = ""
    if not sample.source and sample.path.exists():
        stat = sample.path.stat()
        changed = f"{stat.st_mtime_ns} {stat.st_size}"
    with _reading:  # else each thread that wants a tile of it would decode it
        if not _last or _last[0][0] != (sample, changed):
            _last[:] = [((sample, changed), sample.image())]
        return _last[0][1]


def map_shape(
    size: tuple[int, int], tile: int, image_size: Size, most: int = MAP_SIDE
) -> tuple[int, int]:
    """Choose height and width of a photo's map: as fine as its tiles are seen, within a bound.

    Args:
        size: (width, height) of the photo.
        tile: side of a tile, pixels of the photo.
        image_size: of the input that a tile is fitted into.
        most: pixels of the map's longer side, at most; and never finer than the photo.

    >>> map_shape((4000, 3000), 512, 256), map_shape((1200, 600), 512, 256)
    ((768, 1024), (300, 600))
    """
    seen = max(shape_of(image_size)) / max(min(tile, side) for side in size)
    scale = min(1.0, seen, most / max(size))
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


class Photos(NamedTuple):
    """Hold the sizes, (width, height), of N photos that were cut, and how they were.

    >>> Photos([(100, 40)], 40, 0.25, 40).frame
    (40, 100)
    """

    sizes: Sequence[tuple[int, int]]
    tile: int
    overlap: float
    image_size: Size

    def windows(self, photo: int) -> list[Window]:
        """Find what each tile of a photo shows."""
        return windows(self.sizes[photo], self.tile, self.overlap)

    def shape(self, photo: int) -> tuple[int, int]:
        """Find height and width of a photo's map."""
        return map_shape(self.sizes[photo], self.tile, self.image_size)

    @property
    def boxes(self) -> list[Box]:
        """Find where each photo's map lies in a frame that has room for all of them."""
        return [Box(0, 0, *self.shape(i)) for i in range(len(self.sizes))]

    @property
    def frame(self) -> tuple[int, int]:
        """Find that frame's height and width."""
        boxes = self.boxes
        return max(b.bottom for b in boxes), max(b.right for b in boxes)

    def rows(self, photos: Sequence[int]) -> tuple[Photos, list[int]]:
        """Take some photos, and find the numbers of their tiles among those of all.

        >>> Photos([(8, 8), (16, 8)], 8, 0.0, 8).rows([1])[1]
        [1, 2]
        """
        counts = [len(self.windows(i)) for i in range(len(self.sizes))]
        numbers = [sum(counts[:i]) + k for i in photos for k in range(counts[i])]
        return self._replace(sizes=[self.sizes[i] for i in photos]), numbers


def photos_of(samples: Sequence[Sample], spec: FeatureSpec) -> Photos | None:
    """Find the sizes of photos that a recipe cuts; None where it does not.

    >>> photos_of((), FeatureSpec(backbone="resnet18.tv_in1k")) is None
    True
    """
    if not spec.tile_size:
        return None
    sizes = [s.facts().size for s in samples]
    return Photos(sizes, spec.tile_size, spec.tile_overlap, spec.image_size)

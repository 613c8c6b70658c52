"""Maps of a photo's tiles to the photo's own, without a seam."""

from collections.abc import Iterable, Iterator
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.tiles import Photos, Window


class Blend:
    """Join maps of overlapping tiles: their mean, by a weight that falls to a tile's border.

    A backbone knows less of what is at its input's border, and where one tile ends another goes
    on; so a tile's weight is sin² of the place, along both sides, and the sum of all is divided
    by that of the weights.

    Args:
        size: (width, height) of the photo.
        shape: height and width of its map.

    >>> blend = Blend((4, 2), (2, 4))
    >>> blend.add(Window(0, 0, 2, 2), torch.ones(2, 2))
    >>> blend.add(Window(2, 0, 4, 2), 3 * torch.ones(2, 2))
    >>> blend.whole().round().tolist()
    [[1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 3.0]]
    """

    def __init__(self, size: tuple[int, int], shape: tuple[int, int]) -> None:
        self.size, self.shape = size, shape
        self._sum, self._weight = torch.zeros(shape), torch.zeros(shape)

    def add(self, window: Window, tile: Tensor) -> None:
        """Lay a tile's map (h, w), of any size, where the tile lies in its photo."""
        columns = _span(window.left, window.right, self.size[0], self.shape[1])
        rows = _span(window.top, window.bottom, self.size[1], self.shape[0])
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if tile.shape != shape:
            tile = F.interpolate(tile[None, None], shape, mode="bilinear", antialias=True)[0, 0]
        weight = _falling(shape[0])[:, None] * _falling(shape[1])
        self._sum[rows, columns] += weight * tile
        self._weight[rows, columns] += weight

    def whole(self) -> Tensor:
        """Give the photo's map (h, w), once all of its tiles are there."""
        return self._sum / self._weight


def _span(start: int, stop: int, side: int, count: int) -> slice:
    """The map's positions that pixels of the photo fall on; at least one."""
    first = min(round(start * count / side), count - 1)
    return slice(first, max(first + 1, round(stop * count / side)))


def _falling(count: int) -> Tensor:
    """The weight along a side of so many positions; above 0 everywhere."""
    return torch.sin(pi * (torch.arange(count) + 0.5) / count).square()


def joined(
    tiles: Iterable[tuple[list[Tensor], Tensor | None]], photos: Photos
) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    """Yield the maps of every photo, as those of its tiles come; and its score.

    Args:
        tiles: chunks of successive tiles: kinds of their maps, each (B, h, w), and scores (B,)
            that the method itself gives, if it does.
        photos: whose tiles they are.

    Yields:
        The kinds of a photo's maps, each (1, H, W), and the largest of its tiles' scores, (1,).
    """
    pieces = ((([m[i] for m in maps]), None if own is None else own[i]) for maps, own in tiles
              for i in range(len(maps[0] if own is None else own)))  # fmt: skip
    for photo, size in enumerate(photos.sizes):
        blends: list[Blend] = []
        scores: list[Tensor] = []
        for window in photos.windows(photo):
            maps, own = next(pieces)
            blends = blends or [Blend(size, photos.shape(photo)) for _ in maps]
            for blend, tile in zip(blends, maps, strict=True):
                blend.add(window, tile)
            if own is not None:
                scores.append(own)
        yield (
            [b.whole()[None] for b in blends],
            torch.stack(scores).amax()[None] if scores else None,
        )

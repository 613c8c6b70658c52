"""Where a photo lies in a backbone's input: all of it, or a box with the photo's own proportions.

What surrounds the box is filled so that the backbone has something to look at; it is no part of
the photo, and neither a score nor a metric may see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.experiment.feature_spec import Size, shape_of

if TYPE_CHECKING:
    from harness.data.contract import Sample


class Box(NamedTuple):
    """Bound a rectangle of pixels; the rows ``bottom`` and the columns ``right`` are outside.

    >>> box = Box(1, 0, 3, 2)
    >>> np.arange(12).reshape(4, 3)[box.rows, box.columns].tolist()
    [[3, 4], [6, 7]]
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Give height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def rows(self) -> slice:
        """Give the rows of an array that lie in it."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Give the columns of an array that lie in it."""
        return slice(self.left, self.right)

    def positions(self, frame: tuple[int, int], grid: tuple[int, int]) -> Box:
        """Find the positions of a coarser grid over the frame whose centre lies in the box.

        Where no row or no column has its centre there, it is the one that the box's middle is in.

        >>> Box(64, 0, 192, 256).positions((256, 256), (8, 8))
        Box(top=2, left=0, bottom=6, right=8)
        """
        (top, bottom), (left, right) = (
            _positions(*span, side, count)
            for span, side, count in zip(
                ((self.top, self.bottom), (self.left, self.right)), frame, grid, strict=True
            )
        )
        return Box(top, left, bottom, right)


def interior(size: tuple[int, int], image_size: Size, resize: str) -> Box:
    """Find the box of a backbone's input that shows the photo.

    Args:
        size: (width, height) of the photo as shown.
        image_size: of the input, pixels.
        resize: ``pad``: the longer side, in proportion to the input's, fits, and the photo is
            centred; else the photo is everywhere.

    >>> interior((500, 1260), 256, "pad")
    Box(top=0, left=77, bottom=256, right=179)
    """
    height, width = shape_of(image_size)
    if resize != "pad":
        return Box(0, 0, height, width)
    scale = min(width / size[0], height / size[1])
    inside = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    top, left = (height - inside[0]) // 2, (width - inside[1]) // 2
    return Box(top, left, top + inside[0], left + inside[1])


Boxes = Sequence[Box] | None  # of each of N images; None: each fills its frame


def boxes_of(samples: Sequence[Sample], image_size: Size, resize: str) -> Boxes:
    """Find the box of every image; None where each fills its frame.

    >>> boxes_of((), 256, "square") is None
    True
    """
    if resize != "pad":
        return None
    found = [interior(s.facts().size, image_size, resize) for s in samples]
    whole = (0, 0, *shape_of(image_size))
    return None if all(box == whole for box in found) else found


def surround(inside: NDArray[Any], box: Box, image_size: Size) -> NDArray[Any]:
    """Put pixels (h, w) or (h, w, C) into a box, and fill around it: (H, W) or (H, W, C).

    Mirrored at the box's border: the texture goes on as it is and there is no step, where a
    colour would be an edge, and the border's pixels repeated are stripes that no good part has.

    >>> surround(np.array([[1, 2]]), Box(0, 1, 1, 3), (1, 4)).tolist()
    [[1, 1, 2, 2]]
    """
    height, width = shape_of(image_size)
    beyond = [(box.top, height - box.bottom), (box.left, width - box.right)]
    return np.pad(inside, beyond + [(0, 0)] * (inside.ndim - 2), mode="symmetric")


def _positions(start: int, stop: int, side: int, count: int) -> tuple[int, int]:
    first, last = (math.ceil(edge * count / side - 0.5) for edge in (start, stop))
    if first < last:
        return first, last
    middle = (start + stop) * count // (2 * side)
    return middle, middle + 1

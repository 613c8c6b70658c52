"""The part of a photo that counts: what lies outside it is in no score, mask or calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data import images as pictures
from harness.data.fitting import squared_mask
from harness.data.frame import Box
from harness.errors import InputError
from harness.experiment.variant import Variant

Inside = NDArray[np.bool_]
OPTION = "--roi"


@dataclass(frozen=True, eq=False)
class Interest:
    """Bound what counts of every photo: by a rectangle, or by a mask of the photos' size.

    Attributes:
        box: left, top, right, bottom, pixels of a photo as shown; right and bottom are outside.
        mask: (H, W), true where it counts; in place of a box.

    >>> Interest((1, 0, 3, 9)).of((4, 2)).tolist()
    [[False, True, True, False], [False, True, True, False]]
    """

    box: tuple[int, int, int, int] | None = None
    mask: Inside | None = None

    @classmethod
    def read(cls, text: str) -> Interest:
        """Read what an option says: ``LEFT,TOP,RIGHT,BOTTOM``, or a mask that is white there.

        Raises:
            InputError: it is neither.
        """
        words = text.split(",")
        if len(words) == 4 and all(w.strip().isdecimal() for w in words):
            left, top, right, bottom = (int(w) for w in words)
            if left < right and top < bottom:
                return cls((left, top, right, bottom))
        elif Path(text).expanduser().is_file():
            mask = pictures.read_defects(Path(text).expanduser())
            if mask.any():
                return cls(mask=mask)
            raise InputError(f"{OPTION}: expected a mask that is white somewhere; got {text}")
        raise InputError(
            f"{OPTION}: expected LEFT,TOP,RIGHT,BOTTOM in pixels, as 0,40,800,600, or the file of "
            f"a mask; got {text}"
        )

    def __eq__(self, other: object) -> bool:
        """Tell whether another bounds the same."""
        return (
            isinstance(other, Interest)
            and self.box == other.box
            and (self.mask is None) == (other.mask is None)
            and (self.mask is None or np.array_equal(self.mask, other.mask))  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        """Say what it is."""
        if self.box:
            return "the rectangle " + ",".join(map(str, self.box))
        assert self.mask is not None
        return f"{self.mask.mean():.1%} of the photo, by a mask"

    def of(self, size: tuple[int, int]) -> Inside:
        """Find it in a photo of (width, height): (H, W).

        Raises:
            InputError: nothing of the photo lies in it, or the mask is of another size.
        """
        width, height = size
        if self.mask is not None:
            if self.mask.shape != (height, width):
                raise InputError(
                    f"{OPTION}: expected a photo of the mask's size, {self.mask.shape[1]} × "
                    f"{self.mask.shape[0]}; got {width} × {height}; use a rectangle"
                )
            return self.mask
        assert self.box is not None
        left, top, right, bottom = self.box
        inside = np.zeros((height, width), dtype=bool)
        inside[top:bottom, left:right] = True
        if not inside.any():
            raise InputError(
                f"{OPTION}: expected a rectangle that the photo has a part of; got {left},{top},"
                f"{right},{bottom} and a photo of {width} × {height}"
            )
        return inside

    def on_map(
        self, size: tuple[int, int], box: Box, frame: tuple[int, int], resize: str
    ) -> Inside:
        """Find it in the map (h, w) of a photo.

        Args:
            size: (width, height) of the photo.
            box: where the map's frame shows the photo.
            frame: its height and width.
            resize: how the photo is fitted into it.

        Raises:
            InputError: it is smaller than any pixel of the map.
        """
        fitted = squared_mask(self.of(size), frame, resize, "nearest")[box.rows, box.columns]
        if not fitted.any():
            raise InputError(
                f"{OPTION}: expected a region of at least a pixel of the map, {frame[1]} × "
                f"{frame[0]}; got {self}; make it larger"
            )
        return fitted


def refuse_whole_scores(variant: Variant) -> None:
    """Refuse a variant whose image scores see all of an image, whatever counts of it.

    Raises:
        InputError: they are none of a map's, or of turned copies.
    """
    rule, turns = variant.image_score, variant.test_turns
    if rule == "own" or turns:
        raise InputError(
            f"{OPTION}: expected image scores made of maps, as image_score=max, without "
            f"test_turns; got image_score={rule}, test_turns={turns}, which see all of an image"
        )


def interest_tensors(interest: Interest) -> dict[str, Tensor]:
    """Give it as tensors, for a file; a mask as bits.

    >>> read_interest(interest_tensors(Interest((0, 0, 8, 8)))) == Interest((0, 0, 8, 8))
    True
    """
    if interest.box:
        return {"box": torch.tensor(interest.box)}
    assert interest.mask is not None
    bits = torch.from_numpy(np.packbits(interest.mask))
    return {"shape": torch.tensor(interest.mask.shape), "bits": bits}


def read_interest(tensors: Mapping[str, Tensor]) -> Interest | None:
    """Read what :func:`interest_tensors` gives; None of nothing."""
    if "box" in tensors:
        left, top, right, bottom = tensors["box"].tolist()
        return Interest((left, top, right, bottom))
    if "bits" not in tensors:
        return None
    height, width = tensors["shape"].tolist()
    bits = np.unpackbits(tensors["bits"].numpy(), count=height * width)
    return Interest(mask=bits.view(bool).reshape(height, width))

"""A change of position, of an image and its mask alike."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Motion:
    """Turn, zoom and shift an image about its centre; its text enters digests.

    Attributes:
        angle: degrees, counter-clockwise.
        zoom: above 1 enlarges.
        right: shift, as a fraction of the width.
        down: shift, as a fraction of the height.

    >>> Motion(0.0, 1.0, right=0.5, down=0.0).keeps(np.ones((4, 4), dtype=bool))
    0.5
    """

    angle: float
    zoom: float
    right: float
    down: float

    def move(self, image: Image.Image, filter_: Image.Resampling) -> Image.Image:
        """Move an image, in its own size, mirrored beyond its border."""
        width, height = image.size
        cos, sin = (f(np.deg2rad(self.angle)) / self.zoom for f in (np.cos, np.sin))
        # Pillow asks, for every pixel of the result, where it comes from.
        x, y = width / 2 + self.right * width, height / 2 + self.down * height
        # As far as a corner comes from: half a side, more where a long frame is turned.
        far_x, far_y = (0.5 + abs(self.right)) * width, (0.5 + abs(self.down)) * height
        pad_x = max(width // 2, math.ceil(abs(cos) * far_x + abs(sin) * far_y - width / 2) + 1)
        pad_y = max(height // 2, math.ceil(abs(sin) * far_x + abs(cos) * far_y - height / 2) + 1)
        from_x, from_y = width / 2 + pad_x, height / 2 + pad_y
        matrix = (
            cos, -sin, from_x - cos * x + sin * y,
            sin, cos, from_y - sin * x - cos * y,
        )  # fmt: skip
        pixels = np.asarray(image)
        border = [(pad_y, pad_y), (pad_x, pad_x)] + [(0, 0)] * (pixels.ndim - 2)
        wide = Image.fromarray(np.pad(pixels, border, mode="symmetric"))
        return wide.transform(image.size, Image.Transform.AFFINE, matrix, filter_)

    def keeps(self, mask: NDArray[np.bool_]) -> float:
        """Tell the share of a mask's (H, W) defective pixels that stays in view."""
        height, width = mask.shape
        row, column = np.nonzero(mask)
        y, x = row + 0.5 - height / 2, column + 0.5 - width / 2
        cos, sin = (f(np.deg2rad(self.angle)) * self.zoom for f in (np.cos, np.sin))
        right = cos * x + sin * y + width / 2 + self.right * width
        down = cos * y - sin * x + height / 2 + self.down * height
        inside = (right >= 0) & (right < width) & (down >= 0) & (down < height)
        return float(inside.mean()) if len(row) else 1.0

"""Pictures of a page: photos, masks and maps as WebP of the size that is shown."""

import io
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224  # pixels of the longer side: twice what is shown, for fine screens
QUALITY = 72
MAP = "inferno"  # dark to bright in equal steps, for every eye
OUTLINE = (64, 224, 255)


@dataclass(frozen=True)
class Picture:
    """Hold a picture as it stands in a page.

    >>> Picture("data:,", 8, 8, "nothing").says
    'nothing'
    """

    source: str
    width: int
    height: int
    says: str


@dataclass(frozen=True)
class Scale:
    """Hold the colours of maps: from ``low`` to ``high``, and what they say.

    >>> Scale(0.0, 1.0).stops[:7], Scale(0.0, 1.0).low
    ('#000004', '0')
    """

    least: float
    most: float
    says: str = ""

    @property
    def low(self) -> str:
        """Write its lower end."""
        return typeset(self.least)

    @property
    def high(self) -> str:
        """Write its upper end."""
        return typeset(self.most)

    @property
    def stops(self) -> str:
        """List its colours for a gradient."""
        colours = mpl.colormaps[MAP](np.linspace(0, 1, 9))
        return ", ".join(mpl.colors.to_hex(c) for c in colours)


def typeset(value: float) -> str:
    """Write a score with three digits, its minus sign as wide as a plus.

    >>> typeset(-0.38123)
    '−0.381'
    """
    return f"{value:.3g}".replace("-", "−")


def photo(image: NDArray[np.uint8], mask: NDArray[np.bool_], says: str) -> Picture:
    """Show a photo with the outline of its defect.

    Args:
        image: (H, W, 3).
        mask: (H, W).
        says: what it shows, for those who do not see it.

    >>> photo(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool), "black").width
    8
    """
    shown = _sized(Image.fromarray(image))
    outline = np.asarray(_sized(Image.fromarray(mask), Image.Resampling.NEAREST))
    pixels = np.array(shown)
    pixels[_edge(outline)] = OUTLINE
    return _as_webp(Image.fromarray(pixels), says)


def heat(anomaly_map: NDArray[np.floating[Any]], scale: Scale, says: str) -> Picture:
    """Show a map in the colours of a scale; what it does not cover is clear.

    Args:
        anomaly_map: (H, W) larger = more anomalous; nan where there is none.
        scale: the same for all maps that are compared.
        says: what it shows.
    """
    span = (scale.most - scale.least) or 1.0
    relative = np.clip((anomaly_map - scale.least) / span, 0, 1)
    colours = mpl.colormaps[MAP](np.nan_to_num(relative), bytes=True)
    colours[..., 3] = np.where(np.isfinite(anomaly_map), 255, 0)
    kind = colours if np.isnan(anomaly_map).any() else colours[..., :3]
    return _as_webp(_sized(Image.fromarray(np.ascontiguousarray(kind))), says)


def _sized(image: Image.Image, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """No larger than it is shown, twice over."""
    part = SIDE / max(image.size)
    if part >= 1:
        return image
    return image.resize(
        (max(1, round(image.width * part)), max(1, round(image.height * part))), how
    )


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels around a mask, beside it."""
    around = np.pad(mask, 1)
    near = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    return np.asarray(near & ~mask)


def _as_webp(image: Image.Image, says: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=QUALITY, method=4)
    data = b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{data}", image.width, image.height, says)

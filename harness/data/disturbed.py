"""A data set whose test images are turned, zoomed and shifted: objects that are not aligned.

FastFlow's authors report a misaligned MVTec AD without saying how it was made; the amounts here
are ours, and fields. Training images stay as they are. Each test image's motion is drawn from
the seed, its category and its name, so it does not depend on the other images, on the machine or
on the order. What comes into view beyond the border is the image mirrored; masks move along. Where
a motion would carry most of a defect out of view, the next draw is taken, so that a defective
image still shows its defect.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.contract import Category, Dataset, Sample

DRAWS = 50  # after which an image stays as it is
KEPT = 0.5  # the share of a defect's pixels that has to stay in view


@dataclass(frozen=True)
class Motion:
    """Rotation, zoom and shift about the image's centre.

    Attributes:
        angle: degrees, counter-clockwise.
        zoom: above 1 enlarges.
        right: shift, as a fraction of the width.
        down: shift, as a fraction of the height.
    """

    angle: float
    zoom: float
    right: float
    down: float

    def move(self, image: Image.Image, filter_: Image.Resampling) -> Image.Image:
        """The image moved, in its own size, mirrored beyond its border."""
        width, height = image.size
        cos, sin = (f(np.deg2rad(self.angle)) / self.zoom for f in (np.cos, np.sin))
        # Pillow asks, for every pixel of the result, where it comes from.
        pad_x, pad_y = width // 2, height // 2
        x, y = width / 2 + self.right * width, height / 2 + self.down * height
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
        """The share of a mask's (H, W) defective pixels that stays in view."""
        height, width = mask.shape
        row, column = np.nonzero(mask)
        y, x = row + 0.5 - height / 2, column + 0.5 - width / 2
        cos, sin = (f(np.deg2rad(self.angle)) * self.zoom for f in (np.cos, np.sin))
        right = cos * x + sin * y + width / 2 + self.right * width
        down = cos * y - sin * x + height / 2 + self.down * height
        inside = (right >= 0) & (right < width) & (down >= 0) & (down < height)
        return float(inside.mean()) if len(row) else 1.0


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """A data set with moved test images.

    Attributes:
        inner: the data set.
        rotation: largest angle, degrees; each is drawn evenly from ± this.
        zoom: largest relative change of size, drawn from 1 ± this.
        shift: largest shift as a fraction of the side, drawn from ± this in both directions.
        seed: of all draws.
    """

    inner: Dataset
    rotation: float = 15.0
    zoom: float = 0.1
    shift: float = 0.05
    seed: int = 0

    @property
    def name(self) -> str:
        """As in records."""
        return f"disturbed-{self.inner.name}"

    @property
    def layout(self) -> str:
        """The inner one's."""
        return f"disturbed-{self.inner.layout}"

    def categories(self) -> tuple[str, ...]:
        """The inner data set's."""
        return self.inner.categories()

    def load(self, category: str) -> Category:
        """One category with its test images moved."""
        found = self.inner.load(category)
        test = tuple(replace(s, motion=self.motion(category, i, s)) for i, s in _named(found))
        said = (
            f"rotation ±{self.rotation:g}°, zoom ±{self.zoom:g}, shift ±{self.shift:g}, "
            f"seed {self.seed}"
        )
        return replace(found, dataset=self.name, test=test, layout=self.layout, disturbance=said)

    def motion(self, category: str, name: str, sample: Sample) -> Motion:
        """A test image's motion: of its draws, the first that keeps its defect in view."""
        key = f"{category}/{sample.defect}/{name}".encode(errors="surrogateescape")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))
        mask = sample.defective() if sample.mask else np.zeros((1, 1), dtype=bool)
        for angle, zoom, right, down in rng.uniform(-1, 1, (DRAWS, 4)).tolist():
            motion = Motion(
                self.rotation * angle, 1 + self.zoom * zoom, self.shift * right, self.shift * down
            )
            if motion.keeps(mask) >= KEPT:
                return motion
        return Motion(0.0, 1.0, 0.0, 0.0)


def disturbed(dataset: Dataset, **amounts: float) -> Disturbed:
    """The misaligned version of a data set; ``amounts`` are the fields of :class:`Disturbed`."""
    return Disturbed(inner=dataset, **amounts)  # type: ignore[arg-type]


def _named(category: Category) -> list[tuple[str, Sample]]:
    """Every test sample with a name of its own."""
    return [
        (f"{s.path.name}/{i}" if s.source else s.path.name, s) for i, s in enumerate(category.test)
    ]

"""A data set whose test images are turned, zoomed and shifted: objects that are not aligned.

FastFlow's authors report a misaligned MVTec AD without saying how it was made; the amounts here
are ours, and fields. Training images stay as they are. Each test image's motion is drawn from
the seed, its category and its name, so it does not depend on the other images, on the machine or
on the order. What comes into view beyond the border is the image mirrored; masks move along. Where
a motion would carry most of a defect out of view, the next draw is taken, so that a defective
image still shows its defect.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.data.contract import Category, Dataset, Sample
from harness.data.motion import Motion

DRAWS = 50  # after which an image stays as it is
KEPT = 0.5  # the share of a defect's pixels that has to stay in view


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """Move the test images of a data set.

    Attributes:
        inner: the data set.
        rotation: largest angle, degrees; each is drawn evenly from ± this.
        zoom: largest relative change of size, drawn from 1 ± this.
        shift: largest shift as a fraction of the side, drawn from ± this in both directions.
        seed: of all draws.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from harness.data.datasets import open_dataset
    >>> with TemporaryDirectory() as cache:
    ...     surfaces = open_dataset("surfaces", folder=None, cache=Path(cache))
    ...     moved = Disturbed(inner=surfaces, rotation=15).load("grass")
    >>> moved.dataset, moved.disturbance
    ('disturbed-surfaces', 'rotation ±15°, zoom ±0.1, shift ±0.05, seed 0')
    """

    inner: Dataset
    rotation: float = 15.0
    zoom: float = 0.1
    shift: float = 0.05
    seed: int = 0

    @property
    def name(self) -> str:
        """Name it as in records."""
        return f"disturbed-{self.inner.name}"

    @property
    def layout(self) -> str:
        """Give the inner one's."""
        return f"disturbed-{self.inner.layout}"

    @property
    def root(self) -> Path:
        """Give the inner one's."""
        return self.inner.root

    def categories(self) -> tuple[str, ...]:
        """List the inner data set's."""
        return self.inner.categories()

    def load(self, category: str) -> Category:
        """Load one category with its test images moved."""
        found = self.inner.load(category)
        test = tuple(replace(s, motion=self.motion(category, i, s)) for i, s in _named(found))
        said = (
            f"rotation ±{self.rotation:g}°, zoom ±{self.zoom:g}, shift ±{self.shift:g}, "
            f"seed {self.seed}"
        )
        return replace(found, dataset=self.name, test=test, layout=self.layout, disturbance=said)

    def motion(self, category: str, name: str, sample: Sample) -> Motion:
        """Draw a test image's motion: of its draws, the first that keeps its defect in view."""
        key = f"{category}/{sample.defect}/{name}".encode(errors="surrogateescape")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))
        mask = sample.defective() if sample.masks else np.zeros((1, 1), dtype=bool)
        for angle, zoom, right, down in rng.uniform(-1, 1, (DRAWS, 4)).tolist():
            motion = Motion(
                self.rotation * angle, 1 + self.zoom * zoom, self.shift * right, self.shift * down
            )
            if motion.keeps(mask) >= KEPT:
                return motion
        return Motion(0.0, 1.0, 0.0, 0.0)


def disturbed(dataset: Dataset, **amounts: float) -> Disturbed:
    """Misalign a data set; ``amounts`` are the fields of :class:`Disturbed`."""
    return Disturbed(inner=dataset, **amounts)  # type: ignore[arg-type]


def _named(category: Category) -> list[tuple[str, Sample]]:
    """Every test sample with a name of its own."""
    return [
        (f"{s.path.name}/{i}" if s.source else s.path.name, s) for i, s in enumerate(category.test)
    ]

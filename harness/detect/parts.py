"""What a detector is made of beside its networks, and what it says of images."""

from typing import ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.data.frame import Box
from harness.run.kept import Kept


class Calibration(msgspec.Struct, kw_only=True):
    """Say which good images the thresholds are set on, and what rates are asked for.

    >>> Calibration(images=20, which="good test images", date="2026-01-01").false_alarms
    0.01
    """

    images: int
    which: str  # whose they are, in words
    date: str  # UTC
    false_alarms: float = 0.01  # the share of good images that may be flagged
    pixel_false_alarms: float = 0.001  # the share of a good image's pixels that may be


class DetectorFile(Kept, kw_only=True):
    """Say what a detector's file holds beside a run's weights."""

    what: ClassVar[str] = "detector"

    bits: int
    float32: bool = False  # it scores in float32, whatever the run was trained in
    calibration: Calibration | None = None


class Prediction(NamedTuple):
    """Hold what a detector says of B images.

    Attributes:
        score: (B,) larger = more anomalous.
        anomaly_map: (B, H, W), of the images as they were fitted, nan beside them; None: the
            method does not localise.
        is_anomalous: (B,) whether the score exceeds the threshold.

    >>> Prediction(np.ones(1), None, np.array([True])).is_anomalous.tolist()
    [True]
    """

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32] | None
    is_anomalous: NDArray[np.bool_]


class Look(NamedTuple):
    """Hold what a detector sees in one image.

    Attributes:
        values: (h, w), its map; None: the method does not localise.
        box: where a frame that maps are laid into shows the image.
        frame: height and width of that.
        inside: (h, w), what of the map counts; None: all.
        score: of what counts.

    >>> Look(None, Box(0, 0, 8, 8), (8, 8), None, 1.5).score
    1.5
    """

    values: NDArray[np.float32] | None
    box: Box
    frame: tuple[int, int]
    inside: NDArray[np.bool_] | None
    score: float


class Levels(NamedTuple):
    """Hold what good images that nothing was learnt from got.

    Attributes:
        scores: (n,) their scores.
        shares: (k,) of all pixels of their maps, descending; empty without maps.
        values: (k,) that these shares of the pixels exceed.

    >>> Levels.none().scores.shape
    (0,)
    """

    scores: NDArray[np.float32]
    shares: NDArray[np.float32]
    values: NDArray[np.float32]

    @classmethod
    def none(cls) -> Self:
        """Give those of no images."""
        empty = np.empty(0, np.float32)
        return cls(empty, empty, empty)

"""Thresholds from good images alone: how often a good image, or a part of it, may be flagged.

Split conformal prediction (Vovk et al. 2005; Papadopoulos et al. 2002): if a new good image is
exchangeable with n calibration images, its score exceeds the k-th smallest of theirs with a
probability of at most 1 − k/(n + 1). So no rate below 1/(n + 1) can be promised by n images. For
pixels the mean share of an image that is flagged is bounded in the same way (conformal risk
control, Angelopoulos et al. 2024, arXiv 2208.02814, theorem 1).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.errors import InputError

Scores = NDArray[np.float32]
DRIFT = 0.001  # the probability below which new images count as others
FEW = 8  # images without which no drift is told


@dataclass(frozen=True)
class Threshold:
    """Hold a threshold and what it promises; what exceeds it is flagged.

    Attributes:
        value: of a score.
        asked: the rate of false alarms asked for.
        promised: the rate that good images exceed it at most, in the mean over calibrations.
        images: n, that it was set on.

    >>> Threshold(1.5, asked=0.01, promised=0.05, images=19).reached
    False
    """

    value: float
    asked: float
    promised: float
    images: int

    @property
    def reached(self) -> bool:
        """Tell whether what was asked for is promised."""
        return self.promised <= self.asked + 1e-12

    def __str__(self) -> str:
        """Say it of images, in a sentence."""
        return self.of("images")

    def of(self, what: str) -> str:
        """Say it, in a sentence, of what is flagged: images or pixels."""
        least = f"; {self.images} images can promise no less than {1 / (self.images + 1):.2%}"
        return (
            f"at most {self.promised:.2%} of good {what} are flagged, by {self.images} good images"
            f"{'' if self.reached else f' ({self.asked:.2%} were asked for{least})'}"
        )


def image_threshold(scores: Scores, false_alarms: float) -> Threshold:
    """Set the threshold of image scores.

    Args:
        scores: (n,) of good images that nothing was learnt from.
        false_alarms: the share of good images that may be flagged.

    Raises:
        InputError: the share is not between 0 and 1, or there are no images.

    >>> scores = np.arange(19, dtype=np.float32)
    >>> image_threshold(scores, 0.1).value, image_threshold(scores, 0.01).promised
    (17.0, 0.05)
    """
    n = _checked(scores, false_alarms)
    place = min(n, math.ceil((n + 1) * (1 - false_alarms) - 1e-9))
    value = float(np.sort(scores)[place - 1])
    return Threshold(value, false_alarms, (n + 1 - place) / (n + 1), n)


def pixel_threshold(shares: Scores, values: Scores, false_alarms: float, images: int) -> Threshold:
    """Set the threshold of a map.

    Args:
        shares: (k,) of all pixels of the calibration maps, descending.
        values: (k,) that these shares of the pixels exceed, ascending.
        false_alarms: the share of a good image's pixels that may be flagged.
        images: n, that the maps are of.

    Returns:
        Its ``promised`` is (n · share + 1)/(n + 1): the mean share of a new good image.

    >>> pixel_threshold(np.array([0.5, 0.01, 0]), np.array([1, 2, 3]), 0.02, 99).value
    2.0
    """
    _checked(values, false_alarms, "--pixel-false-alarms")
    left = (false_alarms * (images + 1) - 1) / images  # what the calibration's share may be
    fit = np.flatnonzero(shares <= max(left, 0.0) + 1e-12)
    place = int(fit[0]) if len(fit) else len(shares) - 1
    promised = (images * float(shares[place]) + 1) / (images + 1)
    return Threshold(float(values[place]), false_alarms, promised, images)


def p_values(scores: Scores, calibration: Scores) -> NDArray[np.float64]:
    """Say how usual scores are: the share of n + 1 good images that score at least as much.

    >>> p_values(np.array([2.5, 9.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [0.5, 0.25]
    """
    ascending = np.sort(calibration)
    as_large = len(ascending) - np.searchsorted(ascending, scores, side="left")
    return np.asarray((as_large + 1) / (len(ascending) + 1), np.float64)


def drift(scores: Scores, calibration: Scores, threshold: float) -> str:
    """Say that new images are others than those calibrated on; empty where nothing tells.

    The scores below the threshold are compared, as defects are above it (Kolmogorov and Smirnov's
    two-sample test at 0.001; at least 8 images of each).

    >>> drift(np.full(20, 5.0), np.linspace(0, 1, 30), 9.0) != ""
    True
    """
    new, old = (s[s <= threshold] for s in (np.asarray(scores), np.asarray(calibration)))
    if len(new) < FEW or len(old) < FEW:
        usual = len(scores) < FEW or np.mean(scores > threshold) < 1 / 2
        return "" if usual else f"{np.mean(scores > threshold):.0%} of the images are flagged"
    if stats.ks_2samp(new, old).pvalue >= DRIFT:
        return ""
    way = "higher" if np.median(new) > np.median(old) else "lower"
    return (
        f"images that are not flagged score {way} than those calibrated on (median "
        f"{np.median(new):.4g}, then {np.median(old):.4g})"
    )


def _checked(
    scores: NDArray[np.floating], false_alarms: float, option: str = "--false-alarms"
) -> int:
    if not 0 < false_alarms < 1:
        raise InputError(
            f"{option}: expected a share between 0 and 1, as in 0.01; got {false_alarms:g}"
        )
    if not len(scores):
        raise InputError(
            "calibration: expected good images that nothing was learnt from; got none"
        )
    return len(scores)

"""Intervals for what differs between variants."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


def bootstrap(
    groups: Sequence[NDArray[np.floating]], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Estimate the 95 % percentile interval of the mean, resampling within each group.

    With one value in every group nothing can be resampled: the interval is (nan, nan).
    """
    if all(len(g) < 2 for g in groups):
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    total = sum(g[generator.integers(0, len(g), (resamples, len(g)))].sum(axis=1) for g in groups)
    means = total / sum(len(g) for g in groups)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)

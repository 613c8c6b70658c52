"""Masks and scores to measure metrics on, ties and all."""

import numpy as np
import pytest

TOLERANCE = 1e-12  # absolute: what is left to differ is rounding

# Scores as a function of (generator, truth): larger where anomalous, most of them full of ties.
SCORES = {
    "gaussian": lambda rng, truth: rng.normal(size=truth.shape) + truth,
    "float32": lambda rng, truth: (rng.normal(size=truth.shape) + truth).astype(np.float32),
    "integers": lambda rng, truth: rng.integers(0, 5, truth.shape) + truth,
    "binary": lambda rng, truth: (rng.random(truth.shape) < 0.3 + 0.4 * truth) * 1.0,
    "all equal": lambda rng, truth: np.full(truth.shape, 0.25, dtype=np.float32),
    "neighbours": lambda rng, truth: (
        np.float32(1) + np.float32(2**-23) * rng.integers(0, 4, truth.shape).astype(np.float32)
    ),
    "signed zeros": lambda rng, truth: np.copysign(
        rng.integers(0, 2, truth.shape), rng.normal(size=truth.shape)
    ),
    "wide range": lambda rng, truth: np.exp(20 * rng.normal(size=truth.shape)) * 1e-30,
    "worse than chance": lambda rng, truth: rng.integers(0, 9, truth.shape) - 3 * truth,
}
every_score = pytest.mark.parametrize("kind", SCORES)
every_seed = pytest.mark.parametrize("seed", range(4))


def close(value):
    return pytest.approx(value, rel=0, abs=TOLERANCE, nan_ok=True)


def draw_masks(rng, shape=(5, 12, 11)):
    """Rectangles of all sizes, one pixel included; they touch, overlap and leave images clean."""
    masks = np.zeros(shape, dtype=bool)
    for mask in masks[1:]:
        for _ in range(rng.integers(1, 5)):
            y, x = rng.integers(0, shape[1]), rng.integers(0, shape[2])
            mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
    return masks

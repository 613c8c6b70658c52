"""Augmented copies: drawn from the image alone, with the chances that are written down."""

from dataclasses import replace

import numpy as np
import pytest

from harness.experiment.feature_spec import FeatureSpec
from harness.features import augmentation
from harness.features.augmentation import AUGMENTATIONS, augmented, evenly_turned

SPEC = FeatureSpec(backbone="x.y", augmentation="paper", augmentation_copies=6)


def noise(seed, size=8):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_copies_depend_on_the_image_alone():
    first = augmented(noise(0), SPEC)
    assert first.shape == (6, 8, 8, 3)
    assert first.dtype == np.uint8
    augmented(noise(1), SPEC)
    assert np.array_equal(augmented(noise(0), SPEC), first)
    assert len({copy.tobytes() for copy in first}) > 1
    more = augmented(noise(0), replace(SPEC, augmentation_copies=9))
    assert np.array_equal(more[:6], first)


def test_copies_are_what_they_were():
    """Cached copies are known by their key alone: other draws would need another name."""
    spec = replace(SPEC, augmentation="flips", augmentation_copies=8)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert augmented(image, spec)[:, 0, 0, 0].tolist() == [0, 3, 0, 3, 9, 3, 0, 3]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_chances_are_those_of_the_table(name):
    """Of 4,000 copies; four deviations of a share of 4,000 draws are 0.032 at the most."""
    spec = replace(SPEC, augmentation=name, augmentation_copies=8, augmentation_degrees=180)
    shares = {"left_right": 0, "upside_down": 0, "turned": 0}
    for seed in range(500):
        image = noise(seed)
        flips = {
            (lr, ud): image[:: -1 if ud else 1, :: -1 if lr else 1].tobytes()
            for lr in (False, True)
            for ud in (False, True)
        }
        known = {pixels: both for both, pixels in flips.items()}
        for copy in augmented(image, spec):
            left_right, upside_down = known.get(copy.tobytes(), (None, None))
            shares["turned"] += left_right is None
            shares["left_right"] += bool(left_right)
            shares["upside_down"] += bool(upside_down)
    chances = AUGMENTATIONS[name]
    still = 1 - chances.turned  # flips are seen in copies that are not turned
    wanted = (still * chances.left_right, still * chances.upside_down, chances.turned)
    assert [s / 4000 for s in shares.values()] == pytest.approx(wanted, abs=0.032)


@pytest.mark.parametrize("degrees", [5.0, 180.0])
def test_angles_are_drawn_evenly_from_both_sides(monkeypatch, degrees):
    angles = []
    monkeypatch.setattr(augmentation, "_turned", lambda image, a: angles.append(a) or image)
    spec = replace(SPEC, augmentation="all-turned", augmentation_degrees=degrees)
    for seed in range(200):
        augmented(noise(seed), spec)
    assert len(angles) == 1200
    found, _ = np.histogram(np.array(angles) / degrees, bins=4, range=(-1, 1))
    assert found.sum() == 1200  # none beyond
    assert found.min() > 240  # of 300 each; four deviations are 60


def test_what_comes_into_view_is_the_image_mirrored():
    spec = replace(SPEC, augmentation="all-turned")
    white = np.full((16, 16, 3), 255, np.uint8)
    assert (augmented(white, spec) == 255).all()


def test_turned_copies_divide_the_circle():
    image = noise(0, size=16)
    eighths = evenly_turned(image, 8)
    assert eighths.shape == (7, 16, 16, 3)
    for k in (1, 2, 3):  # by quarters, counter-clockwise; Pillow rounds by one at the most
        quarter = np.rot90(image, k).astype(int)
        assert np.abs(eighths[2 * k - 1].astype(int) - quarter).max() <= 1

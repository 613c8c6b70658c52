"""Defective copies of good images: the mask is the change, colours stay, no label is needed."""

import numpy as np
import pytest

from harness.data import synthetic
from harness.data.embedded.defects import DEFECTS
from harness.data.synthetic import object_of, with_defect


def surface(seed, height=96, width=96):
    """Coloured noise with some structure."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 190, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.rint(coarse + rng.normal(0, 8, coarse.shape)).clip(0, 255).astype(np.uint8)


def before_a_background(seed, side=128):
    """A coloured, structured bar on white that takes a tenth of the image."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 230, np.uint8)
    row, column = rng.integers(20, side - 45), rng.integers(12, 30)
    bar = surface(seed, 24, 72)
    image[row : row + 24, column : column + 72] = np.minimum(bar, 180)
    return image


IMAGES = [
    *(surface(seed) for seed in range(12)), surface(12, 64, 128), surface(13, 128, 48),
    *(before_a_background(seed) for seed in range(12)),
    np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 7, np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("image", IMAGES, ids=range(len(IMAGES)))
def test_the_mask_is_exactly_where_pixels_changed_and_all_of_it_can_be_seen(image):
    before = image.copy()
    drawn, mask = with_defect(image)
    np.testing.assert_array_equal(image, before)  # which is left as it is
    assert (drawn.dtype, drawn.shape, mask.shape) == (np.uint8, image.shape, image.shape[:2])
    np.testing.assert_array_equal(mask, (drawn != image).any(2))
    assert synthetic.LEAST <= mask.mean() < 0.5
    change = np.abs(drawn.astype(int) - image)
    assert (change.max(2)[mask] >= synthetic.VISIBLE).all()


@pytest.mark.parametrize("image", IMAGES[:14], ids=range(14))
def test_colours_are_kept(image):
    drawn, mask = with_defect(image)
    change = (drawn.astype(int) - image)[mask & ((drawn > 0) & (drawn < 255)).all(2)]
    assert change.size
    assert (np.ptp(change, axis=1) == 0).all()  # every channel moves by the same, unless clipped


def test_a_copy_is_a_function_of_the_pixels():
    one, again = with_defect(IMAGES[0]), with_defect(IMAGES[0].copy())
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = IMAGES[0].copy()
    other[0, 0, 0] ^= 1
    assert (with_defect(other)[1] != one[1]).any()


def test_the_pixels_of_this_version():
    """Golden: a change here is a new VERSION."""
    drawn = with_defect(
        np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    )
    assert synthetic.VERSION == 1
    assert (int(drawn[1].sum()), int(drawn[0].astype(int).sum())) == (123, 1531555)


def test_defects_lie_on_the_object():
    for seed in range(40):
        image = before_a_background(seed)
        found = object_of(image)
        assert found.sum() == pytest.approx(24 * 72, rel=0.05)
        _, mask = with_defect(image)
        assert found[mask].mean() >= synthetic.ON_OBJECT


def test_a_texture_is_surface_everywhere():
    assert all(object_of(image).all() for image in IMAGES[:14])
    rows = [np.argwhere(with_defect(surface(seed))[1]).mean(0) for seed in range(60)]
    assert np.ptp(rows, axis=0).min() > 40  # of 96 pixels: not in the middle alone


def test_every_kind_is_drawn_from_faint_to_plain():
    assert synthetic.STRENGTHS.keys() == DEFECTS.keys()
    changes = [
        np.abs(drawn.astype(int) - image)[mask].mean()
        for image in map(surface, range(60))
        for drawn, mask in [with_defect(image)]
    ]
    assert max(changes) > 5 * min(changes)

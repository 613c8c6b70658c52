"""Windows of tiles: all of a photo, and nothing beside it."""

import numpy as np
import pytest
from PIL import Image

from harness.data.contract import Category, Sample
from harness.data.tiles import MAP_SIDE, map_shape, tiled, windows
from harness.experiment.feature_spec import FeatureSpec


@pytest.mark.parametrize("seed", range(40))
def test_windows_cover_every_pixel_and_are_inside(seed):
    rng = np.random.default_rng(seed)
    width, height, tile = (int(n) for n in rng.integers(1, 90, 3))
    overlap = float(rng.choice([0, 0.1, 0.25, 0.5, 0.9]))
    seen = np.zeros((height, width), int)
    found = windows((width, height), tile, overlap)
    for window in found:
        assert min(window) >= 0
        assert window.right <= width
        assert window.bottom <= height
        assert window.size == (min(tile, width), min(tile, height))
        seen[window.top : window.bottom, window.left : window.right] += 1
    assert seen.all()
    assert len(set(found)) == len(found)
    steps = np.diff(sorted({w.left for w in found}))
    assert (steps <= max(1, tile * (1 - overlap))).all()


def test_a_map_is_bounded_and_never_finer_than_the_photo_or_its_tiles():
    assert max(map_shape((9000, 100), 512, 256)) == MAP_SIDE
    assert map_shape((100, 80), 40, 256) == (80, 100)
    assert map_shape((100, 80), 40, (10, 20)) == (40, 50)
    assert map_shape((100, 80), 400, 50) == (40, 50)  # fitted whole
    assert map_shape((9000, 1), 512, 256) == (1, MAP_SIDE)


def test_tiles_show_their_part_of_image_and_mask(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    mask = np.zeros((50, 70), np.uint8)
    mask[30:40, 50:60] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    photo = Sample(tmp_path / "a.png", "cut", (tmp_path / "m.png",))
    category = Category("mine", "plate", train=(photo,), test=(photo,))
    spec = FeatureSpec(backbone="resnet18.tv_in1k", tile_size=32, tile_overlap=0.0)
    tiles = tiled(category, spec).test
    assert len(tiles) == 6
    for tile in tiles:
        left, top, right, bottom = tile.window
        np.testing.assert_array_equal(np.asarray(tile.image()), pixels[top:bottom, left:right])
        np.testing.assert_array_equal(tile.defective(), mask[top:bottom, left:right] > 0)
        assert tile.facts().size == (32, 32)
    Image.fromarray(255 - pixels).convert("L").save(tmp_path / "a.png")  # another photo there
    assert np.asarray(tiles[0].image()).std(2).max() == 0

"""Where a photo lies in an input: boxes by pencil, and masks that follow their images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.contract import Sample, read_image, read_mask
from harness.data.fitting import FITS
from harness.data.frame import Box, boxes_of, interior
from harness.data.motion import Motion

WIDE, TALL = (1260, 500), (500, 1260)  # (width, height)


def saved(path: Path, pixels) -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "input_size", "box"),
    [
        (TALL, 256, (0, 77, 256, 179)),  # 256 · 500 / 1260 = 101.6
        (WIDE, 256, (77, 0, 179, 256)),
        ((64, 64), 256, (0, 0, 256, 256)),
        ((3, 2), (33, 65), (0, 7, 33, 57)),  # 49.5, to the even; 7 columns left, 8 right
        ((640, 256), (256, 640), (0, 0, 256, 640)),
        ((5000, 1), 64, (31, 0, 32, 64)),  # never nothing
    ],
)
def test_the_longer_side_fits_and_the_image_is_centred(size, input_size, box):
    assert interior(size, input_size, "pad") == box


@pytest.mark.parametrize("resize", ["square", "crop"])
def test_elsewhere_the_photo_is_everywhere(resize):
    assert interior(TALL, (32, 64), resize) == (0, 0, 32, 64)


def test_pad_is_the_stretched_photo_in_its_box_mirrored_around(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (31, 67, 3), np.uint8)
    image = read_image(saved(tmp_path / "x.png", pixels), 67, "pad")
    assert (image[18:49] == pixels).all()
    assert (image[:18] == pixels[:18][::-1]).all()
    assert (image[49:] == pixels[13:][::-1]).all()


@pytest.mark.parametrize("size", [(45, 71), (71, 45), (64, 64), (21, 200)])
@pytest.mark.parametrize("input_size", [64, (48, 97)])
@pytest.mark.parametrize("resize", FITS)
def test_a_mask_lies_on_its_image(tmp_path, size, input_size, resize):
    """What is white in an image is what its mask says, but for the pixels on its outline."""
    drawn = np.zeros(size, np.uint8)
    drawn[size[0] // 3 : 2 * size[0] // 3, size[1] // 4 : size[1] // 2] = 255
    path = saved(tmp_path / "x.png", drawn)
    image, mask = read_image(path, input_size, resize)[..., 0], read_mask(path, input_size, resize)
    box = interior(size[::-1], input_size, resize)
    assert mask.any()
    inside = np.zeros_like(mask)
    inside[box.rows, box.columns] = True
    assert not mask[~inside].any()
    assert mask[(image > 191) & inside].all()
    assert not mask[image < 64].any()


def test_pad_of_what_fits_is_square(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    sample = Sample(saved(tmp_path / "x.png", pixels))
    assert (read_image(sample, 33, "pad") == read_image(sample, 33, "square")).all()
    assert boxes_of([sample], 33, "pad") is None
    assert boxes_of([sample], (33, 40), "pad") == [(0, 3, 33, 36)]
    assert boxes_of([sample], (33, 40), "square") is None


def test_crop_covers_a_rectangle(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (512, 1))
    image = read_image(saved(tmp_path / "x.png", ramp), (448, 224), "crop")
    assert (image[..., 0] == ramp[32:480, 16:240]).all()
    wide = read_image(tmp_path / "x.png", (112, 224), "crop")  # 512 high: the middle is left
    assert (wide[..., 0] == ramp[:112, 16:240]).all()


@pytest.mark.parametrize(
    ("box", "grid", "positions"),
    [
        ((64, 0, 192, 256), (8, 8), (2, 0, 6, 8)),
        ((77, 0, 179, 256), (8, 8), (2, 0, 6, 8)),  # centres 16, 48, 80, …: those in [77, 179)
        ((80, 0, 81, 256), (8, 8), (2, 0, 3, 8)),
        ((100, 0, 104, 256), (8, 8), (3, 0, 4, 8)),  # no centre: where its middle is
        ((0, 0, 256, 256), (7, 9), (0, 0, 7, 9)),
        ((255, 0, 256, 256), (8, 8), (7, 0, 8, 8)),
    ],
)
def test_positions_have_their_centre_in_the_box(box, grid, positions):
    assert Box(*box).positions((256, 256), grid) == positions


@pytest.mark.parametrize("shape", [(20, 100), (100, 20), (33, 64)])
@pytest.mark.parametrize("angle", [30.0, 45.0, 90.0, 180.0])
def test_what_comes_into_view_of_a_long_frame_is_the_image_mirrored(shape, angle):
    white = Image.fromarray(np.full((*shape, 3), 255, np.uint8))
    moved = Motion(angle, 0.9, right=0.05, down=0.05).move(white, Image.Resampling.BILINEAR)
    assert np.asarray(moved).shape == (*shape, 3)
    assert (np.asarray(moved) == 255).all()

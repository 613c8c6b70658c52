"""Every kind of image file and mask, fitted by every rule."""

import numpy as np
import pytest
from PIL import Image

from harness.data import images
from harness.data.contract import Sample, read_image, read_mask
from harness.data.facts import facts_of
from harness.data.images import SUFFIXES, unread
from harness.errors import InputError

GREY = np.full((8, 8), 100, np.uint8)
COLOUR = np.dstack([GREY, GREY // 2, GREY * 2])


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    "suffix", ["png", "bmp", "tif", "webp", "jpg", "jfif", "gif", "ppm", "avif"]
)
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_formats(tmp_path, suffix, array):
    best = {"quality": 100, "subsampling": 0}
    options = {"webp": {"lossless": True}, "jpg": best, "jfif": best, "avif": {"quality": 100}}
    path = saved(tmp_path / f"x.{suffix}", array, **options.get(suffix, {}))
    expected = np.dstack([array] * 3) if array.ndim == 2 else array
    assert np.abs(read_image(path, 8).astype(int) - expected).max() <= 2 * (suffix in options)
    assert facts_of(path).size == (8, 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 30000, 65535]] * 4, np.uint16)
    image = read_image(saved(tmp_path / f"x.{suffix}", values), 4)
    assert image[0, :, 0].tolist() == [0, 1, round(30000 / 257), 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_32_bits_are_refused(tmp_path, kind):
    path = saved(tmp_path / "x.tif", np.zeros((4, 4), kind))
    with pytest.raises(InputError, match=r"x\.tif: expected 8 or 16 bits a channel; got"):
        read_image(path, 4)


def test_what_is_transparent_shows_black(tmp_path):
    rgba = np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    image = read_image(saved(tmp_path / "x.png", rgba), 8)
    assert not image[:4].any()
    assert (image[4:] == COLOUR[4:]).all()


def test_a_palette_is_its_colours(tmp_path):
    Image.fromarray(COLOUR).quantize(4).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png", 8) == COLOUR).all()


def test_exif_turns_image_and_size(tmp_path):
    wide = np.zeros((8, 16), np.uint8)
    wide[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    path = saved(tmp_path / "x.png", wide, exif=exif)
    assert facts_of(path).size == (8, 16)
    image = read_image(path, 16)[..., 0]
    assert (image[:7] == 255).all()
    assert (image[9:] == 0).all()


def test_crop_is_the_centre_of_256_over_224(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    image = read_image(saved(tmp_path / "x.png", ramp), 224, "crop")
    assert (image[..., 0] == ramp[16:240, 16:240]).all()
    wide = saved(tmp_path / "y.png", np.tile(ramp, 2))
    assert read_image(wide, 224, "crop")[0, 0, 0] == 144  # 512 wide: 144 are cut from the left


def test_mask_follows_the_crop(tmp_path):
    values = np.zeros((256, 512), np.uint8)
    values[16:26, 144:154] = 1
    path = saved(tmp_path / "m.png", values)
    mask = read_mask(path, 224, "crop")
    assert mask.sum() == 100
    assert mask[:10, :10].all()


def test_covered_counts_only_what_is_covered_whole(tmp_path):
    values = np.zeros((32, 32), np.uint8)
    values[:, :19] = 1
    path = saved(tmp_path / "m.png", values)
    # Four columns to one: nearest looks at columns 2, 6, …, 18; bilinear at 4 on either side.
    assert read_mask(path, 8, rule="nearest").all(axis=0).sum() == 5
    assert read_mask(path, 8, rule="covered").any(axis=0).sum() == 4


def test_a_truncated_file_is_found(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    noise[20:40] = 0  # a file cut in the middle of black is truncated too
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        path = saved(tmp_path / f"x.{suffix}", noise)
        facts_of(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"x\.{suffix}: expected an image; it cannot be"):
            facts_of(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_damage_before_a_whole_end_is_found(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    options = {"compression": "tiff_adobe_deflate"} if suffix == "tif" else {}
    path = saved(tmp_path / f"x.{suffix}", noise, **options)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        whole[:middle] + bytes(20) + whole[middle + 20 :],
        whole[:middle] + whole[-12:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"x\.{suffix}: expected an image; it cannot be"):
            facts_of(path)


def test_what_follows_the_end_of_a_jpeg_is_harmless(tmp_path):
    path = saved(tmp_path / "x.jpg", GREY)
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert facts_of(path).format == "JPEG"
    assert read_image(Sample(path), 8).shape == (8, 8, 3)


def test_other_formats_are_not_tried(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.tga")
    (tmp_path / "x.tga").rename(tmp_path / "x.png")
    with pytest.raises(InputError, match="its content is no PNG, JPEG, BMP, TIFF, WebP, GIF"):
        read_image(tmp_path / "x.png", 8)


@pytest.mark.parametrize("content", [b"<html></html>", bytes(100), b"GIF89a", b"P5 4 4", b"\xff"])
def test_what_only_has_the_name_of_an_image_is_refused(tmp_path, content):
    (tmp_path / "x.gif").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.gif: expected an image; it cannot be read \(.+\)"):
        facts_of(tmp_path / "x.gif")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", "avif"])
def test_of_several_pictures_the_first_is_read(tmp_path, suffix):
    pictures = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (100, 200, 0)]
    path = tmp_path / f"x.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    assert facts_of(path).pictures == 3
    assert np.abs(read_image(path, 8).astype(int) - 100).max() <= 2
    pictures[0].save(path)
    facts = facts_of(path)
    assert facts.pictures == 1


def test_damage_behind_the_first_picture_is_harmless(tmp_path):
    pictures = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (100, 200)]
    path = tmp_path / "x.tif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    path.write_bytes(path.read_bytes()[:-20])
    assert (read_image(path, 8) == 100).all()
    assert facts_of(path).pictures >= 1


def test_every_suffix_is_read_or_said_not_to_be():
    assert unread(".HEIC") == "" or "pip install 'fastflow-harness[heic]'" in unread(".HEIC")
    assert {".png", ".jpg", ".jpeg", ".tif", ".webp", ".gif", ".pgm", ".avif"} <= SUFFIXES
    assert not any(unread(suffix) for suffix in (*SUFFIXES, "", ".json", ".txt", ".csv", ".PNG"))
    for suffix in (".NEF", ".dng", ".jp2", ".psd", ".svg", ".tga"):
        assert unread(suffix).endswith("(export it as PNG or TIFF)")


def test_heic(tmp_path):
    """Read where the extra is there, turned as it is shown, whatever the file's name."""
    heif = pytest.importorskip("pillow_heif")
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, :64] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"  # as telephones send it
    heif.from_pillow(Image.fromarray(wide)).save(path, exif=exif.tobytes(), quality=90)
    facts = facts_of(path)
    assert (facts.format, facts.size) == ("HEIF", (64, 128))
    image = read_image(path, 128)[..., 0]
    assert image[:60].min() > 200
    assert image[68:].max() < 50
    assert ".heic" in SUFFIXES
    assert not unread(".heic")


def test_heic_without_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_formats", lambda: images.FORMATS)
    monkeypatch.setattr(images, "unread", lambda suffix: f"{suffix} needs the extra")
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(InputError, match=r"it cannot be read \(\.heic needs the extra\)"):
        facts_of(tmp_path / "x.jpg")

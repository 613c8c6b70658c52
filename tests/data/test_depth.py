"""Images of 16 bits: what is white is decided once for a category; colours lose no levels."""

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from harness.data.check import check
from harness.data.contract import Sample, make_category, read_image
from harness.data.disturbed import Disturbed
from harness.data.facts import facts_of
from harness.data.images import open_image, to_rgb
from harness.errors import InputError

SET = SimpleNamespace(name="mine", layout="folder")


def category(folder, **most):
    """A category of images of noise up to a value: ``train``, ``good``, ``bad``."""
    rng = np.random.default_rng(0)
    for name, value in most.items():
        pixels = rng.integers(0, value, (8, 8), dtype=np.uint16, endpoint=True)
        pixels[0, 0] = value
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return of_files(folder, *(f"{name}.png" for name in most))


def of_files(folder, train, *test):
    dataset = SimpleNamespace(**vars(SET), root=folder)
    tested = [Sample(folder / n, "bad" if n.startswith("bad") else "good") for n in test]
    return make_category(dataset, "bolt", [Sample(folder / train)], tested, folder)


@pytest.mark.parametrize(
    ("most", "bits"), [(255, 8), (256, 10), (1023, 10), (4000, 12), (4096, 14), (16384, 16)]
)
def test_the_brightest_of_all_images_decides(tmp_path, most, bits):
    found = category(tmp_path, train=200, good=most, bad=90)
    assert found.bits == bits
    assert found.form == "PNG 8x8" + f", {bits} of 16 bits" * (bits < 16)
    assert found.about()["form"] == found.form
    white = 2**bits - 1
    image = read_image(found.test[0], 8)[..., 0]
    stored = np.asarray(Image.open(found.test[0].path)).astype(float)
    assert (image == np.rint(stored * 255 / white)).all()
    dark = read_image(found.train[0], 8)[0, 0, 0]  # of the same white, so that it stays darker
    assert dark == round(200 * 255 / white)


def test_limited_moved_and_sent_to_another_process_it_stays(tmp_path):
    found = category(tmp_path, train=200, good=100, bad=4000)
    image = read_image(found.test[0], 8)
    few = replace(found, test=found.test[:1])  # without the image that decides
    assert few.bits == found.limited(1).bits == 12
    inner = SimpleNamespace(name="mine", layout="folder", load=lambda name: found)
    moved = Disturbed(inner=inner, rotation=0, zoom=0, shift=0).load("bolt")
    assert (read_image(moved.test[0], 8) == image).all()
    sent = pickle.dumps(found)
    for file in tmp_path.iterdir():
        if file.name != "good.png":
            file.unlink()  # it was decided before: nothing is read again
    assert (read_image(pickle.loads(sent).test[0], 8) == image).all()


def test_the_digest_says_what_is_white(tmp_path):
    """So that cached features and records of one white are not taken for those of another."""
    found = category(tmp_path, train=200, good=100, bad=4000)
    few = replace(found, test=found.test[:1])
    alone = of_files(tmp_path, "train.png", "good.png")
    assert (few.bits, alone.bits) == (12, 8)
    assert few.digest != alone.digest
    whole = of_files(tmp_path, "train.png", "good.png", "bad.png")
    plain = replace(whole, **{s: tuple(replace(i, depth=None) for i in getattr(whole, s))
                              for s in ("train", "test")})  # fmt: skip
    assert plain.digest != whole.digest
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "bad.png")
    bright = of_files(tmp_path, "train.png", "good.png", "bad.png")
    plain = replace(bright, **{s: tuple(replace(i, depth=None) for i in getattr(bright, s))
                               for s in ("train", "test")})  # fmt: skip
    assert plain.digest == bright.digest  # of all 16 bits: as ever


def test_it_is_said(tmp_path):
    found = check(category(tmp_path, train=200, good=100, bad=4000))
    assert [str(r) for r in found] == ["3 files using 12 of 16 bits: 4095 is white, as bad.png"]
    assert found[0].files == ("bad.png", "good.png", "train.png")
    assert check(category(tmp_path, train=65535, good=100, bad=4000)) == []


def test_images_of_8_bits_beside_them_stay(tmp_path):
    category(tmp_path, train=200, bad=4000)
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "good.png")
    found = of_files(tmp_path, "train.png", "good.png", "bad.png")
    assert (read_image(found.test[0], 8) == 100).all()
    assert len(check(found)[0].files) == 2


GREY = np.array([[0, 1000, 4095, 4000]] * 4, np.uint16)
SCALED = [0, 62, 255, 249]


def pgm(maxval, pixels=GREY):
    return b"P5 4 4 %d\n" % maxval + pixels.astype(">u2").tobytes()


WRITERS = {
    "png": lambda path: Image.fromarray(GREY).save(path),
    "little.tif": lambda path: tifffile.imwrite(path, GREY, byteorder="<"),
    "big.tif": lambda path: tifffile.imwrite(path, GREY, byteorder=">"),
    "packed.tif": lambda path: tifffile.imwrite(path, GREY, byteorder=">", compression="zlib"),
    "pgm": lambda path: path.write_bytes(pgm(65535)),
    "declared.pgm": lambda path: path.write_bytes(pgm(4095)),
    "plain.pgm": lambda path: path.write_text(f"P2 4 4 4095 {' '.join(map(str, GREY.flat))}"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_of_16_bits(tmp_path, name):
    path = tmp_path / f"x.{name}"
    WRITERS[name](path)
    found = of_files(tmp_path, path.name, path.name)
    assert read_image(found.test[0], 4)[0, :, 0].tolist() == SCALED
    declared = name in ("declared.pgm", "plain.pgm")  # Pillow scales it to all 16 bits
    assert found.bits == (16 if declared else 12)


def test_a_dark_image_whose_file_says_what_is_white_stays_dark(tmp_path):
    (tmp_path / "x.pgm").write_bytes(pgm(4095, GREY // 64))
    found = of_files(tmp_path, "x.pgm", "x.pgm")
    assert read_image(found.test[0], 4)[0, :, 0].tolist() == [0, 1, 4, 4]


def colours(most):
    pixels = np.random.default_rng(1).integers(0, most, (8, 8, 3), dtype=np.uint16)
    pixels[0, 0] = most
    return pixels


def ppm(path, pixels):
    path.write_bytes(b"P6 8 8 65535\n" + pixels.astype(">u2").tobytes())


COLOURS = {
    "tif": lambda path, pixels: tifffile.imwrite(path, pixels, photometric="rgb"),
    "zip.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels, photometric="rgb", compression="zlib", byteorder=">"
    ),
    "planes.tif": lambda path, pixels: tifffile.imwrite(
        path, np.moveaxis(pixels, 2, 0).copy(), photometric="rgb", planarconfig="separate",
        compression="zlib",
    ),
    "ppm": ppm,
}  # fmt: skip


@pytest.mark.parametrize("kind", COLOURS)
def test_colours_that_would_lose_their_levels_are_refused(tmp_path, kind):
    names = [f"{i}.{kind}" for i in range(2)]
    for most, name in zip((1000, 16383), names, strict=True):
        COLOURS[kind](tmp_path / name, colours(most))
    with pytest.raises(InputError, match=r"save them with 8 bits a channel") as caught:
        check(of_files(tmp_path, *names))
    assert "the highest in the 2 such images of bolt is 6" in str(caught.value)
    COLOURS[kind](tmp_path / names[1], colours(65535))  # one that uses them shows what white is
    assert check(of_files(tmp_path, *names)) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_dark_colours_of_8_bits_are_dark(tmp_path, mode):
    for i in range(2):
        Image.new(mode, (8, 8), (i, 2, 3, 255)[: len(mode)]).save(tmp_path / f"{i}.png")
    assert check(of_files(tmp_path, "0.png", "1.png")) == []


def test_what_pillow_would_read_as_something_else_is_refused(tmp_path):
    white = tmp_path / "white.tif"
    tifffile.imwrite(white, GREY, photometric="miniswhite")
    with pytest.raises(InputError, match=r"white\.tif: .* a TIFF with zero as white; save it"):
        facts_of(white)
    planes = tmp_path / "planes.tif"
    tifffile.imwrite(
        planes, np.zeros((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate"
    )
    with pytest.raises(InputError, match=r"each colour in a plane of its own"):
        facts_of(planes)


def saved(path, array, **options):
    tifffile.imwrite(path, array, photometric="minisblack", **options)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (np.float32, "mode F"), (np.int32, "mode I"), (np.uint32, "mode I"), (np.int16, "mode I"),
        (np.float16, "a TIFF of a kind that is not read"),
        (np.float64, "a TIFF of a kind that is not read"),
    ],
)  # fmt: skip
def test_numbers_without_a_known_white_are_refused_before_anything_runs(tmp_path, kind, reason):
    saved(tmp_path / "0.tif", GREY.astype(np.uint8))
    saved(tmp_path / "1.tif", GREY.astype(kind))
    with pytest.raises(InputError, match=rf"1\.tif: expected .*{reason}"):
        check(of_files(tmp_path, "0.tif", "1.tif"))


def test_every_mode_of_pillow_becomes_rgb_or_is_refused_by_name():
    """What Pillow calls a mode and cannot convert would be a traceback in the middle of a run."""
    for mode in (*Image.MODES, "La", "PA", "RGBX", "RGBa", "I;16", "I;16B", "I;16L"):
        image = Image.new(mode, (2, 2))
        if mode in ("I", "F"):
            with pytest.raises(InputError, match=f"x.png: .* mode {mode}"):
                to_rgb(image, Path("x.png"))
        else:
            assert to_rgb(image, Path("x.png")).mode == "RGB"


def test_what_pillow_cannot_convert_is_named():
    class Odd:
        mode, has_transparency_data = "LAB", False

        def convert(self, mode):
            raise ValueError("conversion not supported")

    with pytest.raises(InputError, match=r"x.png: .* mode LAB \(conversion not supported\); save"):
        to_rgb(Odd(), Path("x.png"))


def test_grey_with_its_transparency_multiplied_in(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, np.full((4, 4, 2), 100, np.uint8), photometric="minisblack",
        planarconfig="contig", extrasamples=["assocalpha"],
    )  # fmt: skip
    assert open_image(path).mode == "La"
    assert np.abs(read_image(path, 4).astype(int) - 100).max() <= 1

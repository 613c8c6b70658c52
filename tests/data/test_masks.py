"""What of a mask is a defect: black and white, numbers of kinds, colours, labelme's shapes."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from harness.data import labelme
from harness.data.facts import mask_facts_of
from harness.data.images import read_defects
from harness.errors import InputError

HALF = "holding other mask values than 0 and one more: a pixel is a defect from half the white on"
KINDS = "holding other mask values than 0 and one more: a pixel is a defect if it is not zero"


def row(values, kind=np.uint8):
    return np.array([values], kind)


def rgb(*colours):
    return np.array([colours], np.uint8)


# stored values, of which are a defect, what is said
CASES = {
    "black and white": (row([0, 255, 255]), "011", ""),
    "half": (row([0, 128, 128]), "011", ""),
    "one bit": (row([0, 1, 1], bool), "011", ""),
    "smoothed edge": (row([0, 60, 127, 128, 255]), "00011", HALF),
    "numbers": (row([0, 1, 2, 3]), "0111", KINDS),
    "one number": (row([0, 7, 7]), "011", ""),
    "numbers and white": (row([0, 1, 255]), "001", HALF),
    "background of one": (row([1, 1, 255]), "001", HALF),
    "all white": (row([255, 255]), "11", HALF),
    "black": (row([0, 0]), "00", ""),
    "16 bits": (row([0, 65535], np.uint16), "01", ""),
    "16 bits smoothed": (row([0, 32767, 32768, 65535], np.uint16), "0011", HALF),
    "16 bits numbers": (row([0, 1, 300], np.uint16), "011", KINDS),
    "16 bits, 12 used": (row([0, 4095, 4095], np.uint16), "011", ""),
    "32 bits numbers": (row([0, 1, 2], np.int32), "011", KINDS),
    "32 bits white": (row([0, 100, 255], np.int32), "001", HALF),
    "fractions": (row([0, 0.3, 1], np.float32), "001", HALF),
    "fraction one": (row([0, 1, 1], np.float32), "011", ""),
    "fraction to 255": (row([0, 90, 255], np.float32), "001", HALF),
    "no number": (row([0, np.nan, 1], np.float32), "001", ""),
    "colour": (rgb((0, 0, 0), (0, 0, 255)), "01", ""),
    "colour smoothed": (rgb((0, 0, 0), (60, 0, 0), (200, 0, 0)), "001", HALF),
    "colour faint": (rgb((0, 0, 0), (0, 0, 1)), "01", ""),
    "transparent": (np.array([[(255, 255, 255, 0), (255, 0, 0, 255)]], np.uint8), "01", ""),
    "hardly visible": (np.array([[(0, 0, 0, 255), (255, 0, 0, 1)]], np.uint8), "01", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_lossless(tmp_path, name):
    values, defects, said = CASES[name]
    path = tmp_path / "m.tif"
    Image.fromarray(values).save(path)
    assert read_defects(path).tolist() == [[c == "1" for c in defects]]
    facts = mask_facts_of(path)
    assert (facts.odd, facts.share) == (said, defects.count("1") / len(defects))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[0].dtype == np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_in_either_order(tmp_path, name, order):
    values, defects, _ = CASES[name]
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, values, byteorder=order, photometric="minisblack")
    assert read_defects(path).tolist() == [[c == "1" for c in defects]]


def palette(*colours):
    image = Image.fromarray(np.arange(len(colours), dtype=np.uint8)[None])
    image.putpalette([c for colour in colours for c in colour])
    return image


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_of_colours_is_kinds_one_of_greys_is_not(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    palette((0, 0, 0), (60, 0, 0), (0, 255, 0)).save(path)  # as of VOC: some colours are dark
    assert read_defects(path).tolist() == [[False, True, True]]
    assert mask_facts_of(path).odd == KINDS
    palette((0, 0, 0), (60, 60, 60), (255, 255, 255)).save(path)
    assert read_defects(path).tolist() == [[False, False, True]]


LOSSY = {
    "jpg": {"quality": 90},
    "webp": {"quality": 80},
    "tif": {"compression": "jpeg", "quality": 90},
}


@pytest.mark.parametrize("suffix", LOSSY)
def test_a_lossy_mask_is_as_large_as_it_was_drawn(tmp_path, suffix):
    drawn = Image.new("L", (128, 128))
    ImageDraw.Draw(drawn).line((10, 30, 100, 90), fill=255, width=3)
    path = tmp_path / f"m.{suffix}"
    drawn.save(path, **LOSSY[suffix])
    true = np.asarray(drawn) > 0
    assert np.asarray(Image.open(path).convert("L")).astype(bool).sum() > 1.5 * true.sum()
    assert 0.9 < read_defects(path).sum() / true.sum() < 1.1
    assert mask_facts_of(path).odd == HALF
    numbers = Image.fromarray(np.where(true, 40, 0).astype(np.uint8))
    numbers.save(path, **LOSSY[suffix])
    assert not read_defects(path).any()
    assert "lossy and nowhere white" in mask_facts_of(path).odd


def test_a_lossless_webp_keeps_its_numbers(tmp_path):
    path = tmp_path / "m.webp"
    Image.fromarray(rgb((0, 0, 0), (1, 1, 1))).save(path, lossless=True)
    assert read_defects(path).tolist() == [[False, True]]


SQUARE = [[2, 2], [5, 2], [5, 5], [2, 5]]


def shape(kind, points, **more):
    return {"label": "dent", "shape_type": kind, "points": points, **more}


def png(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def drawing(*shapes, width=20, height=16, **more):
    return {"imageWidth": width, "imageHeight": height, "shapes": list(shapes), **more}


def written(folder, content):
    path = folder / "0.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


BLOCK = (slice(2, 6), slice(2, 6))
SHAPES = {
    "polygon": (shape("polygon", SQUARE), BLOCK),
    "without a type": (shape(None, SQUARE), BLOCK),
    "rectangle": (shape("rectangle", [[2, 2], [5, 5]]), BLOCK),
    "rectangle from its end": (shape("rectangle", [[5, 2], [2, 5]]), BLOCK),
    "oriented rectangle": (shape("oriented_rectangle", SQUARE), BLOCK),
    "mask": (shape("mask", [[2, 2], [5, 5]], mask=png(np.ones((4, 4), np.uint8))), BLOCK),
    "mask of truth": (shape("mask", [[2, 2], [5, 5]], mask=png(np.ones((4, 4), bool))), BLOCK),
    "beyond the border": (shape("rectangle", [[-9, -9], [99, 99]]), (slice(None), slice(None))),
    "background": (shape("polygon", SQUARE) | {"label": "_background_"}, (slice(0), slice(0))),
}


@pytest.mark.parametrize("name", SHAPES)
def test_labelme(tmp_path, name):
    drawn, where = SHAPES[name]
    expected = np.zeros((16, 20), bool)
    expected[where] = True
    path = written(tmp_path, drawing(drawn))
    assert (read_defects(path) == expected).all()
    facts = mask_facts_of(path)
    assert (facts.size, facts.format, facts.odd) == ((20, 16), "labelme", "")


@pytest.mark.parametrize(
    ("kind", "points", "pixels"),
    [("circle", [[10, 8], [13, 8]], 37), ("point", [[10, 8]], 97), ("points", [[10, 8]], 97),
     ("line", [[0, 8], [19, 8]], 200), ("linestrip", [[0, 8], [9, 8], [19, 8]], 200)],
)  # fmt: skip
def test_labelme_draws_round_and_thin_shapes_as_its_export(tmp_path, kind, points, pixels):
    defects = read_defects(written(tmp_path, drawing(shape(kind, points))))
    assert defects.sum() == pytest.approx(pixels, rel=0.1)
    assert defects[8, 10]


def test_labelme_has_every_shape(tmp_path):
    both = drawing(shape("polygon", SQUARE), shape("rectangle", [[10, 10], [11, 11]]))
    assert read_defects(written(tmp_path, both)).sum() == 16 + 4
    assert read_defects(written(tmp_path, drawing())).sum() == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("\0", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ([1], "no list of shapes"),
        ({"images": [], "annotations": []}, "no list of shapes"),  # COCO
        ({"shapes": []}, "an image of NonexNone pixels"),
        (drawing(width=0), "an image of 0x16"),
        (drawing(width=True), "an image of Truex16"),
        (drawing("x"), "shape 1"),
        (drawing(shape("blob", SQUARE)), "shape 1: shape_type 'blob'; known are polygon"),
        (drawing(shape("polygon", SQUARE[:2])), "shape 1: 2 points of a polygon, which has 3"),
        (drawing(shape("polygon", [])), "shape 1: 0 points"),
        (drawing(shape("polygon", [[1], [2], [3]])), "shape 1: "),
        (drawing(shape("polygon", [["a", "b"]] * 3)), "shape 1: "),
        (drawing(shape("circle", [[0, 0], [float("nan"), 0]])), "nowhere near the image"),
        (drawing(shape("circle", [[0, 0], [1e300, 0]])), "nowhere near the image"),
        (drawing({"label": "dent"}), "shape 1: 'points'"),
        (drawing(shape("mask", SQUARE)), "shape 1: 'mask'"),
        (drawing(shape("mask", SQUARE, mask="AAAA")), "shape 1: cannot identify"),
    ],
)
def test_bad_labelme(tmp_path, content, reason):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=r"0\.json: expected labelme's imageWidth") as caught:
        labelme.defects(path, path.read_bytes())
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labelme_of_too_many_pixels(tmp_path):
    path = written(tmp_path, drawing(width=10**6, height=10**6))
    with pytest.raises(InputError, match=r"expected at most .* million pixels; got 1000000 ×"):
        labelme.defects(path, path.read_bytes())


def test_labelme_of_another_encoding(tmp_path):
    path = tmp_path / "0.json"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="expected labelme's"):
        read_defects(path)

"""A region of interest: what it reads, what it refuses, and that nothing outside it counts."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY

from harness.data.frame import Box
from harness.detect.detector import Detector
from harness.detect.parts import DetectorFile, Levels
from harness.detect.region import Interest, interest_tensors, read_interest, refuse_whole_scores
from harness.errors import InputError
from harness.experiment.record import Weights
from harness.features.backbone import Backbone
from harness.run.model import make_model


def detector(variant, interest=None):
    """One that has learnt nothing: scores of any kind do here."""
    torch.manual_seed(0)
    backbone = Backbone(variant.backbone, taps=variant.taps, image_size=variant.image_size)
    shapes = [tuple(x.shape[1:]) for x in backbone(torch.zeros(1, 3, *variant.shape))]
    about = DetectorFile(
        variant=variant.changes(), dataset="d", category="c", seed=0,
        epoch=1, shapes=shapes, weights=Weights(backbone="", source="random", sha256=""),
        data=None, bits=16,
    )  # fmt: skip
    model = make_model(variant, tuple(shapes), 0).eval()
    return Detector(about, backbone.eval(), model, None, Levels.none(), "cpu", interest)


def photo(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "change", [{}, {"resize": "pad"}, {"tile_size": 48}], ids=["square", "padded", "tiled"]
)
def test_score_and_map_are_of_the_region(change):
    one = detector(TINY.replace(image_size=32, flow_steps=1, score_map="nll", **change))
    image = photo((80, 60))
    (whole,) = one.look([image])
    one.set_interest(Interest((40, 10, 80, 50)))
    maps, scores = one.score([image])
    (look,) = one.look([image])
    np.testing.assert_array_equal(look.values, whole.values)
    assert scores[0] == look.score == np.nanmax(maps) == whole.values[look.inside].max()
    assert np.isfinite(maps).sum() == look.inside.sum()
    assert look.inside.mean() == pytest.approx(1 / 3, abs=0.05)
    assert whole.score == whole.values.max() >= look.score


def test_what_is_read(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    by_mask, by_box = Interest.read(str(tmp_path / "m.png")), Interest.read("2,1,5,3")
    np.testing.assert_array_equal(by_mask.of((8, 6)), by_box.of((8, 6)))
    for one in (by_mask, by_box):
        assert read_interest(interest_tensors(one)) == one
    assert by_mask != by_box
    assert Interest.read("2,1,500,300").of((8, 6)).sum() == 6 * 5  # what there is of it
    assert read_interest({}) is None


def test_what_is_refused(tmp_path):
    Image.new("L", (8, 6)).save(tmp_path / "black.png")
    for text, message in (
        ("5,1,5,3", "expected LEFT,TOP,RIGHT,BOTTOM"),
        ("1,2,3", "expected LEFT,TOP,RIGHT,BOTTOM"),
        ("-1,0,5,5", "expected LEFT,TOP,RIGHT,BOTTOM"),
        (str(tmp_path / "none.png"), "expected LEFT,TOP,RIGHT,BOTTOM"),
        (str(tmp_path / "black.png"), "expected a mask that is white somewhere"),
    ):
        with pytest.raises(InputError, match=message):
            Interest.read(text)
    with pytest.raises(InputError, match="a part of; got 9,0,12,3 and a photo of 8 × 6"):
        Interest((9, 0, 12, 3)).of((8, 6))
    with pytest.raises(InputError, match="a photo of the mask's size, 8 × 6; got 6 × 8"):
        Interest(mask=np.ones((6, 8), bool)).of((6, 8))
    with pytest.raises(InputError, match="at least a pixel of the map, 4 × 4"):
        Interest((1, 1, 2, 2)).on_map((400, 400), Box(0, 0, 4, 4), (4, 4), "square")
    for change in ({"method": "patchcore"}, {"test_turns": 4}):
        with pytest.raises(InputError, match="expected image scores made of maps"):
            refuse_whole_scores(TINY.replace(**change))

"""The MVTec AD layout, images and masks."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import SHARED, write_category

from harness.bundled import bundled
from harness.data.contract import Category, Sample, read_image, read_mask
from harness.data.counts import PUBLISHED_COUNTS
from harness.data.datasets import open_dataset
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.errors import InputError
from harness.experiment.store import read_records


def test_counts_labels_and_masks(data):
    dataset = MvtecAd(data)
    assert dataset.categories() == ("left", "right")
    category = dataset.load("left")
    assert category.counts() == {"train": 8, "test": 8, "defective": 4, "masks": 4}
    assert [s.label for s in category.test] == [1] * 4 + [0] * 4
    assert {s.defect for s in category.test} == {"bright", "good"}
    assert category.has_masks
    assert all(not s.masks for s in category.test if not s.label)


def test_name_is_the_folder_unless_all_categories_are_mvtecs(data):
    assert MvtecAd(data).name == "data"
    (data / "left").rename(data / "bottle")
    assert MvtecAd(data).name == "data"
    (data / "right").rename(data / "screw")
    assert MvtecAd(data).name == "mvtec_ad"


def test_a_single_category_can_be_given(data):
    dataset = MvtecAd(data / "left")
    assert dataset.categories() == ("left",)
    assert len(dataset.load("left").train) == 8


def test_without_masks_there_are_none(data):
    shutil.rmtree(data / "left" / "ground_truth")
    category = MvtecAd(data).load("left")
    assert not category.has_masks
    assert category.counts()["masks"] == 0


def test_digest_changes_with_content_alone(data):
    before = MvtecAd(data).load("left").digest
    (data / "left" / "readme.txt").write_text("not an image")
    assert MvtecAd(data).load("left").digest == before
    mask = next((data / "left" / "ground_truth").rglob("*.png"))
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    assert MvtecAd(data).load("left").digest != before


def test_limited_keeps_good_and_defective(data):
    category = MvtecAd(data).load("left").limited(2)
    assert category.counts() == {"train": 2, "test": 4, "defective": 2, "masks": 2}


def lose(path):
    return lambda data: shutil.rmtree(data / path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: shutil.rmtree(data), "--data: expected a folder"),
        (lambda data: [shutil.rmtree(p) for p in data.iterdir()], "found no such folder"),
        (
            lambda data: [p.unlink() for p in data.glob("left/train/good/*")],
            "expected training images",
        ),
        (lose("left/test"), "expected <defect>/ folders of images"),
        (
            lambda data: next(data.glob("left/ground_truth/bright/*")).unlink(),
            "expected a mask, as 3 other defective images of left have one; 1 lack it",
        ),
    ],
)
def test_damage_is_named(data, damage, message):
    damage(data)
    with pytest.raises(InputError, match=message):
        MvtecAd(data).load("left")


def test_unknown_category_has_a_near_match(data):
    with pytest.raises(InputError, match="unknown category 'lefd'; did you mean 'left'"):
        MvtecAd(data).load("lefd")


def test_unreadable_image_is_named(tmp_path):
    path = tmp_path / "a b ü.png"
    path.write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"a b ü\.png: expected an image"):
        read_image(path, 8)


def test_image_is_resized_without_a_crop(tmp_path):
    stripes = np.zeros((40, 80), np.uint8)
    stripes[:, :8], stripes[:, -8:] = 200, 100
    Image.fromarray(stripes).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", 20)
    assert image.shape == (20, 20, 3)
    assert (image[:, 0] == 200).all()
    assert (image[:, -1] == 100).all()


def test_a_mask_is_fitted_by_the_nearest_pixel(tmp_path):
    values = np.zeros((4, 4), np.uint8)
    values[0, 0], values[3, 3] = 128, 255
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", 8)
    assert mask.dtype == bool
    assert mask.sum() == 8
    assert mask[:2, :2].all()
    assert not read_mask(None, 8).any()


def test_a_study_on_data_that_is_not_embedded_says_so(tmp_path):
    with pytest.raises(InputError, match="not embedded; expected --data DIR"):
        open_dataset("mvtec_ad", folder=None, cache=tmp_path)


def test_surfaces_are_embedded(tmp_path):
    dataset = open_dataset("surfaces", folder=None, cache=tmp_path)
    assert dataset.name == "surfaces"
    assert dataset.categories() == ("brick", "grass", "gravel")
    counts = dataset.load("grass").counts()
    assert counts["train"] >= 32
    assert counts["masks"] == counts["defective"] > 0


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no folder of real data beside this")
@pytest.mark.parametrize(
    ("name", "counts"), [("bottle", (209, 83, 63)), ("screw", (320, 160, 119))]
)
def test_real_mvtec_counts(name, counts):
    dataset = MvtecAd(SHARED / "data" / "mvtec")
    assert dataset.name == "mvtec_ad"
    found = dataset.load(name).counts()
    assert (found["train"], found["test"], found["masks"]) == counts


def test_names_with_spaces_are_fine(tmp_path):
    write_category(tmp_path / "my parts" / "left side")
    dataset = MvtecAd(tmp_path / "my parts")
    assert dataset.name == "my-parts"
    assert dataset.load("left side").counts()["train"] == 8


def test_the_official_totals():
    """Bergmann et al. 2021: 3629 train, 1725 test images, 1258 of them defective; BTAD: 2540."""
    assert [sum(c[i] for c in PUBLISHED_COUNTS["mvtec_ad"].values()) for i in range(3)] == [
        3629, 1725, 1258,
    ]  # fmt: skip
    assert sum(c.train + c.test for c in PUBLISHED_COUNTS["btad"].values()) == 2540
    assert len(PUBLISHED_COUNTS["mvtec_ad"]) == 15
    visa = PUBLISHED_COUNTS["visa"].values()
    assert sum(c.train + c.test - c.defective for c in visa) == 9621
    assert sum(c.defective for c in visa) == 1200


def test_a_drawn_sets_digest_is_of_pixels_and_version(tmp_path):
    """PNG's bytes depend on the zlib at hand; an image's pixels do not."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)

    def category(name, level, *, drawn="surfaces 1", change=0):
        files = []
        for split in ("train", "test"):
            files.append(tmp_path / name / f"{split}.png")
            files[-1].parent.mkdir(exist_ok=True)
            Image.fromarray(pixels + change).save(files[-1], compress_level=level)
        train, test = (Sample(f) for f in files)
        return Category("d", "c", (train,), (test,), drawn=drawn)

    one, other = category("one", 0), category("other", 9)
    assert one.train[0].path.read_bytes() != other.train[0].path.read_bytes()
    assert one.digest == other.digest
    assert one.contents == other.contents
    assert category("newer", 0, drawn="surfaces 2").digest != one.digest
    assert category("pixel", 0, change=1).digest != one.digest
    assert category("a file", 0, drawn="").digest != category("its twin", 9, drawn="").digest


def test_the_embedded_sets_digest_is_the_accepted_one(tmp_path):
    """So that the accepted records are of what every machine draws."""
    grass = open_dataset("surfaces", folder=None, cache=tmp_path).load("grass")
    accepted = next(
        r for r in read_records(bundled("results", "baseline")) if r.category == "grass"
    )
    assert grass.digest == accepted.data.digest

"""The embedded data set: its layout, its defects, and that its pixels never change unnoticed."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from harness.claims import Claims
from harness.data.embedded import surfaces
from harness.data.embedded.defects import DEFECTS
from harness.data.embedded.surfaces import (
    CATEGORIES,
    COUNTS,
    LEFTOVERS,
    SIZE,
    STRENGTH,
    VERSION,
    write_surfaces,
)
from harness.files import token
from harness.heartbeat import Heartbeats

GOLDEN = "29325a7fda6441b8528924127b6043734999f957d6c166af9f0cfa42d2def68a"
"""Digest of every decoded pixel. If it changes, raise VERSION in harness/data/embedded/surfaces.py
before writing the new one here: results on the old pixels must not pass for the new ones."""


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def digest(root):
    """SHA-256 over the names, sizes and decoded pixels of all images, not over PNG bytes."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.png")):
        image = pixels(path)
        total.update(f"{path.relative_to(root).as_posix()} {image.shape} {image.dtype}".encode())
        total.update(image.tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_surfaces(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small(monkeypatch):
    """One category of a few images, where the pictures themselves do not matter."""
    monkeypatch.setattr(surfaces, "CATEGORIES", ("brick",))
    monkeypatch.setattr(surfaces, "COUNTS", {"train": 2, "good": 1, "defect": 1})


@pytest.fixture(scope="module")
def texture():
    """An image with structure at every scale, so that every defect alters it."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIZE, SIZE))
    return 120.0 + 40.0 * np.sin(rows / 5.0) * np.cos(columns / 9.0) + rng.normal(0, 9, rows.shape)


def test_layout_is_that_of_mvtec(root):
    assert root.name == f"surfaces-v{VERSION}"
    assert {path.name for path in root.iterdir()} == set(CATEGORIES)
    for category in CATEGORIES:
        folders = {
            path.relative_to(root / category).as_posix() for path in (root / category).glob("*/*")
        }
        expected = {"train/good": COUNTS["train"], "test/good": COUNTS["good"]}
        expected |= {f"test/{kind}": COUNTS["defect"] for kind in STRENGTH}
        expected |= {f"ground_truth/{kind}": COUNTS["defect"] for kind in STRENGTH}
        assert folders == set(expected)
        for folder, count in expected.items():
            suffix = "_mask" if folder.startswith("ground_truth") else ""
            names = sorted(path.name for path in (root / category / folder).iterdir())
            assert names == [f"{index:03d}{suffix}.png" for index in range(count)]


def test_every_image_has_the_stated_size_and_is_neither_flat_nor_clipped(root):
    for path in root.glob("*/t*/*/*.png"):
        image = pixels(path)
        assert image.shape == (SIZE, SIZE)
        assert image.dtype == np.uint8
        assert image.std() > 5
        assert np.isin(image, [0, 255]).mean() < 0.15


def test_no_two_images_are_the_same(root):
    images = [pixels(path).tobytes() for path in root.glob("*/t*/*/*.png")]
    assert len(set(images)) == len(images)


def test_masks_are_black_and_white_and_mark_a_part_of_the_image(root):
    masks = [pixels(path) for path in root.glob("*/ground_truth/*/*.png")]
    for mask in masks:
        assert mask.shape == (SIZE, SIZE)
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).mean() < 0.4


def test_pixels_are_the_golden_ones(root):
    assert digest(root) == GOLDEN, "pixels changed: raise VERSION, then write the new digest"


def test_two_writes_give_the_same_pixels(root, tmp_path):
    assert digest(write_surfaces(tmp_path)) == digest(root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_crops_keep_to_the_columns_of_their_split(split):
    columns = np.tile(np.arange(512.0), (512, 1))
    rng = np.random.default_rng(0)
    seen = np.unique([surfaces._crop(columns, split, rng) for _ in range(200)])
    first, last = (int(512 * fraction) for fraction in surfaces.COLUMNS[split])
    assert first <= seen.min() < seen.max() < last
    assert seen.max() - seen.min() > 0.95 * (last - first)


def test_columns_of_the_two_splits_do_not_meet():
    assert surfaces.COLUMNS["train"][1] <= surfaces.COLUMNS["test"][0]


def test_every_defect_has_a_strength():
    assert list(STRENGTH) == list(DEFECTS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_alters_the_pixels_in_its_mask_and_no_other(kind, seed, texture):
    before = texture.copy()
    image, mask = DEFECTS[kind](texture, np.random.default_rng(seed), STRENGTH[kind])
    np.testing.assert_array_equal(texture, before, err_msg="the input was written to")
    assert image.shape == mask.shape == texture.shape
    assert image.dtype == np.float64
    assert mask.dtype == np.bool_
    assert 0 < mask.mean() < 0.4
    np.testing.assert_array_equal(image[~mask], texture[~mask])
    visible = np.abs(image - texture) > 1.0
    assert visible[mask].mean() > 0.75


# Not cut_paste: its strength is a change of size, and any other patch is as different.
@pytest.mark.parametrize("kind", sorted(set(DEFECTS) - {"cut_paste"}))
def test_a_stronger_defect_alters_more(kind, texture):
    def change(strength):
        image, _ = DEFECTS[kind](texture, np.random.default_rng(3), strength)
        return np.abs(image - texture).sum()

    assert change(0.2 * STRENGTH[kind]) < change(STRENGTH[kind])


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_written_image_differs_from_intact_texture_in_its_mask_only(kind, root, monkeypatch):
    photograph = surfaces.skimage.data.grass().astype(np.float64)
    monkeypatch.setitem(DEFECTS, kind, lambda image, rng, strength: (image, image > 0))
    intact, _ = surfaces._make(photograph, f"grass/test/{kind}/000")
    image = pixels(root / "grass" / "test" / kind / "000.png")
    mask = pixels(root / "grass" / "ground_truth" / kind / "000_mask.png") > 0
    differs = image != np.clip(np.rint(intact), 0, 255)
    assert not differs[~mask].any()
    assert differs[mask].mean() > 0.75


def test_a_second_call_does_not_write(small, tmp_path, monkeypatch):
    first = write_surfaces(tmp_path)
    monkeypatch.setattr(surfaces, "_write_category", pytest.fail)
    assert write_surfaces(tmp_path) == first


def test_what_a_start_left_that_was_killed_once_it_had_written_goes_at_the_next_call(
    small, tmp_path, monkeypatch
):
    killed = Claims(tmp_path, LEFTOVERS, token="c" * 16)
    with killed:
        signs = killed.signs.file("c" * 16).read_bytes()
    write_surfaces(tmp_path)
    killed.signs.file("c" * 16).write_bytes(signs)
    killed.take(f"surfaces-v{VERSION}")
    monkeypatch.setattr(Heartbeats, "is_dead", lambda self, start: start == "c" * 16)
    write_surfaces(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_crash_leaves_nothing_and_the_next_call_succeeds(small, tmp_path, monkeypatch):
    write = surfaces._write
    written = []

    def crash(path, image):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(surfaces, "_write", crash)
        with pytest.raises(KeyboardInterrupt):
            write_surfaces(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert list(write_surfaces(tmp_path).rglob("*.png"))


def test_the_first_of_two_writers_wins(small, tmp_path, monkeypatch):
    other = tmp_path / f"surfaces-v{VERSION}" / "written-by-another"
    write_category = surfaces._write_category

    def overtaken(root, category):
        write_category(root, category)
        other.mkdir(parents=True)

    monkeypatch.setattr(surfaces, "_write_category", overtaken)
    assert write_surfaces(tmp_path) == other.parent
    assert sorted(p.name for p in tmp_path.iterdir()) == ["claims", other.parent.name]
    assert list(other.parent.iterdir()) == [other]


def test_who_stood_still_shows_no_data_set_of_which_others_removed_files(tmp_path, monkeypatch):
    """It wakes before the last category; what it had written was removed, and its claim."""
    monkeypatch.setattr(surfaces, "CATEGORIES", ("brick", "grass"))
    monkeypatch.setattr("harness.claims.PAUSE", 0.001)
    dead = lambda self, start: start == token() != self.token
    monkeypatch.setattr(Heartbeats, "is_dead", dead)
    other, write, calls = Claims(tmp_path, LEFTOVERS, token="c" * 16), surfaces._write, []

    def write_category(root, category):
        calls.append(category)
        if len(calls) == 2:
            other.clean()
        write(root / "a.png", np.zeros((2, 2)))

    monkeypatch.setattr(surfaces, "_write_category", write_category)
    made = write_surfaces(tmp_path)
    assert {p.name for p in made.iterdir()} == {"brick", "grass"}
    assert calls == ["brick", "grass"] * 2

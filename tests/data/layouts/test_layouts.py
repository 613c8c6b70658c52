"""One tiny tree for every data set: categories, counts, labels, masks, and what is recognised."""

import os
import pickle
import shutil
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import SHARED
from trees import COUNTS, LAYOUTS, batches, draw, write_cifar10_binary, write_cifar10_pickles

from harness.data import layouts
from harness.data.check import check
from harness.data.contract import read_image, read_mask
from harness.data.counts import CIFAR10_CLASSES, PUBLISHED_COUNTS, Copy, compare
from harness.data.datasets import open_dataset
from harness.data.disturbed import disturbed
from harness.data.folders import every_fifth, held_out
from harness.data.layouts import recognise
from harness.data.layouts.cifar10 import read_batch
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.motion import Motion
from harness.errors import InputError
from harness.experiment.study import Study


@pytest.fixture
def written(tmp_path):
    """Writes a layout below ``data`` and gives where ``--data`` points."""

    def write(kind):
        writer, where, *_ = LAYOUTS[kind]
        root = tmp_path / "data"
        root.mkdir()
        writer(root)
        return root / where

    return write


def opened(name, folder, tmp_path):
    return open_dataset(name, folder=folder, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layout(kind, written, tmp_path):
    _, _, layout, name, category, counts = LAYOUTS[kind]
    folder = written(kind)
    assert recognise(folder) == layout
    dataset = opened(layout, folder, tmp_path)
    assert (dataset.name, dataset.layout) == (name, layout)
    assert category in dataset.categories()
    found = dataset.load(category)
    check(found)
    assert tuple(found.counts()[c] for c in COUNTS) == counts
    assert all(s.label == 0 and not s.masks for s in found.train)
    for sample in found.test:
        assert read_image(sample, 8).shape == (8, 8, 3)
        assert read_mask(sample, 8).any() == bool(sample.masks)
    assert found.digest
    about = pickle.loads(pickle.dumps(found)).about()
    assert about["layout"] == layout
    assert about["official"] is (None if name in ("data", "table") else False)
    assert opened("surfaces", folder, tmp_path).load(category).digest == found.digest
    with pytest.raises(InputError, match="unknown category 'nothing'"):
        dataset.load("nothing")


def test_every_data_set_is_tested():
    assert {v[2] for v in LAYOUTS.values()} == set(layouts.LAYOUTS)


def test_the_study_says_which_and_dataset_overrides(written, tmp_path):
    folder = written("folder")
    with pytest.raises(InputError, match=r"looks like folder: add --dataset folder"):
        opened(Study.__dataclass_fields__["dataset"].default, folder, tmp_path)
    with pytest.raises(InputError, match="unknown data set 'foldr'; did you mean 'folder'"):
        opened("foldr", folder, tmp_path)


def test_every_fifth():
    assert every_fifth(list("abcdefghijk")) == (list("abcdfghik"), list("ej"))
    assert every_fifth(list("abc")) == (list("ab"), ["c"])


def test_a_photo_stays_on_its_side_whatever_is_added():
    some = [Path(f"IMG_{i:04}.jpg") for i in range(0, 60, 3)]
    train, test = held_out(some)
    more_train, more_test = held_out([Path(f"IMG_{i:04}.jpg") for i in range(60)])
    assert set(train) <= set(more_train)
    assert set(test) <= set(more_test)
    assert 6 <= len(more_test) <= 18  # about a fifth of 60
    assert held_out(some[::-1])[1] == test[::-1]


@pytest.mark.parametrize("count", range(2, 12))
def test_both_sides_have_an_image(count):
    for start in range(40):
        train, test = held_out([Path(f"{start + i}.png") for i in range(count)])
        assert train
        assert test
        assert len(train) + len(test) == count


def test_a_name_in_two_unicode_spellings_is_on_one_side():
    names = [f"k\u00fcche {i}.png" for i in range(30)]
    composed, apart = (
        held_out([Path(unicodedata.normalize(form, n)) for n in names])[1]
        for form in ("NFC", "NFD")
    )
    assert [unicodedata.normalize("NFC", p.name) for p in apart] == [p.name for p in composed]


def test_a_folder_with_its_own_good_test_images_is_not_split(written, tmp_path):
    folder = written("folder")
    draw(folder / "test" / "good" / "x.png")
    found = opened("folder", folder, tmp_path).load("data")
    assert tuple(found.counts()[c] for c in COUNTS) == (10, 2, 1, 1)


def test_a_category_without_good_test_images_keeps_some(data, tmp_path):
    assert recognise(data / "left") == "mvtec_ad"
    shutil.rmtree(data / "left/test/good")
    found = opened("surfaces", data / "left", tmp_path).load("left")
    assert found.layout == "folder"
    assert tuple(found.counts()[c] for c in COUNTS) == (6, 6, 4, 4)


@pytest.mark.parametrize("place", ["good", "train", "train/good"])
def test_places_of_the_good_images(tmp_path, place):
    for i in range(5):
        draw(tmp_path / "my photos ü" / place / f"photo {i}.png")
    dataset = opened("surfaces", tmp_path / "my photos ü", tmp_path)
    assert (dataset.layout, dataset.name) == ("folder", "my-photos-ü")
    assert dataset.load("my-photos-ü").counts()["train"] == 4


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_no_utf_8(data, tmp_path):
    for part in ("test", "ground_truth"):
        folder = data / "left" / part
        (folder / "bright").rename(folder / os.fsdecode(b"Kr\xe4tz"))
    (data / "left/test/good/000.png").rename(data / "left/test/good" / os.fsdecode(b"\xe4.png"))
    for name in ("mvtec_ad", "disturbed-mvtec_ad"):
        found = opened(name, data, tmp_path).load("left")
        check(found)
        assert found.digest
        assert {s.defect for s in found.test} == {"good", "Kr�tz"}


def test_links_in_a_circle_end(written, tmp_path):
    folder = written("folder")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert recognise(folder) == "folder"
    check(opened("folder", folder, tmp_path).load("data"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_and_binary_are_the_same_images(tmp_path, protocol):
    for name, writer in (("p", write_cifar10_pickles), ("b", write_cifar10_binary)):
        (tmp_path / name).mkdir()
        writer(tmp_path / name, *([protocol] if name == "p" else []))
    one, other = (opened("cifar10", tmp_path / n, tmp_path).load("dog") for n in "pb")
    assert one.digest == other.digest
    assert one.form == "array 32x32"
    name, rows, labels = next(batches())
    first = int(np.flatnonzero(labels == CIFAR10_CLASSES.index("dog"))[0])
    planes = rows[first].reshape(3, 32, 32)
    assert (read_image(one.train[0], 32) == planes.transpose(1, 2, 0)).all()
    assert {s.defect for s in one.test} == {"good", *CIFAR10_CLASSES} - {"dog"}


class Malicious:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    victim = tmp_path / "created"
    for call, arguments in [
        (os.system, (f"touch {victim}",)),
        (open, (str(victim), "w")),
        (eval, (f"open({str(victim)!r}, 'w')",)),
        (np.savetxt, (str(victim), [1])),
        (getattr, (os, "system")) if protocol > 9 else (os.mkdir, (str(victim),)),
    ]:
        file = tmp_path / f"data_batch_{protocol}"
        read_batch.cache_clear()
        file.write_bytes(pickle.dumps({b"data": Malicious(call, *arguments)}, protocol))
        with pytest.raises(InputError, match=r"this pickle asks to run .*nothing was run"):
            read_batch(file)
        assert not victim.exists()


def test_a_disturbed_set_moves_test_images_and_masks_alike(data):
    plain = MvtecAd(data)
    dataset = disturbed(plain)
    assert dataset.name == "disturbed-data"
    one, before = dataset.load("left"), plain.load("left")
    assert one.counts() == before.counts()
    assert one.train == before.train
    assert one.digest == disturbed(plain).load("left").digest != before.digest
    assert disturbed(plain, seed=1).load("left").digest != one.digest
    for sample, still in zip(one.test, before.test, strict=True):
        image, mask = read_image(sample, 64), read_mask(sample, 64)
        assert (image != read_image(still, 64)).any()
        if sample.label:  # the square, brighter than any noise, is where the mask says
            assert image[mask].min(axis=1).mean() > 240
            assert image[~mask].max() < 256
            assert (image[~mask] > 200).mean() < 0.02
        else:
            assert not mask.any()
    assert {type(s.motion.angle) for s in one.test} == {float}
    check(one)


def test_a_defect_stays_in_view(data):
    for path in (data / "left" / "ground_truth" / "bright").iterdir():
        corner = np.zeros((64, 64), np.uint8)
        corner[-3:, -3:] = 255
        Image.fromarray(corner).save(path)
    found = disturbed(MvtecAd(data), shift=0.2).load("left")
    moved = [s for s in found.test if s.label]
    shares = [s.motion.keeps(replace(s, motion=None).defective()) for s in moved]
    assert min(shares) >= 0.5
    for sample, share in zip(moved, shares, strict=True):
        pixels = sample.defective().sum()
        assert pixels > 9 * share * 0.5  # zoomed, and perhaps with its mirror image
    whole = np.ones((64, 64), bool)
    assert Motion(0.0, 1.0, 0.25, 0.0).keeps(whole) == 0.75
    assert Motion(0.0, 0.5, 0.0, 0.0).keeps(whole) == 1
    assert Motion(0.0, 2.0, 0.0, 0.0).keeps(whole) == 0.25


def test_no_disturbance_is_the_identity(data):
    dataset = disturbed(MvtecAd(data), rotation=0, zoom=0, shift=0)
    for sample in dataset.load("left").test:
        assert (read_image(sample, 64) == read_image(replace(sample, motion=None), 64)).all()


def test_disturbed_by_name(written, tmp_path):
    folder = written("cifar10 pickles")
    found = opened("disturbed-cifar10", folder, tmp_path).load("cat")
    assert found.dataset == "disturbed-cifar10"
    assert len({s.motion for s in found.test}) == len(found.test)
    about = found.about()
    assert about["official"] is False
    assert about["copy"].startswith("a part of the published 5000 train")
    assert about["disturbance"] == "rotation ±15°, zoom ±0.1, shift ±0.05, seed 0"
    assert opened("disturbed-surfaces", None, tmp_path).name == "disturbed-surfaces"


def test_copies_are_named():
    whole = dict(zip(COUNTS, PUBLISHED_COUNTS["mvtec_ad"]["bottle"], strict=True))
    assert compare("mvtec_ad", "bottle", whole, "PNG 900x900") == Copy(
        official=True, complete=True, published_form=True, copy="the published counts"
    )
    resized = compare("mvtec_ad", "bottle", whole, "JPEG 512x512")
    assert (resized.official, resized.published_form) == (True, False)
    assert "in another form than the published PNG 900x900" in resized.copy
    part = compare("mvtec_ad", "bottle", {**whole, "train": 100}, "PNG 900x900")
    assert part == Copy(False, False, True, "a part of the published 209 train, 83 test")
    assert compare("disturbed-mvtec_ad", "bottle", whole, "JPEG 512x512") == resized
    assert compare("mine", "bottle", whole, "PNG 900x900").official is None


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no folder of real data beside this")
@pytest.mark.parametrize(
    ("folder", "category", "counts", "official"),
    [
        ("mvtec", "bottle", (209, 83, 63, 63), True),
        ("mvtec", "screw", (320, 160, 119, 119), True),
        ("magnetic_tile", "magnetic_tile", (320, 472, 392, 392), False),
        ("cifar10", "cat", (1000, 2000, 1800, 0), False),
    ],
)
def test_real_data(tmp_path, folder, category, counts, official):
    found = opened("surfaces", SHARED / "data" / folder, tmp_path).load(category)
    check(found)
    about = found.about()
    assert tuple(about[c] for c in COUNTS) == counts
    assert about["official"] is official
    assert about["form"].startswith("JPEG")

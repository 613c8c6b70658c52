"""What is refused before anything runs, and what is said of files that are used as they are."""

import numpy as np
import pytest
from PIL import Image

from harness.data.check import check
from harness.data.contract import Sample, make_category
from harness.data.images import read_picture
from harness.errors import InputError

SIDE = 16


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def mask(rows):
    """A mask whose first rows are a defect."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:rows] = 255
    return values


class Files:
    """A category of a folder: train 0 and 1, test good and scratch, whose masks are added."""

    def __init__(self, root):
        self.root, self.name, self.layout = root, "mine", "folder"
        for i in range(7):
            self.save(f"{i}.png", noise(i))
        self.train, self.good = ["0.png", "1.png"], ["2.png", "3.png"]
        self.bad, self.masks = ["4.png", "5.png", "6.png"], {}

    def save(self, name, pixels, **options):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return name

    def masked(self, *masks, images=None):
        for image, values in zip(images or self.bad, masks, strict=True):
            self.masks[image] = (self.root / self.save(f"ground_truth/{image}", values),)
        return self

    def samples(self, names, defect="good"):
        return [Sample(self.root / n, defect, self.masks.get(n, ())) for n in names]

    def check(self, **options):
        bad = self.samples(self.bad, "scratch")
        test = [*self.samples(self.good), *bad]
        category = make_category(self, "bolt", self.samples(self.train), test, self.root)
        assert category.counts()["masks"] == sum(bool(s.masks) for s in bad)
        return [str(r) for r in check(category, **options)]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_nothing_is_said_of_what_is_plain(files):
    assert files.check() == []
    assert files.masked(*[mask(3)] * 3).check() == []


def test_each_file_is_decoded_once(files, monkeypatch):
    seen = []

    def counted(path, content):
        seen.append(path.name)
        return read_picture(path, content)

    monkeypatch.setattr("harness.data.images.read_picture", counted)
    files.masked(*[mask(3)] * 3).check()
    assert sorted(seen) == sorted(f"{i}.png" for i in (*range(7), 4, 5, 6))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif"])
def test_a_picture_is_not_good_and_defective(files, suffix):
    """The same pixels, in whatever file: grey, as a GIF has too few colours for others."""
    files.save("2.png", np.ascontiguousarray(noise(9)[..., 0]))
    same = files.save(
        f"same.{suffix}", noise(9)[..., 0], **{"lossless": True} if suffix == "webp" else {}
    )
    files.bad[0] = same
    with pytest.raises(
        InputError,
        match=rf"same\.{suffix}: expected one label .*scratch, it is .*2\.png, labelled good \(1",
    ):
        files.check()


def test_a_picture_that_is_trained_on_is_not_defective_either(files):
    files.save("4.bmp", noise(0))
    files.bad[0] = "4.bmp"
    for leaks in ("refuse", "allow"):
        with pytest.raises(
            InputError, match=r"4\.bmp: expected one label .*0\.png, labelled good"
        ):
            files.check(leaks=leaks)


def test_a_leak_is_found_by_its_pixels(files):
    files.good.append(files.save("copy.bmp", noise(1)))
    with pytest.raises(InputError, match=r"copy\.bmp: expected a test image that is not trained"):
        files.check()
    assert files.check(leaks="allow") == []


def test_a_picture_twice_in_one_role_is_said(files):
    files.train.append(files.save("again.bmp", noise(1)))
    files.bad.append(files.save("other.bmp", noise(5)))
    said = files.check()
    assert said == [
        "1 file showing in train what another image shows, as again.bmp",
        "1 file showing in test what another image shows, as other.bmp",
    ]


def test_other_pixels_of_another_shape_are_another_picture(files):
    files.save("2.png", np.zeros((8, 32, 3), np.uint8))
    files.save("4.png", np.zeros((32, 8, 3), np.uint8))
    assert files.check() == []


def test_inverted_masks_are_refused(files):
    with pytest.raises(
        InputError,
        match=r"ground_truth/4\.png: .* 2 of the 3 of bolt call 90% .*means good, invert them",
    ):
        files.masked(mask(15), mask(16), mask(3)).check()


def test_half_of_the_masks_may_be_large(files):
    """Black ones say nothing of which way round the masks are."""
    with pytest.raises(InputError, match="1 of the 1 of bolt call"):
        files.masked(mask(15), mask(0), mask(0)).check()
    said = files.masked(mask(15), mask(3), mask(0)).check()
    assert said == [
        "1 file showing no defect, though the mask of a defective image, as ground_truth/6.png"
    ]


def test_a_single_mask_of_the_whole_image_is_said(files):
    (said,) = files.masked(mask(16), mask(3), mask(3)).check()[1:]
    assert said == "1 file calling 98% and more of an image a defect, as ground_truth/4.png"


def test_a_background_of_one_is_said(files):
    said = files.masked(*[np.maximum(mask(3), 1)] * 3).check()
    assert said == [
        "3 files holding other mask values than 0 and one more: a pixel is a defect from half "
        "the white on, as ground_truth/4.png"
    ]


def test_all_masks_black(files):
    with pytest.raises(InputError, match=r"4\.png: expected a defect.* all 3 are black"):
        files.masked(*[mask(0)] * 3).check()


def test_masks_of_good_images_may_be_black(files):
    files.masked(*[mask(3)] * 3).masked(mask(0), mask(0), images=files.good)
    assert files.check() == []
    files.masked(mask(0), mask(1), images=files.good)
    with pytest.raises(
        InputError,
        match=r"ground_truth/3\.png: expected no mask for the good image 3\.png, or a black",
    ):
        files.check()


def test_black_masks_of_good_images_alone_make_no_pixel_metrics(files):
    files.masked(mask(0), mask(0), images=files.good)
    assert files.check() == []


def test_files_of_several_pictures_are_said(files):
    pages = [Image.fromarray(noise(i)) for i in (20, 21, 22)]
    pages[0].save(files.root / "pages.tif", save_all=True, append_images=pages[1:])
    files.train.append("pages.tif")
    files.masked(*[mask(3)] * 3)
    values = [Image.fromarray(mask(i)) for i in (4, 5)]
    values[0].save(files.root / "m.tif", save_all=True, append_images=values[1:])
    files.masks["4.png"] = (files.root / "m.tif",)
    assert files.check() == ["2 files holding several pictures: the first is used, as m.tif"]

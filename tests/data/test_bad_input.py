# ruff: noqa: E501 -- one case a line
"""Bad images, folders and tables: one line that names the file, exit code 2, nothing written."""

import os
import pickle
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import write_category
from trees import LAYOUTS, draw

from harness.cli import main as cli
from harness.data import layouts
from harness.data.layouts.cifar10 import read_batch


def edit(path, old, new):
    """Replaces text in a table."""

    def replace(root):
        (root / path).write_text((root / path).read_text("utf-8-sig").replace(old, new))

    return replace


def content(path, data):
    return lambda root: (root / path).write_bytes(data)


def cut(path, keep=0.5):
    def half(root):
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: int(len(data) * keep)])

    return half


def turned(path):
    def by_a_quarter(root):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (64, 96)).save(root / path, exif=exif)
        Image.new("L", (64, 96), 1).save(root / MASK)

    return by_a_quarter


def png(width, height, bits, colour, rows):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def deep_png(side):
    return png(side, side, 16, 2, (b"\0" + b"\0\1" * 3 * side) * side)


def spoil(path):
    def middle(root):
        data = bytearray((root / path).read_bytes())
        start = data.find(b"IDAT") + 6
        data[start : start + 8] = b"\xff" * 8
        (root / path).write_bytes(data)

    return middle


def lose(*paths):
    def remove(root):
        for path in paths:
            for found in list(root.glob(path)):
                shutil.rmtree(found) if found.is_dir() else found.unlink()

    return remove


def copy(source, target):
    def put(root):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return put


def make(path):
    return lambda root: (root / path).mkdir(parents=True)


def link(path, target):
    return lambda root: (root / path).symlink_to(target)


def save(path, array):
    return lambda root: Image.fromarray(array).save(root / path)


def add(path):
    return lambda root: draw(root / path)


def unpickled(value):
    return pickle.dumps(value, protocol=2)


def batch(labels):
    return unpickled({b"data": np.zeros((1, 3072), np.uint8), b"labels": labels})


def nested(levels=12):
    """A list that would be 10 to the power of its levels long."""
    made = [0] * 10
    for _ in range(levels - 1):
        made = [made] * 10
    return [made]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("created-by-a-pickle",)


IMAGE = "left/train/good/003.png"
TEST = "left/test/bright/001.png"
MASK = "left/ground_truth/bright/001_mask.png"
NOT = r"expected an image; it cannot be read"
# base layout, what is done to it, the message, further options
DEEP = ("--set", "norm=batch", "--set", "image_size=32", "--set", "taps=4")
ONE_VALUE = (*DEEP, "--set", "batch_size=7")  # one image is left over, at a tap of one position

BAD = {
    # the root, the category, the options
    "root missing": ("mvtec_ad", lose("*"), r"got dat, which does not exist; did you mean 'data'", "--data", "dat"),
    "root a file": ("mvtec_ad", content("x.txt", b"x"), r"expected a folder; got data/x\.txt, which is a file", "--data", "data/x.txt"),
    "root of nobody": ("mvtec_ad", None, r"--data: expected a folder; got ~nosuch/x \(Could not", "--data", "~nosuch/x"),
    "root too long": ("mvtec_ad", None, r"--data: expected a folder; got a{60}…", "--data", "a" * 300),
    "root empty": ("mvtec_ad", lose("*"), r"expected <category>/train/good below data; found no such"),
    "root a link to itself": ("mvtec_ad", link("loop", "loop"), r"got data/loop, which does not exist", "--data", "data/loop"),
    "unknown data set": ("mvtec_ad", None, r"unknown data set 'mvtec'; did you mean 'mvtec_ad'", "--dataset", "mvtec"),
    "unknown disturbed": ("mvtec_ad", None, r"unknown data set 'x'", "--dataset", "disturbed-x"),
    "no data": ("btad", None, r"runs on btad, which is not embedded; expected --data"),
    "category": ("mvtec_ad", None, r"unknown category 'lefd'; did you mean 'left'", "--category", "lefd"),
    "another layout": ("btad", None, r"expected <category>/train/good .* looks like btad: add --dataset btad", "--dataset", "mvtec_ad"),
    "a table as folder": ("manifest", None, r"which is a file; the layout looks like manifest", "--dataset", "mvtec_ad"),
    "mvtec as btad": ("mvtec_ad", None, r"expected <category>/train/ok below data.*--dataset mvtec_ad", "--dataset", "btad"),
    "mvtec as visa": ("mvtec_ad", None, r"expected split_csv/1cls\.csv below data", "--dataset", "visa"),
    "mvtec as cifar10": ("mvtec_ad", None, r"expected data_batch_1 … and test_batch, or train/", "--dataset", "cifar10"),
    "mvtec as magnetic_tile": ("mvtec_ad", None, r"expected MT_Free/Imgs below data", "--dataset", "magnetic_tile"),
    "mvtec as folder": ("mvtec_ad", None, r"expected images \(\.png.* found none", "--dataset", "folder"),
    "a folder as manifest": ("mvtec_ad", None, r"expected a \.csv file; got the folder data", "--dataset", "manifest"),
    "nothing known": ("mvtec_ad", lose("*"), r"expected images or a known layout .* found neither", "--dataset", "surfaces"),
    "disturbed of another": ("folder", None, r"looks like folder: add --dataset folder", "--dataset", "disturbed-mvtec_ad"),
    "leaks": ("mvtec_ad", None, r"leaks: expected one of refuse, allow; got 'yes'", "--set", "leaks=yes"),
    "resize": ("mvtec_ad", None, r"resize: expected one of square, crop, pad; got 'fill'", "--set", "resize=fill"),
    "mask rule": ("mvtec_ad", None, r"mask_resize: expected one of nearest, covered", "--set", "mask_resize=max"),
    # splits
    "no training images": ("mvtec_ad", lose("left/train/good/*"), r"left/train/good: expected training images; found none"),
    "no test folder": ("mvtec_ad", lose("left/test"), r"left/test: expected <defect>/ folders of images"),
    "label without images": ("mvtec_ad", make("left/test/scratch"), r"left/test/scratch: expected images; found none"),
    "test images without a label": ("mvtec_ad", add("left/test/x.png"), r"left/test/x\.png: expected test images in test/good/"),
    "one training image": ("mvtec_ad", lose("left/train/good/00[1-9].png"), r"expected at least 2 images of left to train on; got 1"),
    "one left by holdout": ("mvtec_ad", None, r"to train on; got 1 \(holdout=0\.9 of 8\); add images, or lower", "--set", "holdout=0.9"),
    "one photo": ("folder", lose("*.png"), r"expected images .* found none"),
    "none held out": ("mvtec_ad", None, r"at least 1 image of left to be held out; got 0 \(holdout=0\.05 of 8\)", "--set", "holdout=0.05"),
    "a batch norm of one value": ("mvtec_ad", None, r"batch norm: expected at least 2 values .* of 8 at a tap of 1 × 1 .*drop_last", *ONE_VALUE),
    "one good photo": ("folder", lose("[1-9].png"), r"data: expected at least 2 good images, .* got 1, 0\.png; add some"),
    "no whole batch": ("mvtec_ad", None, r"expected at least 32 images of left to train on; got 8", "--set", "drop_last=true"),
    "two photos": ("folder", lose("[2-9].png", "test", "ground_truth"), r"expected at least 2 images of data to train on; got 1"),
    "the same image in train and test": ("mvtec_ad", copy(IMAGE, "left/test/good/x.png"), r"x\.png: expected a test image that is not trained on.*003\.png.*leaks=allow"),
    "the same under a defect": ("mvtec_ad", copy(IMAGE, TEST), r"bright/001\.png: expected one label .* as .*good/003\.png, labelled good"),
    "a leak in a folder": ("folder", copy("0.png", "4.png"), r"[04]\.png: expected a test image that is not trained on"),
    "a leak in disturbed": ("mvtec_ad", copy(IMAGE, "left/test/good/x.png"), r"that is not trained on", "--dataset", "disturbed-mvtec_ad"),
    "a defect's link to itself": ("mvtec_ad", link("left/test/dent", "dent"), r"left/test/dent: expected a folder; got a link that leads nowhere"),
    "masks' link to nothing": ("folder", link("ground_truth/dent", "nowhere"), r"ground_truth/dent: expected a folder; got a link that leads nowhere"),
    "all masks a link to nothing": ("mvtec_ad", lambda root: (lose("left/ground_truth")(root), link("left/ground_truth", "nowhere")(root)), r"left/ground_truth: expected a folder; got a link"),
    # images
    "empty file": ("mvtec_ad", content(IMAGE, b""), r"003\.png: expected an image; the file is empty"),
    "text": ("mvtec_ad", content(IMAGE, b"hello"), rf"003\.png: {NOT} \(its content is no PNG, JPEG"),
    "another format": ("mvtec_ad", content(IMAGE, b"GIF89a" + bytes(40)), rf"003\.png: {NOT}"),
    "truncated PNG": ("mvtec_ad", cut(IMAGE), rf"003\.png: {NOT}"),
    "truncated in its header": ("mvtec_ad", cut(IMAGE, 0.002), rf"003\.png: {NOT}"),
    "truncated test image": ("mvtec_ad", cut(TEST), rf"bright/001\.png: {NOT}"),
    "damaged PNG": ("mvtec_ad", spoil(TEST), rf"bright/001\.png: {NOT}"),
    "many pixels": ("mvtec_ad", content(IMAGE, png(10_000, 10_000, 1, 0, b"")), r"003\.png: expected at most 89 million pixels; got 10000 × 10000; .* HARNESS_MEGAPIXELS=100"),
    "too many pixels": ("mvtec_ad", content(IMAGE, png(20_000, 20_000, 1, 0, b"")), r"003\.png: expected at most 89 million pixels; got 20000 × 20000"),
    "truncated JPEG": ("visa", cut("candle/Data/Images/Normal/0.JPG"), rf"0\.JPG: {NOT}"),
    "truncated BMP": ("btad", cut("01/train/ok/0.bmp"), rf"0\.bmp: {NOT}"),
    "a folder named like an image": ("mvtec_ad", make("left/train/good/x.png"), r"x\.png: expected an image file; got a folder"),
    "a link to nothing": ("mvtec_ad", link("left/train/good/x.png", "nowhere"), r"x\.png: expected an image file; got a link that leads nowhere"),
    "a link to itself": ("mvtec_ad", link("left/train/good/x.png", "x.png"), r"x\.png: expected an image file; got a link"),
    "a name with spaces, in Greek": ("mvtec_ad", content("left/train/good/α β.png", b"x"), rf"α β\.png: {NOT}"),
    "a name with a newline": ("mvtec_ad", content("left/train/good/a\nb.png", b"x"), rf"a b\.png: {NOT}"),
    "unreadable": ("mvtec_ad", lambda root: (root / IMAGE).chmod(0), r"003\.png: expected a readable file; got: Permission"),
    "unreadable folder": ("mvtec_ad", lambda root: (root / "left/test").chmod(0), r"left/test: expected a readable folder"),
    # masks
    "mask missing": ("mvtec_ad", lose(MASK), r"bright/001\.png: expected a mask, as 3 other .* 1 lack it"),
    "mask of another size": ("mvtec_ad", save(MASK, np.zeros((8, 9), np.uint8)), r"001_mask\.png: expected the size of its image 001\.png, 64x64; got 9x8"),
    "mask as stored": ("mvtec_ad", turned(TEST), r"001_mask\.png: expected the size.*96x64; got 64x96; draw it on the image as it is shown"),
    "two masks of an image": ("mvtec_ad", copy(MASK, "left/ground_truth/bright/001.png"), r"001_mask\.png: expected one mask an image; 001\.png is of the same"),
    "two images of a mask": ("mvtec_ad", add("left/test/bright/001.jpg"), r"001\.png: expected another name than 001\.jpg's, as both would have the mask 001_mask\.png"),
    "mask of 16-bit colours": ("mvtec_ad", content(MASK, deep_png(64)), r"001_mask\.png: expected a mask of 8 bits a channel, or grey of 16; got colours of 16"),
    "all masks black": ("btad", lambda root: [Image.new("L", (16, 16)).save(p) for p in (root / "01/ground_truth/ko").iterdir()], r"ko/0\.png: expected a defect.* all 2 are black"),
    "mask for a good image": ("mvtec_ad", copy(MASK, "left/ground_truth/good/000_mask.png"), r"000_mask\.png: expected no mask for the good image 000\.png"),
    "mask without an image": ("mvtec_ad", lose(TEST), r"001_mask\.png: expected its image 001\.\* among"),
    "masks without a folder": ("mvtec_ad", lose("left/test/bright"), r"bright/000_mask\.png: expected its image 000\.\* among the test images of bright; found none"),
    "mask truncated": ("mvtec_ad", cut(MASK), rf"001_mask\.png: {NOT}"),
    "mask damaged": ("mvtec_ad", spoil(MASK), rf"001_mask\.png: {NOT}"),
    "mask empty": ("mvtec_ad", content(MASK, b""), r"001_mask\.png: expected an image; the file is empty"),
    "mask no image": ("mvtec_ad", content(MASK, b"mask"), rf"001_mask\.png: {NOT}"),
    # BTAD, VisA, magnetic tiles
    "btad without test": ("btad", lose("01/test"), r"01/test: expected <defect>/ folders"),
    "btad mask missing": ("btad", lose("01/ground_truth/ko/0.png"), r"ko/0\.bmp: expected a mask, as 1 other"),
    "visa without objects": ("visa", lose("candle"), r"expected the folders of split_csv/1cls\.csv's objects"),
    "visa image missing": ("visa", lose("candle/Data/Images/Normal/1.JPG"), r"1cls\.csv, line 3: expected a file; got 'candle/.*1\.JPG'.*did you mean '[0-9]\.JPG'"),
    "visa other columns": ("visa", edit("split_csv/1cls.csv", "object", "thing"), r"expected the columns object,split,label,image,mask"),
    "visa object elsewhere": ("visa", edit("split_csv/1cls.csv", "pcb1,", "../data,"), r"1cls\.csv, line 7: expected a category that can name a folder.*got '\.\./data'"),
    "visa object absolute": ("visa", edit("split_csv/1cls.csv", "pcb1,", "/,"), r"line 7: expected a category that can name a folder.*got '/'"),
    "tiles without free ones": ("magnetic_tile", lose("MT_Free/Imgs/*"), r"expected training images of magnetic_tile; found none"),
    "tile without mask": ("magnetic_tile", lose("MT_Crack/Imgs/0.png"), r"MT_Crack/Imgs/0\.jpg: expected its mask 0\.png"),
    "tile's mask alone": ("magnetic_tile", copy("MT_Crack/Imgs/0.png", "MT_Crack/Imgs/1.png"), r"1\.png: expected its image 1\.\* among"),
    "kind without tiles": ("magnetic_tile", make("MT_Fray/Imgs"), r"MT_Fray/Imgs: expected \.jpg images; found none"),
    # CIFAR-10
    "pickle that runs code": ("cifar10 pickles", content("test_batch", unpickled({b"data": Evil()})), r"test_batch: .* asks to run posix\.mkdir; nothing was run"),
    "pickle truncated": ("cifar10 pickles", cut("data_batch_1"), r"data_batch_1: expected a batch of CIFAR-10's python version"),
    "pickle of a list": ("cifar10 pickles", content("data_batch_1", unpickled([1])), r"data_batch_1: expected a batch"),
    "pickle without labels": ("cifar10 pickles", content("data_batch_1", unpickled({b"data": np.zeros((1, 3072), np.uint8)})), r"data_batch_1: expected a batch"),
    "pickle of fractions": ("cifar10 pickles", content("data_batch_1", unpickled({b"data": np.zeros((1, 3072)), b"labels": [1]})), r"the images are not rows of bytes"),
    "pickle with class 10": ("cifar10 pickles", content("data_batch_1", unpickled({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]})), r"expected classes from 0 to 9; got 10"),
    "pickle with class 259": ("cifar10 pickles", content("data_batch_1", batch([259])), r"expected classes from 0 to 9; got 259"),
    "pickle of a column": ("cifar10 pickles", content("data_batch_1", batch([[1]])), r"images and labels do not match"),
    "pickle of a huge label": ("cifar10 pickles", content("data_batch_1", batch([10**5000])), r"labels of more than 32 bits"),
    "pickle that grows": ("cifar10 pickles", content("data_batch_1", batch(nested())), r"images and labels do not match"),
    "pickle that remembers": ("cifar10 pickles", content("data_batch_1", b"\x80\x02]r\0\0\0\x08."), r"more than 1000000 steps or remembered"),
    "pickle empty": ("cifar10 pickles", content("test_batch", b""), r"test_batch: expected a batch"),
    "no test batch": ("cifar10 pickles", lose("test_batch"), r"expected the test batches in data; found none"),
    "binary truncated": ("cifar10 binary", cut("data_batch_1.bin", 0.99), r"data_batch_1\.bin: expected images of 3073 bytes each"),
    "a class in train alone": ("cifar10 folders", lose("test/dog"), r"train/dog: expected every class in train and test"),
    "a class without images": ("cifar10 folders", lose("test/dog/*"), r"test/dog: expected images; found none"),
    # plain folders and tables
    "folder: loose test images": ("folder", add("test/x.png"), r"test/x\.png: expected test images in test/good/"),
    "folder: mask of another size": ("folder", save("ground_truth/scratch/0.png", np.zeros((4, 4), np.uint8)), r"16x16; got 4x4"),
    "table: no columns": ("manifest", edit("table.csv", "path,split", "a,b"), r"table\.csv: expected the columns path,split,label,mask,category"),
    "table: unknown column": ("manifest", edit("table.csv", "mask,category", "masks,category"), r"unknown column of .*table\.csv 'masks'; did you mean 'mask'"),
    "table: empty": ("manifest", content("table.csv", b""), r"expected the columns .* got none"),
    "table: no rows": ("manifest", content("table.csv", b"path,split,label\n"), r"expected rows below the columns; found none"),
    "table: a value too many": ("manifest", edit("table.csv", "train,good,,left", "train,good,,left,x"), r"line 2: expected 5 values; got more"),
    "table: other encoding": ("manifest", content("table.csv", "path,split,label\nü".encode("latin1")), r"expected a CSV file in UTF-8"),
    "table: unknown split": ("manifest", edit("table.csv", "left0.png,train", "left0.png,val"), r"line 2: expected the split train or test; got 'val'"),
    "table: no label": ("manifest", edit("table.csv", "left0.png,train,good", "left0.png,train,"), r"line 2: expected the label good"),
    "table: a defect in train": ("manifest", edit("table.csv", "left0.png,train,good", "left0.png,train,dent"), r"line 2: expected good images alone in train; got the label 'dent'"),
    "table: image missing": ("manifest", lose("good images/left0.png"), r"line 2: expected a file; got 'good images/left0\.png'.*did you mean 'left"),
    "table: path too long": ("manifest", edit("table.csv", "good images/left0.png", "p" * 5000), r"line 2: expected a file; got 'p{60}…'"),
    "table: path empty": ("manifest", edit("table.csv", "good images/left0.png", ""), r"line 2: expected a file; got ''"),
    "table: twice": ("manifest", edit("table.csv", "left1.png", "left0.png"), r"line 3: expected every image once; .* is on line 2 too"),
    "table: mask for a good image": ("manifest", edit("table.csv", "left3.png,test,good,", "left3.png,test,good,left_m.png"), r"left_m\.png: expected no mask for the good image"),
    "table: mask missing": ("manifest", lose("left_m.png"), r"line 6: expected a file; got 'left_m\.png'"),
    "table: no test images": ("manifest", edit("table.csv", ",test,", ",train,"), r"expected good images alone in train", "--category", "left"),
    "table: category with a separator": ("manifest", edit("table.csv", ",left\n", ",../left\n"), r"expected a category that can name a folder"),
    "table: category too long": ("manifest", edit("table.csv", ",left\n", f",{'c' * 300}\n"), r"line 2: expected a category that can name a folder, at most 255 bytes.*'c{60}…'"),
    "table: category": ("manifest", None, r"unknown category 'lefd'; did you mean 'left'", "--category", "lefd"),
}  # fmt: skip
NEEDS_RIGHTS = {"unreadable", "unreadable folder"}


def snapshot(folder):
    def state(path):
        if path.is_symlink() or path.is_dir():
            return None
        return path.read_bytes() if os.access(path, os.R_OK) else path.stat().st_size

    return {p: state(p) for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", BAD)
def test_one_line_exit_2_and_nothing_written(name, tmp_path, capsys, monkeypatch):
    if name in NEEDS_RIGHTS and os.geteuid() == 0:
        pytest.skip("root may read everything")
    kind, damage, message, *options = BAD[name]
    writer, where, layout, *_ = LAYOUTS[kind]
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    writer(root)
    if damage:
        damage(root)
    before = snapshot(tmp_path)
    read_batch.cache_clear()
    data = [] if "no data" in name else ["--data", f"data/{where}".rstrip("/")]
    arguments = [*data, "--dataset", layout, *options]  # the last of an option counts
    assert cli.main(["run", "kernels", "--results", "results", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("harness: ")
    assert error.count("\n") == 1
    assert len(error) < 400
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("folder", ["~nosuch/x", "a" * 300])
def test_fetch_into_a_folder_that_cannot_be(folder, capsys):
    assert cli.main(["data", "fetch", "btad", "--yes", "--data", folder]) == 2
    assert re.match(r"harness: --data: expected a folder; got .*\n$", capsys.readouterr().err)


def test_there_are_at_least_sixty():
    assert len(BAD) >= 60


def test_doctor_names_what_is_wrong_and_goes_on(tmp_path, capsys):
    root = write_category(tmp_path / "data" / "left").parent
    write_category(root / "right", seed=1)
    cut(IMAGE)(root)
    options = ["--data", str(root), "--results", str(tmp_path / "r")]
    assert cli.main(["doctor", *options]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"left +cannot be used: .*003\.png: {NOT}", text)
    assert re.search(r"right +8 train, .*; PNG 64x64; no published counts", text)


def test_help_names_every_data_set(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}," in text or f"{name};" in text for name in ("surfaces", *layouts.LAYOUTS))


def test_a_leak_can_be_allowed(tmp_path, capsys):
    root = write_category(tmp_path / "data" / "left").parent
    copy(IMAGE, "left/test/good/x.png")(root)
    options = ["--data", str(root), "--results", str(tmp_path / "r"), "--set", "leaks=allow"]
    assert cli.main(["plan", "kernels", *options]) == 0
    assert "6 runs, 6 to run" in capsys.readouterr().out

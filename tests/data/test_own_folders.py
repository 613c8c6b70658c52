# ruff: noqa: E501 -- one case a line
"""Folders as people have them: what each file is taken for, and what is said of the rest."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import draw

from harness.cli import main as cli
from harness.data.datasets import open_dataset
from harness.data.left_out import left_out
from harness.errors import InputError
from harness.experiment.settings import Folders

GOOD = tuple(f"{i}.png" for i in range(5))
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
NO_ROLE = "in a folder whose role is not known (--good, --defective or --masks says it)"
CARD = "DCIM/100CANON"


def good(place, count=5):
    return [f"{place}/{i}.png" for i in range(count)]


def bad(place, count=2):
    return [f"{place}/{i}.png" for i in range(count)]


def masks(form, count=2):
    """Masks: pictures of two values, whatever their place and name."""
    return ["mask:" + form.format(i) for i in range(count)]


SCRATCHED = [*good("train/good"), *bad("test/scratch")]
# name → files, (train, test, defective, masks), {reason: example}, what is said of the folders
TREES = {
    # what is good
    **{
        f"test/{name} is good": ([*SCRATCHED, *good(f"test/{name}", 3)], (5, 5, 2, 0), {}, {})
        for name in ("Good", "OK", "normal", "NORMAL", "defect-free", "Defect Free", "no_defects")
    },
    "Train/Good and Test/Scratch": ([*good("Train/Good"), *bad("Test/Scratch")], (4, 3, 2, 0), {}, {}),
    "a defect called scratched ok": ([*SCRATCHED, *bad("test/not ok")], (4, 5, 4, 0), {}, {}),
    "good and its defects side by side": ([*good("good"), *bad("crack"), *bad("dent")], (4, 5, 4, 0), {}, {}),
    "with masks, as anomalib has it": ([*good("good"), *bad("crack"), *masks("mask/crack/{}.png")], (4, 3, 2, 2), {}, {}),
    "bad beside photos": ([*GOOD, *bad("NG")], (4, 3, 2, 0), {}, {}),
    "train alone": (good("train"), (4, 1, 0, 0), {}, {}),
    "good by one of its words": ([*good("train/good parts"), *good("test/1_good", 3), *bad("test/def_front")], (5, 5, 2, 0), {}, {}),
    "good_2 is good": ([*good("good"), *good("good_2", 3), *bad("bad")], (6, 4, 2, 0), {}, {}),
    "the same name in train and test": ([*good("train/plain"), *good("test/plain", 3), *bad("test/dent")], (5, 5, 2, 0), {}, {}),
    "of other languages": ([*good("正常"), *bad("划痕")], (4, 3, 2, 0), {}, {}),
    "gut and schlecht": ([*good("train/gut"), *bad("train/schlecht")], (4, 1, 0, 0), {NO_ROLE: "train/schlecht/0.png"}, {}),
    "beside bad, who knows": ([*good("good"), *bad("bad"), *bad("unsorted")], (4, 3, 2, 0), {NO_ROLE: "unsorted/0.png"}, {}),
    "below images": ([*good("images/good"), *bad("images/scratch"), *masks("masks/scratch/{}.png")], (4, 3, 2, 2), {}, {}),
    "below a line of the test": ([*good("train/good"), *good("test/line1/good", 3), *bad("test/line1/dent")], (5, 5, 2, 0), {}, {}),
    "screenshots on a card": ([*good(CARD), *good("DCIM/Screenshots", 2)], (4, 1, 0, 0), {NO_ROLE: "DCIM/Screenshots/0.png"}, {}),
    "an old set below": ([*good("good"), *bad("bad"), *good("old/train/good"), *good("old/test/good", 2)], (4, 3, 2, 0), {NO_ROLE: "old/test/good/0.png"}, {}),
    # photos in folders
    "by day": ([*good("train/good"), *good("train/good/tuesday", 3), *bad("test/scratch")], (7, 3, 2, 0), {}, {}),
    "by day, among defects": ([*SCRATCHED, *bad("test/scratch/batch 2/day 1")], (4, 5, 4, 0), {}, {}),
    "off a camera": (good(CARD), (4, 1, 0, 0), {}, {}),
    "by date": ([*good("2026-11-28", 3), *good("20261129", 2)], (4, 1, 0, 0), {}, {}),
    "beside photos, who knows": ([*GOOD, *good("misc", 2)], (4, 1, 0, 0), {NO_ROLE: "misc/0.png"}, {}),
    "a defect below good ones": ([*good("good"), *bad("good/defective")], (4, 1, 0, 0), {NO_ROLE: "good/defective/0.png"}, {}),
    "plots in the root": ([*good("train/good"), "plot.png"], (4, 1, 0, 0), {"in no folder, while the good photos are in one": "plot.png"}, {}),
    # masks
    "as MVTec AD": ([*SCRATCHED, *masks("ground_truth/scratch/{}_mask.png")], (4, 3, 2, 2), {}, {}),
    "under the photo's name": ([*SCRATCHED, *masks("ground_truth/scratch/{}.png")], (4, 3, 2, 2), {}, {}),
    "flat": ([*SCRATCHED, *masks("ground_truth/{}.png")], (4, 3, 2, 2), {}, {}),
    "a folder an image, as MVTec LOCO AD": ([*SCRATCHED, *masks("ground_truth/scratch/{}/000.png")], (4, 3, 2, 2), {}, {}),
    "several an image": ([*SCRATCHED, *masks("ground_truth/scratch/{}/000.png"), "mask:ground_truth/scratch/1/001.png"], (4, 3, 2, 2), {}, {}),
    "several by number": ([*SCRATCHED, *masks("gt/scratch/{}_mask_1.png"), *masks("gt/scratch/{}_mask_2.png")], (4, 3, 2, 2), {}, {}),
    "under masks/": ([*SCRATCHED, *masks("Masks/Scratch/{}.PNG")], (4, 3, 2, 2), {}, {}),
    "below masks/test/": ([*SCRATCHED, *masks("masks/test/scratch/{}.png")], (4, 3, 2, 2), {}, {}),
    "below test/": ([*SCRATCHED, *masks("test/ground_truth/scratch/{}_mask.png")], (4, 3, 2, 2), {}, {}),
    "below their defect": ([*SCRATCHED, *masks("test/scratch/masks/{}.png")], (4, 3, 2, 2), {}, {}),
    "images/ beside masks/": ([*good("train/good"), *bad("test/scratch/images"), *masks("test/scratch/masks/{}.png")], (4, 3, 2, 2), {}, {}),
    "beside their photos": ([*SCRATCHED, *masks("test/scratch/{}_mask.png")], (4, 3, 2, 2), {}, {}),
    "beside, as label": ([*SCRATCHED, *masks("test/scratch/{}_label.bmp")], (4, 3, 2, 2), {}, {}),
    "beside, of the same stem": ([*good("train/good"), "test/scratch/0.jpg", "mask:test/scratch/0.png"], (4, 2, 1, 1), {}, {}),
    "beside, of labelme": ([*SCRATCHED, *bad("test/scratch", 0), "labelme:test/scratch/0.json", "labelme:test/scratch/1.json"], (4, 3, 2, 2), {}, {}),
    "photos called mask": ([*good("train/good"), "test/scratch/gas_mask.png", "mask:ground_truth/scratch/gas_mask.png"], (4, 2, 1, 1), {}, {}),
    "x and x_mask with masks": ([*good("train/good"), "test/scratch/x.png", "test/scratch/x_mask.png", "mask:ground_truth/scratch/x_mask.png", "mask:ground_truth/scratch/x_mask_mask.png"], (4, 3, 2, 2), {}, {}),
    "masks said twice": ([*SCRATCHED, *masks("ground_truth/scratch/{}.png"), *masks("test/scratch/{}_mask.png")], (4, 3, 2, 2), {}, {}),
    "a defect called mask": ([*good("train/good"), *bad("test/mask"), *masks("ground_truth/mask/{}.png")], (4, 3, 2, 2), {}, {}),
    "of two spellings": ([*good("train/good"), f"test/scratch/{DECOMPOSED}.png", f"mask:ground_truth/scratch/{COMPOSED}.png"], (4, 2, 1, 1), {}, {}),
    "of two cases": ([*good("train/good"), "test/scratch/IMG_1.JPG", "mask:ground_truth/Scratch/img_1_MASK.png"], (4, 2, 1, 1), {}, {}),
    "in two folders that agree": ([*SCRATCHED, *masks("masks/scratch/{}.png"), *masks("ground_truth/scratch/{}.png")], (4, 3, 2, 2), {}, {}),
    "of training photos too": ([*SCRATCHED, "test/good/9.png", "black:ground_truth/train/good/3_mask.png", *masks("ground_truth/test/scratch/{}.png")], (5, 3, 2, 2), {}, {}),
    "smoothed, beside": ([*SCRATCHED, "soft:test/scratch/0_mask.png", "soft:test/scratch/1_mask.png"], (4, 3, 2, 2), {}, {}),
    # what is left out
    "other files": ([*GOOD, "notes.txt", "video.mov", "readme"], (4, 1, 0, 0), {"no image by its name": "notes.txt"}, {}),
    "the system's": ([*GOOD, "Thumbs.db", ".DS_Store", "__MACOSX/._1.png", ".git/config"], (4, 1, 0, 0), {"hidden, or the system's own": ".DS_Store"}, {}),
    "a validation split": ([*SCRATCHED, *good("validation/good", 2)], (4, 3, 2, 0), {"validation images (holdout=0.2 keeps a share of the training images)": "validation/good/0.png"}, {}),
    # what a person says
    "said": ([*good("tuesday"), *bad("card 2"), *masks("drawn/{}.png")], (4, 3, 2, 2), {}, {"good": ("tuesday",), "defective": ("card 2",), "masks": ("drawn",)}),
    "said of a camera's": ([*good(CARD), *bad("DCIM/101CANON")], (4, 3, 2, 0), {}, {"good": (CARD,), "defective": ("DCIM/101CANON",)}),
    "good test photos said": ([*good("a"), *good("b", 3)], (5, 3, 0, 0), {}, {"good": ("a",), "good_test": ("b",)}),
    "two good folders said": ([*good("a", 3), *good("b", 2), *good("c", 1)], (4, 1, 0, 0), {NO_ROLE: "c/0.png"}, {"good": ("a", "b")}),
}  # fmt: skip


def write(root, files):
    for number, file in enumerate(files):
        kind, _, name = file.rpartition(":")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in ("mask", "black", "soft"):
            drawn = np.zeros((16, 16), np.uint8)
            drawn[4:8, 4:8] = {
                "mask": 255,
                "black": 0,
                "soft": np.arange(100, 260, 10).reshape(4, 4),
            }[kind]
            Image.fromarray(drawn).save(path)
        elif kind == "labelme":
            shape = {"label": "x", "shape_type": "rectangle", "points": [[4, 4], [8, 8]]}
            about = {"shapes": [shape], "imageHeight": 16, "imageWidth": 16, "imageData": None}
            path.write_text(json.dumps(about))
        elif path.suffix.lower() in (".png", ".jpg", ".bmp"):
            draw(path, seed=number)
        else:
            path.write_bytes(b"x")


def opened(root, **said):
    dataset = open_dataset("surfaces", folder=root, cache=root, folders=Folders(**said))
    (name,) = dataset.categories()
    category = dataset.load(name)
    return category, left_out(root, dataset, [category])


@pytest.mark.parametrize("name", TREES)
def test_every_file_has_a_role_or_is_named(name, tmp_path):
    files, counts, reasons, said = TREES[name]
    write(tmp_path / "own", files)
    category, aside = opened(tmp_path / "own", **said)
    assert tuple(category.counts().values()) == counts
    assert {r.what.removeprefix("left out: "): r.files[0] for r in aside} == reasons
    samples = (*category.train, *category.test)
    used = {path for s in samples for path in (s.path, *s.masks)}
    hidden = ("__MACOSX", ".git")
    named = {r for remark in aside for r in remark.files}
    for file in (f.rpartition(":")[2] for f in files):
        assert (tmp_path / "own" / file in used) ^ (file in named or file.startswith(hidden)), file


# name → files, the message
REFUSED = {
    "folders that say nothing": ([*good("a"), *good("b")], r"which of its folders \(a, b\) hold good"),
    "two masks of an image": ([*SCRATCHED, *masks("gt/scratch/{}.png"), "mask:gt/scratch/0_mask.png"], "expected one mask an image"),
    "a mask that could be of two": ([*SCRATCHED, *bad("test/dent"), *masks("gt/{}.png")], "expected to tell which image it is of"),
    "a mask without an image": ([*SCRATCHED, *masks("gt/scratch/{}.png", 3)], r"gt/scratch/2\.png: expected its image 2\.\*"),
    "two masks that differ": ([*SCRATCHED, *masks("gt/scratch/{}.png"), "mask:test/scratch/1_mask.png", "white:test/scratch/0_mask.png"], "expected the same defect as"),
    "two beside that differ": ([*SCRATCHED, "mask:test/scratch/0_mask.png", "white:test/scratch/0_gt.png", "mask:test/scratch/1_mask.png"], "expected the same defect as"),
    "a photo called a mask": ([*SCRATCHED, "test/scratch/0_mask.png"], "expected the mask of 0.png, as it is called so"),
    "an empty folder of a defect": ([*SCRATCHED, "test/dent/notes.txt"], "test/dent: expected images; found none"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_named(name, tmp_path):
    files, message = REFUSED[name]
    write(tmp_path / "own", [f for f in files if not f.startswith("white:")])
    for file in (f.removeprefix("white:") for f in files if f.startswith("white:")):
        Image.new("L", (16, 16), 255).save(tmp_path / "own" / file)
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "own")


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_deep_photo_beside_one_of_its_name_is_no_mask(dtype, tmp_path):
    write(tmp_path / "own", [*GOOD, *good("test/good", 2)])
    noise = np.random.default_rng(0).random((16, 16)) * (1 if dtype is np.float32 else 9999)
    Image.fromarray(noise.astype(dtype)).save(tmp_path / "own" / "0.tif")
    category, _ = opened(tmp_path / "own")
    assert len(category.train) == 6
    assert not any(s.masks for s in category.train)


def test_what_is_said_must_be_there_and_of_ones_own(tmp_path):
    write(tmp_path / "own", [*good("a"), *good("b/good", 2)])
    with pytest.raises(InputError, match="expected a folder, named below --data; found none"):
        opened(tmp_path / "own", good=("c",))
    for name in ("../own/a", str(tmp_path)):
        with pytest.raises(InputError, match="expected a folder below --data"):
            opened(tmp_path / "own", good=(name,))
    with pytest.raises(InputError, match="--defective: expected a defect's folder"):
        opened(tmp_path / "own", good=("a",), defective=("b/good",))
    with pytest.raises(InputError, match="expected --dataset folder with them; got btad"):
        open_dataset("btad", folder=tmp_path, cache=tmp_path, folders=Folders(good=("a",)))


def test_a_link_is_called_what_it_is_called(tmp_path):
    write(tmp_path / "store" / "9f3a", [*SCRATCHED, "test/good/9.png"])
    for name in ("bottle", f"caf{DECOMPOSED}"):
        (tmp_path / name).symlink_to(tmp_path / "store" / "9f3a", target_is_directory=True)
    assert opened(tmp_path / "bottle")[0].name == "bottle"
    assert opened(tmp_path / f"caf{DECOMPOSED}")[0].name == f"caf{COMPOSED}"
    assert opened(tmp_path / "store" / ".." / "bottle")[0].name == "bottle"
    shutil.rmtree(tmp_path / "store" / "9f3a" / "test" / "good")  # a plain folder by now
    assert opened(tmp_path / "bottle")[0].name == "bottle"


@pytest.mark.parametrize("asked", [COMPOSED, DECOMPOSED, COMPOSED.upper()])
@pytest.mark.whole
def test_a_category_is_found_in_any_spelling(asked, tmp_path, capsys):
    for name in (DECOMPOSED, "bolt"):
        write(tmp_path / "own" / name, [*SCRATCHED, "test/good/9.png"])
    options = ["--data", str(tmp_path / "own"), "--results", str(tmp_path / "r")]
    assert cli.main(["plan", "surfaces", *options, "--category", asked]) == 0
    assert f"  {COMPOSED}  seed 0" in capsys.readouterr().out


def test_folders_of_parts_are_held_out_part_by_part(tmp_path):
    """Every part has photos of the same names: whether one is held out is its own matter."""
    write(tmp_path / "own", [f"good/part{i}/{side}.png" for i in range(20) for side in "abc"])
    category, _ = opened(tmp_path / "own")
    assert 6 <= len(category.test) <= 15
    assert len({s.path.name for s in category.test}) == 3
    (tmp_path / "own" / "good" / "part99").mkdir()
    draw(tmp_path / "own" / "good" / "part99" / "a.png")
    more, _ = opened(tmp_path / "own")
    assert {s.path for s in category.test} <= {s.path for s in more.test}


def test_categories_of_one_name_in_two_spellings_are_named(tmp_path):
    for name in (COMPOSED, DECOMPOSED):
        write(tmp_path / "own" / name, [*SCRATCHED, "test/good/9.png"])
    with pytest.raises(InputError, match="another spelling of the same; rename one"):
        open_dataset("surfaces", folder=tmp_path / "own", cache=tmp_path)


def test_a_category_whose_train_is_called_ok_is_one_too(tmp_path):
    write(tmp_path / "own" / "a", [*SCRATCHED, "test/good/9.png"])
    write(tmp_path / "own" / "b", [*good("train/ok"), *bad("test/dent"), "test/ok/9.png"])
    assert open_dataset("surfaces", folder=tmp_path / "own", cache=tmp_path).categories() == (
        "a",
        "b",
    )


def test_other_categories_are_not_looked_into_and_strays_beside_them_are(tmp_path):
    for name in ("nut", "bolt"):
        write(tmp_path / "own" / name, [*SCRATCHED, "test/good/9.png", "notes.txt"])
    write(tmp_path / "own", ["plot.png", "old/1.png"])
    dataset = open_dataset("surfaces", folder=tmp_path / "own", cache=tmp_path)
    said = left_out(tmp_path / "own", dataset, [dataset.load("nut")])
    assert sorted(f for r in said for f in r.files) == ["nut/notes.txt", "old/1.png", "plot.png"]


def test_images_that_a_table_does_not_name(tmp_path):
    write(tmp_path / "own", ["0.png", "1.png", "2.png", "3.png", "notes.txt", "below/4.png"])
    rows = ["path,split,label", "0.png,train,good", "1.png,train,Normal", "2.png,test,dent"]
    table = tmp_path / "own" / "table.csv"
    table.write_text("\n".join(rows))
    dataset = open_dataset("surfaces", folder=table, cache=tmp_path)
    category = dataset.load("table")
    said = {r.what: r.files for r in left_out(table, dataset, [category])}
    assert said == {
        "left out: not named by the table": ("3.png",),
        "left out: no image by its name": ("notes.txt",),
    }


def test_links_in_circles_and_to_nothing_are_named(tmp_path):
    write(tmp_path / "own", GOOD)
    (tmp_path / "own" / "loop").symlink_to(tmp_path / "own", target_is_directory=True)
    (tmp_path / "own" / "gone.txt").symlink_to(tmp_path / "nowhere")
    _, said = opened(tmp_path / "own")
    assert {f for r in said for f in r.files} == {"loop", "gone.txt"}


def test_plan_says_doctor_lists_and_strict_stops(tmp_path, capsys):
    write(tmp_path / "own", [*GOOD, "a.txt", "b.txt"])
    options = ["--data", str(tmp_path / "own"), "--results", str(tmp_path / "r")]
    plan = ["plan", "surfaces", "--variant", "base", "--seed", "0", *options]
    assert cli.main(plan) == 0
    said = "harness: 2 files left out: no image by its name, as a.txt\n"
    output = capsys.readouterr()
    assert output.out.startswith("own: train 4 good (.); test 1 good\n")
    assert output.err == said
    assert cli.main([*plan, "--strict"]) == 2
    assert capsys.readouterr().err.startswith(f"{said}harness: --strict: expected every file")
    assert cli.main(["doctor", *options]) == 0
    assert "  2 left out: no image by its name:\n    a.txt\n    b.txt\n" in capsys.readouterr().out
    assert cli.main(["doctor", *options, "--strict", "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)["files that are left out or doubtful"]
    assert listed == {"left out: no image by its name:": ["a.txt", "b.txt"]}


def test_a_run_takes_what_is_said(tmp_path, capsys):
    write(tmp_path / "own", [*good("tuesday"), *bad("card")])
    options = ["--data", str(tmp_path / "own"), "--good", "tuesday", "--defective", "card"]
    plan = ["plan", "surfaces", "--variant", "base", "--seed", "0", "--results", str(tmp_path)]
    assert cli.main([*plan, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["categories"] == ["own"]


def test_names_that_are_no_names_of_roles(tmp_path):
    """A folder of the category's own name, or a defect's like a role's, is no role."""
    write(tmp_path / "good", [*SCRATCHED, *bad("test/gouge")])
    category, said = opened(tmp_path / "good")
    assert {s.defect for s in category.test} == {"good", "scratch", "gouge"}
    assert not said
    assert Path(category.test[0].path).is_file()

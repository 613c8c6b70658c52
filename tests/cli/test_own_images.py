"""From a person's ten photos in a plain folder to a report."""

import pytest
from trees import draw

from harness.cli import main as cli
from harness.experiment.place import Place
from harness.experiment.store import read_records

FEW = [
    "--where", "kernels=3,1", "--where", "actnorm=data", "--seed", "0",
    "--where", "backbone=tf_efficientnet_lite0.pypi_in1k", "--where", "coupling=one-sided",
    "--where", "flow_steps=8", "--set", "image_size=64", "--set", "flow_steps=1", "--epochs", "2",
]  # fmt: skip


@pytest.mark.parametrize("bad", [0, 2], ids=["good alone", "two with a defect"])
@pytest.mark.long
def test_ten_photos_to_a_report(tmp_path, capsys, bad):
    photos = tmp_path / "my photos"
    for i in range(10):
        draw(photos / f"photo {i}.jpg")
    for i in range(bad):
        draw(photos / "test" / "scratch" / f"{i}.jpg")
    results = tmp_path / "results"
    options = ["--data", str(photos), "--results", str(results), *FEW]
    assert cli.main(["run", "surfaces", *options, "--report"]) == 0
    text = capsys.readouterr().out
    assert "1 categories of my-photos (read as folder)" in text
    records = list(read_records(results))
    assert len(records) == 2  # the base, and smoothing
    for record in records:
        assert record.dataset == "my-photos"
        assert record.data.layout == "folder"
        assert record.data.form == "JPEG 16x16"
        assert record.data.official is None
        assert (record.data.train, record.data.test) == (8, 2 + bad)
        assert record.protocol.masks == "nearest"
        assert record.protocol.resize == "square-bilinear-1"
        assert ("image_auroc" in record.metrics) == bool(bad)
    (file,) = (results / "reports").glob("surfaces--data=my-photos--*.html")
    assert "--where-kernels=3,1--" in file.name  # what was asked
    page = file.read_text()
    assert "my-photos" in page
    assert ("so no metric" in page) != bool(bad)
    assert "data:image/webp" in page  # the gallery


@pytest.mark.long
def test_rules_are_variants_of_one_training(tmp_path, data, capsys):
    """Masks' rule and leaks are scoring; resize is another pass of the backbone."""
    options = ["--data", str(data), "--results", str(tmp_path / "r"), *FEW, "--category", "left"]
    options += ["--where", "smoothing=0"]
    for more in ([], ["mask_resize=covered"], ["leaks=allow"], ["resize=crop"]):
        assert cli.main(["run", "surfaces", *options, *(["--set", *more] if more else [])]) == 0
    text = capsys.readouterr().out
    assert text.count("16 images passed") == 2
    assert text.count("0 images passed") == 2
    found = [r.protocol for r in read_records(tmp_path / "r")]
    assert {(p.resize, p.masks) for p in found} == {
        ("square-bilinear-1", "nearest"), ("square-bilinear-1", "covered"),
        ("crop-bilinear-1", "nearest"),
    }  # fmt: skip
    assert sum(1 for _ in (tmp_path / "r" / "runs").rglob("seed-0.npz")) == 2


@pytest.mark.long
def test_photos_that_are_added_lose_nothing(tmp_path, capsys):
    """More photos: every one stays on its side, and the runs before are compared with."""
    photos = tmp_path / "plates"
    for i in range(10):
        draw(photos / f"photo {i}.jpg", seed=i)
    for i in range(3):
        draw(photos / "test" / "scratch" / f"{i}.jpg", seed=100 + i)
    results = tmp_path / "results"
    options = ["--data", str(photos), "--results", str(results), *FEW, "--where", "smoothing=0"]
    assert cli.main(["run", "surfaces", *options]) == 0
    (before,) = read_records(results)
    listed = before.images
    assert listed.path[-1] == "test/scratch/2.jpg"
    assert len(listed.score) == before.data.test

    for i in range(10, 14):
        draw(photos / f"photo {i}.jpg", seed=i)
    draw(photos / "test" / "scratch" / "3.jpg", seed=103)
    capsys.readouterr()
    assert cli.main(["rescore", "surfaces", *options]) == 1
    said = capsys.readouterr().err
    assert "`harness run` trains it again" in said
    assert "remove" not in said  # the run keeps the record
    assert cli.main(["run", "surfaces", *options]) == 0
    said = capsys.readouterr().out
    assert "1 runs were recorded on fewer images: they are run again, and the records kept" in said
    (now,) = read_records(results)
    assert set(listed.path) <= set(now.images.path)
    place = Place(results, now.digest, now.dataset, now.category, 0)
    (kept,) = place.earlier()
    assert before.data.digest in kept.name
    assert "4 runs" not in said

    assert cli.main(["images", "surfaces", *options]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "variant,category,seed,path,defect,score,found,clear"
    assert len(rows) == 1 + now.data.test
    assert cli.main(["images", "surfaces", *options, "--common", str(results)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert (values["images"], values["common"]) == (str(now.data.test), str(before.data.test))
    assert float(values["before"]) == pytest.approx(100 * before.metrics["image_auroc"], abs=0.01)

    # other photos under the same names are others
    for i in range(14):
        draw(photos / f"photo {i}.jpg", seed=500 + i)
    for i in range(4):
        draw(photos / "test" / "scratch" / f"{i}.jpg", seed=600 + i)
    assert cli.main(["run", "surfaces", *options]) == 2
    assert "0 test images in common" in capsys.readouterr().err

"""From a person's ten photos in a plain folder to a report."""

import pytest
from trees import draw

from harness.cli import main as cli
from harness.experiment.record import read_records

FEW = [
    "--where", "kernels=3,1", "--where", "actnorm=data", "--seed", "0",
    "--where", "backbone=tf_efficientnet_lite0.pypi_in1k", "--where", "coupling=one-sided",
    "--where", "flow_steps=8", "--set", "image_size=64", "--set", "flow_steps=1", "--epochs", "2",
]  # fmt: skip


@pytest.mark.parametrize("bad", [0, 2], ids=["good alone", "two with a defect"])
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
    page = (results / "reports" / "surfaces.html").read_text()
    assert "my-photos" in page
    assert ("so no metric" in page) != bool(bad)
    assert "data:image/png" in page  # the gallery


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

"""Frames beside photos: their rows and files, and what ends them."""

import csv

import numpy as np
import pytest
from detectors import SMALL, detector_of
from PIL import Image

from harness.cli import main as cli
from harness.data import video
from harness.detect.predict import predict, sources_of
from harness.errors import InputError


@pytest.fixture(scope="module")
def detector():
    return detector_of(SMALL)


def shown(count, then=None):
    """A stand-in for what OpenCV reads: noise, and then an end."""

    def frames(source, every=1):
        for number in range(0, count, every):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
            yield number, Image.fromarray(pixels)
        if then:
            raise then

    return frames


def rows(folder):
    with (folder / "scores.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_frame_is_a_row_and_three_files(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "frames", shown(5))
    photo = tmp_path / "clip-000002.png"
    Image.new("RGB", (30, 20)).save(photo)
    found, _ = predict(detector, [photo, tmp_path / "clip.mp4"], tmp_path / "found", every=2)
    names = [f"{tmp_path}/clip.mp4#{n:06}" for n in (0, 2, 4)]
    assert [r["path"] for r in rows(tmp_path / "found")] == [str(photo), *names]
    assert [f.path for f in found] == [str(photo), *names]
    stems = ["clip-000002", "clip-000000", "clip-000002-2", "clip-000004"]
    kinds = [f"{s}.{kind}" for s in stems for kind in ("overlay.jpg", "map.png", "mask.png")]
    written = {p.name for p in (tmp_path / "found").iterdir()}
    assert written == {*kinds, "scores.csv", "scores.json"}
    with Image.open(tmp_path / "found" / "clip-000004.overlay.jpg") as image:
        assert image.size == (60, 40)


def test_a_video_that_is_damaged_keeps_its_rows_and_the_rest_goes_on(
    detector, tmp_path, monkeypatch
):
    monkeypatch.setattr(video, "frames", shown(2, InputError("clip.mp4: expected 9 frames")))
    photo = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(photo)
    predict(detector, [tmp_path / "clip.mp4", photo], tmp_path / "found")
    found = rows(tmp_path / "found")
    assert [r["error"] for r in found] == ["", "", "clip.mp4: expected 9 frames", ""]
    assert found[2]["verdict"] == "unreadable"


def test_ctrl_c_ends_a_camera_and_what_was_found_is_written(
    detector, tmp_path, monkeypatch, capsys
):
    detector.save(tmp_path / "d.safetensors")
    monkeypatch.setattr(video, "frames", shown(3, KeyboardInterrupt()))
    monkeypatch.setattr(video, "find_spec", lambda name: object())
    found = tmp_path / "found"
    assert cli.main(["predict", str(tmp_path / "d.safetensors"), "0", "--out", str(found)]) == 0
    assert [r["path"] for r in rows(found)] == [f"camera 0#{n:06}" for n in range(3)]
    assert "of 3 photos anomalous" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):  # a video's end is another
        predict(detector, [tmp_path / "clip.mp4"], found)
    assert len(rows(found)) == 3


def test_what_needs_opencv_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    (tmp_path / "clip.mp4").touch()
    for source in (str(tmp_path / "clip.mp4"), "0"):
        asked = ["predict", "no.safetensors", source, "--out", str(tmp_path / "found")]
        assert cli.main(asked) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("pip install 'fastflow-harness[video]'")
    assert not (tmp_path / "found").exists()


def test_a_number_is_a_camera_unless_a_file_has_it_for_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (3, 2)).save(tmp_path / "7", "PNG")
    assert [*map(str, sources_of(["7", "0"]))] == ["7", "0"]
    assert sources_of(["0"]) == [0]
    with pytest.raises(InputError, match="expected photos; found none"):
        sources_of(["no.mp4"])


def test_every_is_a_number_of_frames(detector, tmp_path):
    with pytest.raises(InputError, match="--every: expected a number of at least 1; got 0"):
        predict(detector, [tmp_path / "clip.mp4"], tmp_path / "found", every=0)

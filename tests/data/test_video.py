"""Frames of videos and cameras; what is none of them is one line."""

import numpy as np
import pytest

from harness.data import video
from harness.errors import InputError

LEVELS = range(20, 200, 18)  # the grey of each frame


@pytest.fixture
def clip(tmp_path):
    """A video of ten frames, 64 × 48, each brighter than the one before."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: the extra video")
    file = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in LEVELS:
        writer.write(np.full((48, 64, 3), (0, level // 2, level), np.uint8))  # blue, green, red
    writer.release()
    return file


def test_frames_have_their_numbers_size_and_colours(clip):
    found = list(video.frames(str(clip)))
    assert [number for number, _ in found] == [*range(10)]
    for (_, frame), level in zip(found, LEVELS, strict=True):
        assert (frame.size, frame.mode) == ((64, 48), "RGB")
        np.testing.assert_allclose(frame.getpixel((30, 20)), (level, level // 2, 0), atol=6)
    assert [number for number, _ in video.frames(str(clip), every=4)] == [0, 4, 8]


def test_damaged_videos(clip, tmp_path):
    whole = clip.read_bytes()
    cases = {
        "text": (b"hello" * 40, "expected a video that OpenCV reads"),
        "empty": (b"", "expected a video that OpenCV reads"),
        "half": (whole[: len(whole) // 2], r"expected 10 frames; got \d, then damage"),
        "header": (whole[:200], "expected a video"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / "bad.avi").write_bytes(content)
        with pytest.raises(InputError, match=message):
            print(name, len(list(video.frames(str(tmp_path / "bad.avi")))))


def test_no_camera_of_that_number(capfd):
    pytest.importorskip("cv2", reason="OpenCV is not installed: the extra video")
    with pytest.raises(InputError, match="camera 987: expected a camera; found none"):
        next(video.frames(987))
    assert capfd.readouterr().err == ""  # OpenCV's own lines would stand beside ours


@pytest.mark.parametrize("source", ["clip.mp4", 0])
def test_without_opencv_a_line_says_how_to_install_it(source, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fastflow-harness\[video\]'"):
        next(video.frames(source))

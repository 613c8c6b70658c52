"""Frames of videos and cameras; what is none of them is one line."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from harness.data import video
from harness.errors import InputError

LEVELS = range(20, 200, 18)  # the grey of each frame


@pytest.fixture
def clip(tmp_path):
    """A video of ten frames, 64 × 48, each brighter than the one before."""
    if find_spec("cv2") is None:
        pytest.skip("OpenCV is not installed: the extra video")
    cv2 = video.opencv()
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


def test_damaged_videos(clip, tmp_path, capfd):
    whole = clip.read_bytes()
    cases = {
        "text": (b"hello" * 40, "expected a video that OpenCV reads"),
        "empty": (b"", "expected a video that OpenCV reads"),
        "half": (whole[: len(whole) // 2], "expected"),
        "header": (whole[:200], "expected a video"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / "bad.avi").write_bytes(content)
        with pytest.raises(InputError, match=message):
            list(video.frames(str(tmp_path / "bad.avi")))
        assert capfd.readouterr().err == "", name


def test_no_camera_of_that_number(capfd):
    if find_spec("cv2") is None:
        pytest.skip("OpenCV is not installed: the extra video")
    video.opencv()
    with pytest.raises(InputError, match="camera 987: expected a camera; found none"):
        next(video.frames(987))
    assert capfd.readouterr().err == ""  # OpenCV's own lines would stand beside ours


class Pretended:
    """What is used of OpenCV: a capture of four frames that says it has ten."""

    CAP_ANY, CAP_FFMPEG, CAP_PROP_FRAME_COUNT, CAP_PROP_BUFFERSIZE, COLOR_BGR2RGB = range(5)

    class videoio_registry:
        hasBackend = staticmethod(lambda backend: True)

    def __init__(self):
        self.left, self.released, self.set_to = 4, False, {}

    def VideoCapture(self, source, backend):
        return self

    def isOpened(self):
        return True

    def set(self, name, value):
        self.set_to[name] = value

    def get(self, name):
        return {self.CAP_PROP_FRAME_COUNT: 10.0}[name]

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.full((4, 6, 3), self.left, np.uint8)

    def cvtColor(self, pixels, code):
        return pixels[..., ::-1]

    def release(self):
        self.released = True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("clip.mp4", "clip.mp4: expected 10 frames; got 4, then damage"),
        (2, "camera 2: expected more frames; it stopped after 4"),
    ],
)
def test_what_ends_too_early_is_told_after_its_frames(source, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", pretended := Pretended())
    monkeypatch.setattr(video, "find_spec", lambda name: object())
    shown = video.frames(source, every=2)
    assert [next(shown)[0], next(shown)[0]] == [0, 2]
    with pytest.raises(InputError, match=message):
        next(shown)
    assert pretended.released
    assert pretended.set_to == ({pretended.CAP_PROP_BUFFERSIZE: 1} if source == 2 else {})


@pytest.mark.parametrize("source", ["clip.mp4", 0])
def test_without_opencv_a_line_says_how_to_install_it(source, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fastflow-harness\[video\]'"):
        next(video.frames(source))

"""Frames of a video file or a camera, one after the other, by OpenCV where it is installed."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from PIL import Image

from harness.errors import InputError

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv"}
MOST_LOST = 0.1  # the share of its frames that a video may lack: files give their number roughly


def require_opencv(what: str) -> None:
    """Refuse, by an InputError, to read frames of something where OpenCV is not installed."""
    if find_spec("cv2") is None:
        raise InputError(
            f"{what}: expected OpenCV, which reads videos and cameras; it is not installed: "
            "pip install 'fastflow-harness[video]'"
        )


def opencv() -> Any:  # noqa: ANN401
    """Import OpenCV, so that it prints nothing: what is wrong is said here, in one line."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    return cv2


def frames(source: str | int, every: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield frames of a video or a camera, RGB, with their numbers from 0; memory is of one.

    Args:
        source: a video's file, or a camera's number.
        every: how many frames one is taken of.

    Raises:
        InputError: OpenCV is not installed, there is no such camera, the file is no video, it has
            no frames, or it ends long before its end.

    >>> next(frames("clip.mp4", every=0))
    Traceback (most recent call last):
    harness.errors.InputError: --every: expected a number of at least 1; got 0
    """
    if every < 1:
        raise InputError(f"--every: expected a number of at least 1; got {every}")
    named = f"camera {source}" if isinstance(source, int) else source
    require_opencv(named)
    cv2 = opencv()
    # FFmpeg's or none: the other readers of files print lines of their own about damage.
    with_ffmpeg = isinstance(source, str) and cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG if with_ffmpeg else cv2.CAP_ANY)
    try:
        if not capture.isOpened():
            raise InputError(_unopened(source, named))
        if isinstance(source, int):  # else a slow detector would look at what was long ago
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        number = 0
        while capture.grab():
            if number % every == 0:
                taken, pixels = capture.retrieve()
                if not taken:
                    break
                yield number, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            number += 1
        _check_end(named, number, capture.get(cv2.CAP_PROP_FRAME_COUNT), source)
    finally:
        capture.release()


def _unopened(source: str | int, named: str) -> str:
    if isinstance(source, int):
        return f"{named}: expected a camera; found none; give another number, or a video's file"
    return f"{named}: expected a video that OpenCV reads; it is damaged or no video; remove it"


def _check_end(named: str, number: int, said: Any, source: str | int) -> None:  # noqa: ANN401
    if isinstance(source, int):
        raise InputError(f"{named}: expected more frames; it stopped after {number}; plug it in")
    if not number:
        raise InputError(f"{named}: expected a video with frames; found none; remove it")
    if number < (1 - MOST_LOST) * said:
        raise InputError(
            f"{named}: expected {said:.0f} frames; got {number}, then damage; record it anew"
        )

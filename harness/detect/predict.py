"""New photos, videos and cameras to heat maps, masks, regions and a table of scores."""

import glob
import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data import images as pictures
from harness.data import video
from harness.data.folders import files_below, printable
from harness.detect.detector import Detector, Picture
from harness.detect.overlay import Region, on_photo, overlay, regions
from harness.detect.threshold import drift
from harness.errors import InputError
from harness.escape import in_csv
from harness.files import write_whole
from harness.progress import progress

Source = Path | int  # a photo's or a video's file, or a camera's number
COLUMNS = ("path", "score", "verdict", "regions", "milliseconds", "error")


@dataclass(frozen=True)
class Finding:
    """Hold what was found in one photo, or one frame of a video or a camera.

    Attributes:
        path: of the photo; of a frame with its number, as in ``clip.mp4#000123``.
        score: larger = more anomalous; None: it could not be read.
        verdict: ``anomalous``, ``good``, or ``unknown`` without a threshold.
        regions: parts that exceed the pixels' threshold.
        milliseconds: from the file to the score; of a frame, from its pixels.
        error: why it could not be read.

    >>> Finding("a.png", 1.5, "good").row()["regions"]
    0
    """

    path: str
    score: float | None
    verdict: str
    regions: tuple[Region, ...] = ()
    milliseconds: float | None = None
    error: str = ""

    def row(self) -> dict[str, object]:
        """Give its row of ``scores.csv``."""
        return {name: getattr(self, name) for name in COLUMNS} | {"regions": len(self.regions)}


@dataclass(frozen=True)
class Scale:
    """Hold the values of a map that a written one begins and ends at, the same for all photos.

    >>> Scale(0.0, 2.0).sixteen_bits(np.array([[0.0, 1.0, 9.0]]))[0].tolist()
    [0, 32768, 65535]
    """

    low: float
    high: float

    @classmethod
    def of(cls, detector: Detector) -> "Scale":
        """Take them from the calibration's maps: their median, and the threshold twice as far."""
        levels, limit = detector.levels, detector.pixel_threshold
        if limit is None:
            return cls(0.0, 1.0)
        low = float(levels.values[np.searchsorted(-levels.shares, -0.5)])
        return cls(low, low + 2 * max(limit.value - low, 1e-12))

    def sixteen_bits(self, values: NDArray[np.floating]) -> NDArray[np.uint16]:
        """Write a map in whole numbers; nan as 0."""
        share = np.nan_to_num((values - self.low) / (self.high - self.low)).clip(0, 1)
        return np.asarray(np.rint(65535 * share), np.uint16)


def photos_of(named: Sequence[str]) -> list[Path]:
    """Find the photos that are named: files, folders with all below them, or patterns.

    Raises:
        InputError: nothing is there.
    """
    found: dict[Path, None] = {}
    for name in named:
        if not name:  # as by a shell's variable that is not set: it would be all that is here
            raise InputError("photos: expected a file, a folder or a pattern; got an empty name")
        path = Path(name).expanduser()
        if path.is_dir():
            below = files_below(path, broken=True)
            here = [p for p in below if p.suffix.lower() in pictures.SUFFIXES]
        elif path.exists():
            here = [path]
        else:
            here = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not here:
            raise InputError(f"{name}: expected photos; found none")
        found |= dict.fromkeys(here)
    return list(found)


def sources_of(named: Sequence[str]) -> list[Source]:
    """Find the photos and videos that are named, and cameras by their numbers.

    Raises:
        InputError: nothing is there, or a video or camera is named and OpenCV is not installed.
    """
    found: dict[Source, None] = {}
    for name in named:
        if name.isdecimal() and not Path(name).exists():
            found[int(name)] = None
        else:
            for path in photos_of([name]):
                found[path] = None
    for source in filter(_has_frames, found):
        video.require_opencv(_name(source))
    return list(found)


def _has_frames(source: Source) -> bool:
    return isinstance(source, int) or source.suffix.lower() in video.SUFFIXES


def _name(source: Source) -> str:
    return f"camera {source}" if isinstance(source, int) else printable(str(source))


def _shots(source: Source, every: int) -> Iterator[tuple[str, str, Picture]]:
    """Pictures of a source, each with its name in tables and what its files are called after."""
    if not _has_frames(source):
        assert isinstance(source, Path)
        yield _name(source), source.stem, source
        return
    stem = source.stem if isinstance(source, Path) else f"camera-{source}"
    for number, frame in video.frames(source if isinstance(source, int) else str(source), every):
        yield f"{_name(source)}#{number:06}", f"{stem}-{number:06}", frame


def predict(
    detector: Detector, sources: Sequence[Source], out: Path, *, every: int = 1
) -> tuple[list[Finding], Scale]:
    """Look at photos and frames one after the other, and write what is found into a folder.

    For each: ``<name>.overlay.jpg``, ``<name>.map.png`` (16 bits; ``scores.json`` says what its
    ends are), ``<name>.mask.png``. A photo that cannot be read is a row with its reason, and so is
    the end of a video that is damaged. Ctrl-C ends a camera; what was found is written.

    Args:
        detector: with or without thresholds.
        sources: photos and videos of any size, and cameras.
        out: the folder; ``scores.csv`` and ``scores.json`` are written into it at the end.
        every: of how many frames of a video or camera one is looked at.

    Returns:
        What was found, in the sources' order, and what the written maps' ends stand for. Memory:
        that of one picture, and of a row for each.

    Raises:
        InputError: ``every`` is less than 1.
    """
    if every < 1:
        raise InputError(f"--every: expected a number of at least 1; got {every}")
    found: list[Finding] = []
    taken: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    scale = Scale.of(detector)
    of_frames = any(map(_has_frames, sources))
    total, unit = (None, "frames") if of_frames else (len(sources), "photos")
    try:
        with progress(f"looking at {unit}", total, unit=unit) as bar:
            for source in sources:
                try:
                    for name, stem, picture in _shots(source, every):
                        bar.note(name.rpartition("/")[2])
                        base = out / _free(stem, taken)
                        found.append(_look(detector, name, picture, base, scale))
                        bar.advance(1)
                except InputError as error:
                    found.append(Finding(_name(source), None, "unreadable", error=str(error)))
                    bar.advance(1)
    except KeyboardInterrupt:
        if not any(isinstance(source, int) for source in sources):
            raise
    finally:
        if found:
            _write_tables(found, out, scale)
    return found, scale


def _look(detector: Detector, name: str, picture: Picture, base: Path, scale: Scale) -> Finding:
    start = time.perf_counter()
    photo = detector.read(picture)
    try:
        (look,) = detector.look([photo])
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if math.isnan(look.score):
        raise InputError(f"{name}: expected a score; the detector gave none (nan)")
    spent = 1000 * (time.perf_counter() - start)
    verdict = "unknown"
    if detector.threshold is not None:
        judged = detector.judge(np.array([look.score], np.float32))
        verdict = "anomalous" if judged[0] else "good"
    places: list[Region] = []
    if look.values is not None:
        values = on_photo(look.values, photo.size, detector.variant.resize)
        if detector.interest is not None:
            values = np.where(detector.interest.of(photo.size), values, np.float32("nan"))
        limit = np.inf if detector.pixel_threshold is None else detector.pixel_threshold.value
        places = regions(values, limit)
        drawn = overlay(photo, values, (scale.low + scale.high) / 2, scale.high, places)
        _write_picture(base.with_name(f"{base.name}.overlay.jpg"), drawn, quality=92)
        _write_picture(
            base.with_name(f"{base.name}.map.png"), Image.fromarray(scale.sixteen_bits(values))
        )
        mask = Image.fromarray(np.where(values > limit, 255, 0).astype(np.uint8))
        _write_picture(base.with_name(f"{base.name}.mask.png"), mask)
    return Finding(name, look.score, verdict, tuple(places), round(spent, 3))


def _free(stem: str, taken: set[str]) -> str:
    """A name of its own for what is written of a picture: its stem, or that and a number.

    >>> taken = set()
    >>> [_free(stem, taken) for stem in ("a", "a-2", "a", "a")]
    ['a', 'a-2', 'a-3', 'a-4']
    """
    names = chain([stem], (f"{stem}-{n}" for n in count(2)))
    name = next(n for n in names if n not in taken)
    taken.add(name)
    return name


def _write_picture(path: Path, picture: Image.Image, **how: int) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if path.suffix == ".jpg" else "PNG", **how)
    write_whole(path, buffer.getvalue())


def _write_tables(found: Sequence[Finding], out: Path, scale: Scale) -> None:
    rows = ([f.row()[name] for name in COLUMNS] for f in found)
    write_whole(out / "scores.csv", in_csv(COLUMNS, rows))
    write_whole(out / "scores.json", as_json(found, scale))


def as_json(found: Sequence[Finding], scale: Scale) -> str:
    """Write findings as JSON, with the values that 0 and 65535 of a written map stand for."""
    content = {"map": asdict(scale), "photos": [_plain(f) for f in found]}
    return json.dumps(content, indent=1) + "\n"


def _plain(finding: Finding) -> dict[str, object]:
    return {**asdict(finding), "regions": [r._asdict() for r in finding.regions]}


def drift_of(found: Sequence[Finding], detector: Detector) -> str:
    """Say that the photos are others than those calibrated on; empty where nothing tells."""
    if detector.threshold is None:
        return ""
    scores = np.array([f.score for f in found if f.score is not None], np.float32)
    return drift(scores, detector.levels.scores, detector.threshold.value) if len(scores) else ""

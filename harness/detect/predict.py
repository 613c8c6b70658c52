"""New photos to heat maps, masks, regions and a table of scores."""

import glob
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data import images as pictures
from harness.data.folders import files_below, printable
from harness.detect.detector import Detector
from harness.detect.overlay import Region, on_photo, overlay, regions
from harness.detect.threshold import drift
from harness.errors import InputError
from harness.escape import in_csv
from harness.files import write_whole
from harness.progress import progress

COLUMNS = ("path", "score", "verdict", "regions", "milliseconds", "error")


@dataclass(frozen=True)
class Finding:
    """Hold what was found in one photo.

    Attributes:
        path: of the photo.
        score: larger = more anomalous; None: it could not be read.
        verdict: ``anomalous``, ``good``, or ``unknown`` without a threshold.
        regions: parts that exceed the pixels' threshold.
        milliseconds: from the file to the score.
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


def predict(detector: Detector, photos: Sequence[Path], out: Path) -> tuple[list[Finding], Scale]:
    """Look at photos one after the other, and write what is found into a folder.

    For each: ``<name>.overlay.jpg``, ``<name>.map.png`` (16 bits; ``scores.json`` says what its
    ends are), ``<name>.mask.png``. A photo that cannot be read is a row with its reason.

    Args:
        detector: with or without thresholds.
        photos: of any size.
        out: the folder; ``scores.csv`` and ``scores.json`` are written into it at the end.

    Returns:
        What was found, in the photos' order, and what the written maps' ends stand for.
    """
    found: list[Finding] = []
    names = _names(photos)
    out.mkdir(parents=True, exist_ok=True)
    scale = Scale.of(detector)
    try:
        with progress("looking at photos", len(photos), unit="photos") as bar:
            for photo in photos:
                bar.note(printable(photo.name))
                try:
                    found.append(_look(detector, photo, out / names[photo], scale))
                except InputError as error:
                    found.append(
                        Finding(printable(str(photo)), None, "unreadable", error=str(error))
                    )
                bar.advance(1)
    finally:
        if found:
            _write_tables(found, out, scale)
    return found, scale


def _look(detector: Detector, path: Path, base: Path, scale: Scale) -> Finding:
    start = time.perf_counter()
    photo = detector.read(path)
    try:
        (look,) = detector.look([photo])
    except InputError as error:
        raise InputError(f"{printable(str(path))}: {error}") from None
    if math.isnan(look.score):
        raise InputError(f"{printable(str(path))}: expected a score; the detector gave none (nan)")
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
    return Finding(printable(str(path)), look.score, verdict, tuple(places), round(spent, 3))


def _names(photos: Sequence[Path]) -> dict[Path, str]:
    """A name of its own for what is written of each photo: its stem, or that and a number."""
    names: dict[Path, str] = {}
    taken = set()
    for photo in photos:
        numbered = (f"{photo.stem}-{n}" for n in count(2))
        name = next(n for n in chain([photo.stem], numbered) if n not in taken)
        taken.add(name)
        names[photo] = name
    return names


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

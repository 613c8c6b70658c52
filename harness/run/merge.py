"""Joining folders of results, as several machines leave them."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.record import Record, read_at
from harness.files import written_whole

VARYING = ("environment", "measured", "rescored")  # of a record: where, when and how fast


@dataclass
class Merged:
    """Count what was joined.

    Attributes:
        copied: runs that were not there.
        same: runs that were there with the same content.
        damaged: what is wrong with files that are no records of their place; they are left out.

    >>> Merged().copied
    0
    """

    copied: int = 0
    same: int = 0
    damaged: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Copy every run of some folders of results into one, or nothing at all.

    A run comes with its energies, gallery and weights; its record is copied last, so that a merge
    that is stopped is completed by the same call. Records are the same if they differ in nothing
    but when, where and how fast they were made.

    Args:
        sources: the folders.
        into: the folder to copy to; it may be new, and may hold runs.

    Raises:
        InputError: a source that holds no runs, or records of one run that say different things.
    """
    for source in sources:
        if not (source / "runs").is_dir():
            raise InputError(
                f"{source}: expected a folder of results, with runs in it; found none; name the "
                "folder given by --results"
            )
        if source.resolve() == into.resolve():
            raise InputError(f"{source}: expected another folder than --into; got the same")
    merged = Merged()
    wanted: dict[Path, Place] = {}  # where to → where from
    known: dict[Path, Record] = {}
    conflicts = []
    for here in _places(sources, merged):
        there = Place(into, here.digest, here.dataset, here.category, here.seed)
        record = _read(here, merged)
        if record is None:
            continue
        if there.record not in known and there.record.is_file():
            known[there.record] = read_at(there)
        if there.record not in known:
            known[there.record], wanted[there.record] = record, here
        elif _content(known[there.record]) == _content(record):
            merged.same += 1
        else:
            conflicts.append(here.record)
    if conflicts:
        raise InputError(
            f"{conflicts[0]}: expected what another folder's record of the same run says; got "
            f"other metrics, images or protocol ({len(conflicts)} such runs); nothing was copied; "
            "keep the folders apart, or remove the records that are not wanted"
        )
    for path, here in wanted.items():
        _copy(here, path.parent)
        merged.copied += 1
    return merged


def _places(sources: Iterable[Path], merged: Merged) -> Iterable[Place]:
    for source in sources:
        for path in sorted((source / "runs").glob("*/*/*/seed-*.json")):
            if path.name.endswith(".failed.json"):
                continue
            try:
                yield Place.at(source, path)
            except InputError as error:
                merged.damaged.append(str(error))


def _read(place: Place, merged: Merged) -> Record | None:
    try:
        return read_at(place)
    except InputError as error:
        merged.damaged.append(str(error))
        return None


def _content(record: Record) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    return {k: v for k, v in content.items() if k not in VARYING}


def _copy(here: Place, folder: Path) -> None:
    """Copy a run's files, each whole, and its record last."""
    others = (here.energies, here.gallery, here.weights, *here.earlier())
    for path in (*(p for p in others if p.is_file()), here.record):
        with written_whole(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
    Place.at(folder.parents[3], folder / here.record.name).failure.unlink(missing_ok=True)

"""Joining folders of results, as several machines leave them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from harness.claims import RESULTS, Claims
from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.store import DamagedRecord, read_at, read_record
from harness.files import matching, written_whole
from harness.heartbeat import Holder
from harness.progress import Bar, progress

OF_RESULTS = ("runs", "claims", "cache")  # folders of which a folder of results has some
VARYING = ("environment", "measured", "rescored")  # of a record: where, when and how fast
NOTE = ".failed.json"
NEWER = ("images", "saturated")  # what records of older schemas do not say


@dataclass
class Merged:
    """Count what was joined.

    Attributes:
        copied: runs that were not there, or as a damaged record, or of fewer images.
        same: runs that were there with the same content.
        failed: notes of runs that failed and are recorded nowhere.
        left: such notes that were left where they are, as another start is at work.
        damaged: what is wrong with files that are no records of their place; they are left out.
        mended: damaged records that were there, in whose place a sound one was copied.
        empty: folders that have no runs yet.

    >>> Merged().copied
    0
    """

    copied: int = 0
    same: int = 0
    failed: int = 0
    left: int = 0
    damaged: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Copy every run of some folders of results into one, or nothing at all.

    A run comes with its energies, gallery, weights and the records that were set aside when
    images were added; its record is copied last, so that a merge that is stopped is completed by
    the same call. Records are the same if they differ in nothing but when, where and how fast they
    were made. One that another folder has set aside, as it has more images, gives way to that
    folder's. Runs that other starts are at work on in the folder are waited for.

    Args:
        sources: the folders.
        into: the folder to copy to; it may be new, and may hold runs.

    Raises:
        InputError: a source that is no folder of results, records of one run that say different
            things, or a record there of a newer version.
    """
    for source in sources:
        if not any((source / name).is_dir() for name in OF_RESULTS):
            raise InputError(
                f"{source}: expected a folder of results, with runs in it; found none; name the "
                "folder given by --results"
            )
        if source.resolve() == into.resolve():
            raise InputError(f"{source}: expected another folder than --into; got the same")
    found = [(source, list(_files(source))) for source in sources]
    with progress("reading", sum(len(files) for _, files in found), unit="records") as bar:
        join = _Join(into)
        for source, files in found:
            for path in files:
                join.look(source, path)
                bar.advance(1)
    join.refuse_conflicts()
    works = join.works()
    if works or join.aside or join.failed():
        claims = Claims(into, RESULTS)
        claims.signs.say(doing="merging")
        with claims, progress("copying", len(join.wanted), unit="runs") as bar:
            join.copy(works, claims, bar)
    join.merged.damaged += join.broken.values()
    join.merged.empty += [str(source) for source, files in found if not files]
    return join.merged


@dataclass
class _Join:
    """What is to be copied where, as the sources are read.

    Records are compared by a digest of what they say, so that no more than one or two are in
    memory at once.
    """

    into: Path
    merged: Merged = field(default_factory=Merged)
    known: dict[Place, tuple[bytes, Place]] = field(default_factory=dict)  # by the place there
    wanted: dict[Place, tuple[Place, str]] = field(default_factory=dict)  # from where, training
    aside: dict[Path, Path] = field(default_factory=dict)  # records of fewer images: to, from
    notes: dict[Place, Place] = field(default_factory=dict)
    broken: dict[Place, str] = field(default_factory=dict)  # damaged there, not yet replaced
    conflicts: list[Path] = field(default_factory=list)

    def look(self, source: Path, path: Path) -> None:
        """Read a source's record, or take a note of a failure down."""
        is_note = path.name.endswith(NOTE)
        try:
            name = path.name.replace(NOTE, ".json")
            here = Place.at(source, path.with_name(name))
            record = None if is_note else read_at(here)
        except InputError as error:
            self.merged.damaged.append(str(error))
            return
        there = Place(self.into, here.digest, here.dataset, here.category, here.seed)
        self._look_there(there)
        if record is None:
            self.notes.setdefault(there, here)
            return
        says = _digest(record)
        for earlier in here.earlier():
            if not (target := there.record.with_name(earlier.name)).exists():
                self.aside.setdefault(target, earlier)
        if there not in self.known or self._gives_way(there, here, record, says):
            self.known[there] = says, here
            self.wanted[there] = here, record.training_digest
        elif not self._is_same(there, record, says) and not _is_set_aside(
            record, self.known[there][1]
        ):
            self.conflicts.append(path)
        else:
            self.merged.same += 1

    def _look_there(self, there: Place) -> None:
        """Read what the folder has of a run, once; a damaged record is as good as none."""
        if there in self.known or not there.record.is_file():
            return
        try:
            self.known[there] = _digest(read_at(there)), there
        except DamagedRecord as error:
            self.broken[there] = str(error)

    def _gives_way(self, there: Place, here: Place, record: Record, says: bytes) -> bool:
        """Whether the known record is one that the folder with this one has set aside."""
        before, known = self.known[there]
        return before != says and _is_set_aside(read_at(known), here)

    def _is_same(self, there: Place, record: Record, says: bytes) -> bool:
        before, known = self.known[there]
        return before == says or _agree(read_at(known), record)

    def refuse_conflicts(self) -> None:
        """Stop before anything is copied where records say different things."""
        if self.conflicts:
            raise InputError(
                f"{self.conflicts[0]}: expected what another folder's record of the same run "
                f"says; got other metrics, images or protocol ({len(self.conflicts)} such runs); "
                "nothing was copied; keep the folders apart, or remove the records that are not "
                "wanted"
            )

    def works(self) -> dict[str, list[Place]]:
        """Name the trainings that are written, as :func:`harness.run.share.work_of` does."""
        works: dict[str, list[Place]] = {}
        for there, (_, training) in self.wanted.items():
            energies = _training(there, training).energies
            works.setdefault(energies.relative_to(self.into / "runs").as_posix(), []).append(there)
        return works

    def failed(self) -> list[Place]:
        """List the runs that failed in a source, of which the folder knows nothing."""
        known = (there for there in self.notes if there not in self.known)
        return [there for there in known if not there.failure.exists()]

    def copy(self, works: Mapping[str, Sequence[Place]], claims: Claims, bar: Bar) -> None:
        """Copy what is wanted, training by training, each while it is held."""

        def waiting(work: str, holder: Holder | None) -> None:
            who = f"another start ({holder.where})" if holder else "another start"
            bar.note(f"waiting for {who}, which is at work on {work}")

        for work in claims.each(works, waiting):
            for there in works[work]:
                self._copy(there)
                bar.advance(1)
        for target, earlier in self.aside.items():
            _copied(earlier, target)
        if not claims.alone():  # a start at work would take them for news of its own runs
            self.merged.left = len(self.failed())
            return
        for there in self.failed():
            _copied(self.notes[there].failure, there.failure)
            self.merged.failed += 1

    def _copy(self, there: Place) -> None:
        """Copy a run's files, each whole, and its record last, unless another start has now."""
        here, training = self.wanted[there]
        with suppress(DamagedRecord):
            now = read_at(there) if there.record.is_file() else None
            if now and not _is_set_aside(now, here):
                if not _agree(now, read_at(here)):
                    raise InputError(
                        f"{there.record}: expected what {here.record} says; got other metrics, "
                        "images or protocol, recorded by another start meanwhile; "
                        f"{self.merged.copied} runs were copied before"
                    )
                self.merged.same += 1
                return
        own = [(here.gallery, there.gallery), (here.weights, there.weights)]
        trained, to = _training(here, training), _training(there, training)
        if trained.energies.is_file() and (to == there or not to.energies.is_file()):
            own.append((trained.energies, to.energies))
            _forget(to.checkpoint)
        if here.weights.is_file():
            _forget(there.again)
        for source, target in own:
            if source.is_file():
                _copied(source, target)
        _copied(here.record, there.record)
        there.failure.unlink(missing_ok=True)
        self.merged.copied += 1
        self.merged.mended += filter(None, [self.broken.pop(there, "")])


def _files(source: Path) -> Iterator[Path]:
    return iter(sorted(matching(source / "runs", "*/*/*/seed-*.json")))


def _training(place: Place, digest: str) -> Place:
    return Place(place.results, digest, place.dataset, place.category, place.seed)


def _forget(checkpoint: Path) -> None:
    """Remove where a training of the folder stood that is not needed any more."""
    for path in checkpoint.parent.glob(f"{checkpoint.name}*"):
        path.unlink(missing_ok=True)


def _content(record: Record) -> dict[str, Any]:
    """What a record says; the digest stands for the fields, which an old one may not all have."""
    content: dict[str, Any] = msgspec.to_builtins(record)
    return {k: v for k, v in content.items() if k not in (*VARYING, "variant")}


def _digest(record: Record) -> bytes:
    return sha256(msgspec.json.encode(_content(record), order="deterministic")).digest()


def _agree(one: Record, other: Record) -> bool:
    """Whether two records say the same, as far as both say anything: old ones say less."""
    a, b = _content(one), _content(other)
    silent = {k for k in NEWER if a.get(k) is None or b.get(k) is None}
    said = [{k: v for k, v in c.items() if k not in {*silent, "data"}} for c in (a, b)]
    unknown = (None, "")
    data = (
        x == y or x in unknown or y in unknown
        for x, y in ((a["data"][k], b["data"][k]) for k in a["data"])
    )
    return said[0] == said[1] and all(data)


def _is_set_aside(record: Record, place: Place) -> bool:
    """Whether a record is among those that were set aside at a place when images were added."""
    for path in place.earlier():
        with suppress(InputError):
            if _agree(read_record(path), record):
                return True
    return False


def _copied(source: Path, target: Path) -> None:
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)

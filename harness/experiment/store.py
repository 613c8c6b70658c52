"""Records as files: written whole or not at all, read and checked, and listed."""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from harness.errors import InputError, see_that_it_is_damage
from harness.experiment.older import MIGRATIONS
from harness.experiment.place import Place
from harness.experiment.record import SCHEMA, Images, Record, check, see_that_it_agrees
from harness.experiment.variant import Variant
from harness.files import matching, write_whole

Made = TypeVar("Made")
_DECODER = msgspec.json.Decoder(Record)
# Records that are in use, by their files as they were: several tables of a page ask for the same.
_HELD: WeakValueDictionary[tuple[str, int, int, int], Record] = WeakValueDictionary()
_KEPT: list[dict[str, Record]] = []  # what keeps them in use, by path; see :func:`held`
_MADE: dict[str, Any] = {}  # of them, while they are kept; see :func:`once`


MANY = 50_000  # objects that are worth it: those of some thousand records


class DamagedRecord(InputError):
    """Say which file is no record, or not that of its place: as good as none, and made anew.

    What the system does not let be read is none of these: it may be sound.

    >>> raise DamagedRecord("seed-0.json: expected a run record; ...")
    Traceback (most recent call last):
    harness.experiment.store.DamagedRecord: seed-0.json: expected a run record; ...
    """


def write_record(place: Place, record: Record) -> None:
    """Write a record, and remove an earlier failure's note.

    Raises:
        ValueError: a number is not finite.
    """
    content = json.dumps(msgspec.to_builtins(record), indent=1, allow_nan=False)
    write_whole(place.record, content + "\n")
    with suppress(OSError):  # a folder in its place
        place.failure.unlink(missing_ok=True)


def write_failure(place: Place, reason: str, **details: Any) -> None:  # noqa: ANN401
    """Leave a note of why a run failed; it is tried again at the next start."""
    note = {"digest": place.digest, "seed": place.seed, "reason": reason, **details}
    write_whole(place.failure, json.dumps(note, indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Read a record, of this schema or an earlier one.

    Raises:
        DamagedRecord: it is none; the file and what is wrong are named.
        InputError: it is one of a newer version, which is nothing to be made anew, or the system
            does not let it be read.
        RunFailed: too many files are open.
    """
    name = str(path)
    if _KEPT and (before := _KEPT[0].get(name)):
        return before
    try:
        about = path.stat()
    except OSError:
        return _read_closely(path)  # says what is wrong
    key = (name, about.st_size, about.st_mtime_ns, about.st_ino)
    if (record := _HELD.get(key)) is None:
        record = _HELD[key] = _read_sound(path) or _read_closely(path)
    for kept in _KEPT:
        kept[name] = record
    return record


@contextmanager
def held() -> Iterator[None]:
    """Keep what is read inside, so that several pages of the same records read each file once.

    A record that was read stays as it was, whatever another process makes of its file meanwhile;
    one that is new is read.

    >>> with held():
    ...     pass
    """
    kept: dict[str, Record] = {}
    _KEPT.append(kept)
    try:
        yield
    finally:
        _KEPT[:] = [other for other in _KEPT if other is not kept]  # an equal one is another's
        if not _KEPT:
            _MADE.clear()


def once(what: str, make: Callable[[], Made]) -> Made:
    """Make something of records once while they are held, and each time otherwise.

    >>> with held():
    ...     once("a list", list) is once("a list", list)
    True
    >>> once("a list", list) is once("a list", list)
    False
    """
    if not _KEPT:
        return make()
    if what not in _MADE:
        _MADE[what] = make()
    made: Made = _MADE[what]
    return made


def _read_sound(path: Path) -> Record | None:
    """Read what :func:`_read_closely` would, fast; None for all but sound ones of this schema."""
    try:
        record = _DECODER.decode(path.read_bytes().decode())
        see_that_it_agrees(record, _variant(msgspec.msgpack.encode(record.variant)))
        if record.images is not None:
            _share(record.images)
    except Exception:  # whatever it is, it is looked for again, and said there
        return None
    return record if record.schema == SCHEMA else None


def _share(images: Images) -> None:
    """Keep once what a category's test images are: thousands of records list the same ones."""
    for name in ("path", "sha256", "defect", "defect_pixels"):
        msgspec.structs.force_setattr(images, name, _column(tuple(getattr(images, name))))


@lru_cache(maxsize=1024)
def _column(values: tuple[Any, ...]) -> list[Any]:
    return list(values)


@lru_cache(maxsize=4096)
def _variant(fields: bytes) -> Variant:
    """The variant of these fields: many records are of one, and checking it takes long."""
    return Variant.from_fields(msgspec.msgpack.decode(fields))


def _read_closely(path: Path) -> Record:
    """Read a record of any schema, step by step, and say what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        see_that_it_is_damage(path, error)
        raise _damaged(path, f"it cannot be read ({error})") from None
    content = content if isinstance(content, dict) else {}
    schema = content.get("schema", "none")
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(
            f"{path}: expected record schema {SCHEMA}; got {schema}, of a newer version; install "
            "that one, or use another --results"
        )
    try:
        if content and schema not in (*MIGRATIONS, SCHEMA):
            raise ValueError(f"expected record schema {SCHEMA}; got {schema}")
        for version in range(schema if content else SCHEMA, SCHEMA):
            MIGRATIONS[version](content)
        record = msgspec.convert(content, Record)
        check(record)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, str(error)) from None
    return record


def _damaged(path: Path, why: str) -> DamagedRecord:
    return DamagedRecord(f"{path}: expected a run record; {why}; `harness run` makes it anew")


def read_at(place: Place) -> Record:
    """Read the record of one run, and see that it is this run's.

    Raises:
        DamagedRecord: it is damaged, or was copied or moved here from another run's place.
        InputError: it is one of a newer version, or cannot be read.
    """
    record = read_record(place.record)
    wanted = (place.digest, place.dataset, place.category, place.seed)
    found = (record.digest, record.dataset, record.category, record.seed)
    if found != wanted:
        raise DamagedRecord(
            f"{place.record}: expected the record of {wanted}; got that of {found}; `harness run` "
            "makes it anew"
        )
    return record


def read_sound(place: Place, *, damaged: Callable[[InputError], object]) -> Record | None:
    """Read the record of one run; None where there is none, or a damaged one.

    Args:
        place: the run's.
        damaged: is given what is wrong with a damaged one.

    Raises:
        InputError: it is one of a newer version, or cannot be read.
    """
    try:
        return read_at(place) if place.record.is_file() else None
    except DamagedRecord as error:
        damaged(error)
        return None


def read_records(
    results: Path, *, damaged: Callable[[InputError], object] | None = None
) -> Iterator[Record]:
    """Yield every record below ``results``, in the order of their paths.

    Args:
        results: the folder of records.
        damaged: is given what is wrong with a file that is no record, or not that of its place,
            or cannot be read, which is then skipped; None: it is raised.

    >>> from harness.bundled import bundled
    >>> records = list(read_records(bundled("results", "baseline")))
    >>> sorted({r.category for r in records}), "image_auroc" in records[0].metrics
    (['brick', 'grass', 'gravel'], True)
    """
    for path in sorted(matching(results / "runs", "*/*/*/seed-*.json")):
        if path.name.endswith(".failed.json"):
            continue
        try:
            yield read_at(Place.at(results, path))
        except InputError as error:
            if damaged is None:
                raise
            damaged(error)


@contextmanager
def uncollected(*, kept: bool = True) -> Iterator[None]:
    """Pause the garbage collector where thousands of things are made.

    Args:
        kept: whether they stay, as records do; of many, later collections leave them out then,
            each of which would look at every one.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if kept and was and gc.get_count()[0] > MANY:
            gc.freeze()
        if was:
            gc.enable()

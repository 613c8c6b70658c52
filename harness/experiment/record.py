"""Run records: what remains of a run, in files whose names are of :mod:`harness.experiment.place`.

``results/runs/<variant digest>/<dataset>/<category>/seed-<n>.json``. A record appears whole or
not at all; a failed run leaves ``seed-<n>.failed.json`` instead. Done means the record exists.

The blocks are msgspec structures: it imports in 0.04 s, reads and checks 81 records in 0.05 s, and
gives one line for what is wrong.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from harness.errors import InputError
from harness.experiment.feature_spec import Size
from harness.experiment.measured import Block, Environment, Macs, Measured, Metrics, Parameters
from harness.experiment.older import MIGRATIONS
from harness.experiment.place import Place
from harness.experiment.variant import Variant
from harness.files import write_whole

SCHEMA = 3


class Weights(Block, kw_only=True):
    """Say which weights the backbone had.

    >>> Weights(backbone="resnet18.tv_in1k", source="random", sha256="").source
    'random'
    """

    backbone: str
    source: str  # "folder", "hub", "package NAME" or "random"
    sha256: str


class Data(Block, kw_only=True, omit_defaults=False):
    """Say which images a run saw, and how they stand to the published ones."""

    digest: str
    train: int
    test: int
    defective: int
    masks: int
    layout: str
    disturbance: str
    form: str  # as in "PNG 900x900"; empty where it is not known
    official: bool | None  # whether the counts are the published ones; None: none are known
    complete: bool | None  # false: fewer images than published
    published_form: bool | None  # false: stored in another form than the published
    copy: str  # the same in words


class Protocol(Block, kw_only=True, omit_defaults=False):
    """Say how scores became metrics."""

    aupro_fpr_limit: float
    resize: str
    masks: str
    map_size: Size


class EpochSelection(Block, kw_only=True, omit_defaults=False):
    """Say which epoch counts, by which rule, and whether that rule saw the test's labels.

    >>> EpochSelection(rule="last", epoch=20, oracle=False).oracle
    False
    """

    rule: str
    epoch: int
    oracle: bool


class Epoch(Block, kw_only=True):
    """Hold one evaluated epoch; ``loss`` and ``holdout`` are means over images.

    ``validation`` holds ``image_auroc`` and ``pixel_auroc`` of held-out good images and their
    defective copies, made without a label; None: the run has no validation.

    >>> Epoch(epoch=5, metrics={"image_auroc": 0.9}).holdout is None
    True
    """

    epoch: int
    loss: float | None = None
    metrics: Metrics
    holdout: float | None = None
    validation: Metrics | None = None


class Images(Block, kw_only=True):
    """List what each test image got at the epoch that counts, column by column.

    Attributes:
        path: below the data root.
        sha256: the first 12 digits of its content's.
        defect: its kind; ``good`` for none.
        score: larger = more anomalous.
        defect_pixels: of its mask at the map's size; empty without masks or maps, as what follows.
        pixels: of its map; a list where they differ from image to image.
        found: the share of all normal pixels that score lower than its defective ones, on average.
        clear: the share of all defective pixels that score higher than its normal ones.

    >>> Images(path=["a.png"], defect=["scratch"], score=[0.7]).labels
    [True]
    """

    path: list[str]
    sha256: list[str] = msgspec.field(default_factory=list)
    defect: list[str]
    score: list[float]
    defect_pixels: list[int] = msgspec.field(default_factory=list)
    pixels: int | list[int] = 0
    found: list[float | None] = msgspec.field(default_factory=list)
    clear: list[float | None] = msgspec.field(default_factory=list)

    @property
    def labels(self) -> list[bool]:
        """Say which are defective."""
        return [kind != "good" for kind in self.defect]


class Rescored(Block, kw_only=True, omit_defaults=False):
    """Say with which code metrics were computed anew from saved energies, and when."""

    harness: str
    commit: str | None
    finished: str


class Record(Block, kw_only=True, weakref=True):
    """Hold all that remains of a run; every table is a query over records.

    >>> Record.__struct_fields__[:4]
    ('schema', 'digest', 'training_digest', 'variant')
    """

    schema: int
    digest: str
    training_digest: str
    variant: dict[str, Any]
    dataset: str
    category: str
    seed: int
    smoke: bool
    random_weights: bool
    weights: Weights
    data: Data
    metrics: Metrics
    protocol: Protocol
    selection: EpochSelection
    epochs: list[Epoch]
    loss: list[float]  # of every epoch; empty for what is fitted, not trained
    parameters: Parameters
    macs: Macs
    environment: Environment
    measured: Measured
    images: Images | None = None  # None: an old record
    saturated: list[float] | None = None  # by tap: share of values at the map's end
    rescored: Rescored | None = None


_DECODER = msgspec.json.Decoder(Record)
# Records that are in use, by their files as they were: several tables of a page ask for the same.
_HELD: WeakValueDictionary[tuple[str, int, int, int], Record] = WeakValueDictionary()


class DamagedRecord(InputError):
    """Say which file is no record, or not that of its place: as good as none, and made anew.

    >>> raise DamagedRecord("seed-0.json: expected a run record; ...")
    Traceback (most recent call last):
    harness.experiment.record.DamagedRecord: seed-0.json: expected a run record; ...
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
        InputError: it is one of a newer version, which is nothing to be made anew.
    """
    try:
        about = path.stat()
    except OSError:
        return _read_closely(path)  # says what is wrong
    key = (str(path), about.st_size, about.st_mtime_ns, about.st_ino)
    if (record := _HELD.get(key)) is None:
        record = _HELD[key] = _read_sound(path) or _read_closely(path)
    return record


def _read_sound(path: Path) -> Record | None:
    """Read what :func:`_read_closely` would, fast; None for all but sound ones of this schema."""
    try:
        record = _DECODER.decode(path.read_bytes().decode())
        _see_that_it_agrees(record, _variant(msgspec.msgpack.encode(record.variant)))
    except Exception:  # whatever it is, it is looked for again, and said there
        return None
    return record if record.schema == SCHEMA else None


@lru_cache(maxsize=4096)
def _variant(fields: bytes) -> Variant:
    """The variant of these fields: many records are of one, and checking it takes long."""
    return Variant.from_fields(msgspec.msgpack.decode(fields))


def _read_closely(path: Path) -> Record:
    """Read a record of any schema, step by step, and say what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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


def check(record: Record) -> None:
    """See that the parts of a record agree with each other, as in every one that was written.

    Raises:
        ValueError: they do not; it says which.
    """
    _see_that_it_agrees(record, Variant.from_fields(record.variant))


def _see_that_it_agrees(record: Record, variant: Variant) -> None:
    if (variant.digest, variant.training.digest) != (record.digest, record.training_digest):
        raise ValueError(
            f"digest: expected {variant.digest} and {variant.training.digest}, those of its "
            f"variant; got {record.digest} and {record.training_digest}"
        )
    epochs = [e.epoch for e in record.epochs]
    if record.selection.epoch not in epochs:
        raise ValueError(f"epoch: expected one of {epochs}; got {record.selection.epoch}")
    if record.images is None:
        return
    listed = msgspec.structs.asdict(record.images)
    always = ("path", "defect", "score")
    columns = {n: len(c) for n, c in listed.items() if isinstance(c, list) and (c or n in always)}
    if len(set(columns.values())) > 1:
        raise ValueError(f"images: expected as many in every column; got {columns}")


def _damaged(path: Path, why: str) -> DamagedRecord:
    return DamagedRecord(f"{path}: expected a run record; {why}; `harness run` makes it anew")


def read_at(place: Place) -> Record:
    """Read the record of one run, and see that it is this run's.

    Raises:
        DamagedRecord: it is damaged, or was copied or moved here from another run's place.
        InputError: it is one of a newer version.
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
        InputError: it is one of a newer version.
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
            which is then skipped; None: it is raised.

    >>> from harness.bundled import bundled
    >>> records = list(read_records(bundled("results", "baseline")))
    >>> sorted({r.category for r in records}), "image_auroc" in records[0].metrics
    (['brick', 'grass', 'gravel'], True)
    """
    for path in sorted((results / "runs").glob("*/*/*/seed-*.json")):
        if path.name.endswith(".failed.json"):
            continue
        try:
            yield read_at(Place.at(results, path))
        except InputError as error:
            if damaged is None:
                raise
            damaged(error)

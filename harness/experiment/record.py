"""Run records: what remains of a run, and where.

``results/runs/<variant digest>/<dataset>/<category>/seed-<n>.json``. A record appears whole or
not at all; a failed run leaves ``seed-<n>.failed.json`` instead. Done means the record exists.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeGuard

from harness.errors import InputError
from harness.experiment.variant import Variant
from harness.files import write_whole

SCHEMA = 1
REQUIRED = (
    "schema", "digest", "variant", "dataset", "category", "seed", "weights", "data",
    "metrics", "epochs", "selection", "parameters", "macs", "environment", "measured",
    "protocol", "loss", "smoke", "random_weights",
)  # fmt: skip
BLOCKS = ("variant", "weights", "data", "metrics", "selection", "parameters", "measured")


@dataclass(frozen=True)
class Place:
    """Where the files of one run lie below ``results``."""

    results: Path
    digest: str
    dataset: str
    category: str
    seed: int

    @classmethod
    def of(cls, results: Path, variant: Variant, dataset: str, category: str, seed: int) -> Self:
        """The place of a variant's run."""
        return cls(results, variant.digest, dataset, category, seed)

    def _file(self, suffix: str) -> Path:
        folder = self.results / "runs" / self.digest / self.dataset / self.category
        return folder / f"seed-{self.seed}{suffix}"

    @property
    def record(self) -> Path:
        """The record."""
        return self._file(".json")

    @property
    def failure(self) -> Path:
        """The note that a failed run leaves."""
        return self._file(".failed.json")

    @property
    def raw(self) -> Path:
        """The test images' energies at every evaluated epoch."""
        return self._file(".npz")

    @property
    def gallery(self) -> Path:
        """A few test images with mask and anomaly map, for the report."""
        return self._file(".gallery.npz")


def write_record(place: Place, record: Mapping[str, Any]) -> None:
    """Write a record, and remove an earlier failure's note."""
    missing = [k for k in REQUIRED if k not in record]
    assert not missing, f"a record needs {missing}"
    write_whole(place.record, json.dumps(record, indent=1, allow_nan=False) + "\n")
    place.failure.unlink(missing_ok=True)


def write_failure(place: Place, reason: str, **details: Any) -> None:  # noqa: ANN401
    """Leave a note of why a run failed; it is tried again at the next start."""
    note = {"digest": place.digest, "seed": place.seed, "reason": reason, **details}
    write_whole(place.failure, json.dumps(note, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """A record; an InputError names the file if it is not one."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a run record; it cannot be read ({error})") from None
    missing = [k for k in REQUIRED if k not in record] if isinstance(record, dict) else REQUIRED
    if missing:
        raise InputError(f"{path}: expected a run record; it lacks {', '.join(missing)}")
    if broken := [k for k in BLOCKS if not isinstance(record[k], dict)]:
        raise InputError(f"{path}: expected a run record; {', '.join(broken)} is no block")
    if record["schema"] != SCHEMA:
        raise InputError(f"{path}: expected record schema {SCHEMA}; got {record['schema']}")
    return dict(record)


def read_records(results: Path) -> Iterator[dict[str, Any]]:
    """Every record below ``results``, in the order of their paths."""
    for path in sorted((results / "runs").glob("*/*/*/seed-*.json")):
        if not path.name.endswith(".failed.json"):
            yield read_record(path)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The metrics that exist: an undefined one is absent from a record, not zero."""
    return {k: float(v) for k, v in values.items() if math.isfinite(v)}


def is_number(value: object) -> TypeGuard[float]:
    """Whether a metric read from a record is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)

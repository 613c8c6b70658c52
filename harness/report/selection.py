"""Which records a table, plot or sentence is about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError, warn
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.store import read_sound, uncollected
from harness.experiment.study import Study
from harness.studies import get_study


@dataclass(frozen=True)
class Selection:
    """Select the records of a study on some categories, and read them once.

    Only the files of its own runs are opened, so a damaged record of another study does no harm.

    Attributes:
        study: as it was run.
        results: the folder of records.
        dataset: its name in records.
        categories: those that count.
        tolerant: whether a record that is damaged is left out, and named by :attr:`damaged`.

    >>> from harness.studies import STUDIES
    >>> grass = Selection(STUDIES["surfaces"], Path("nowhere"), "surfaces", ("grass",))
    >>> grass.runs_of_a_variant, grass.records
    (3, ())
    """

    study: Study
    results: Path
    dataset: str
    categories: tuple[str, ...]
    tolerant: bool = False

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """List where the runs' files are or will be, variant by variant."""
        return tuple(
            Place.of(self.results, variant, self.dataset, category, seed)
            for variant in self.study.variants
            for category in dict.fromkeys(self.categories)
            for seed in dict.fromkeys(self.study.seeds)
        )

    @property
    def records(self) -> tuple[Record, ...]:
        """Give what is recorded, in the order of variants, categories and seeds.

        A damaged record, or another run's, is named and left out.

        Raises:
            InputError: one of the study's own records is of a newer version.
        """
        return self._read[0]

    @property
    def damaged(self) -> tuple[str, ...]:
        """Say what is wrong with records that cannot be read, a line each."""
        return tuple(map(str, self._read[1]))

    @cached_property
    def _read(self) -> tuple[tuple[Record, ...], list[InputError]]:
        records: list[Record] = []
        damaged: list[InputError] = []
        tell = damaged.append if self.tolerant else warn
        with uncollected():
            for place in self.places:
                try:
                    record = read_sound(place, damaged=tell)
                except InputError as error:  # of a newer version
                    if not self.tolerant:
                        raise
                    damaged.append(error)
                    continue
                records += [record] if record else []
        return tuple(records), damaged

    @cached_property
    def by_variant(self) -> dict[str, dict[tuple[str, int], Record]]:
        """Give the records by digest, then by category and seed."""
        found: dict[str, dict[tuple[str, int], Record]] = {}
        for record in self.records:
            found.setdefault(record.digest, {})[record.category, record.seed] = record
        return found

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """Keep what was computed of the records, as several parts of a page ask for the same."""
        return {}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Map the digest of each variant to its name; the first one is the reference."""
        return self.study.labels()

    @property
    def runs_of_a_variant(self) -> int:
        """Count the runs that every variant has when all are done."""
        return len(self.categories) * len(self.study.seeds)

    @property
    def runs(self) -> int:
        """Count the runs of the whole study when all are done."""
        return self.runs_of_a_variant * len(self.study.variants)

    def failures(self) -> list[str]:
        """Read why runs failed, from their notes; one that has a record has not failed."""
        recorded = {(r.digest, r.category, r.seed) for r in self.records}
        missing = (p for p in self.places if (p.digest, p.category, p.seed) not in recorded)
        return [reason_in(p.failure) for p in missing if p.failure.is_file()]


def reason_in(note: Path) -> str:
    """Read why a run failed; a note that is damaged says no more than that."""
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, LookupError, TypeError):
        return f"its note is damaged ({note})"


def select(
    study: str,
    results: str | Path,
    *,
    dataset: str,
    categories: Sequence[str],
    **asked: Any,  # noqa: ANN401
) -> Selection:
    """Select a study's records as a notebook is asked for them; damaged ones are left out.

    Args:
        study: its name, or the path of its file.
        results: the folder of records.
        dataset: its name in records.
        categories: those that count; none: all that are published of the data set.
        asked: the options of :func:`harness.studies.get_study`.

    >>> select("kernels", "nowhere", dataset="mvtec_ad", categories=["screw"], seeds=[0]).runs
    2
    """
    published = PUBLISHED_COUNTS.get(dataset.removeprefix("disturbed-"), {})
    chosen = tuple(categories) or tuple(published)
    return Selection(get_study(study, **asked), Path(results), dataset, chosen, tolerant=True)

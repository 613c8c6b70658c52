"""Two sets of records side by side, paired run by run: another machine, commit or setting."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import InputError, warn
from harness.experiment.record import Record
from harness.experiment.store import read_records
from harness.experiment.values import show
from harness.experiment.variant import Variant
from harness.files import scratch
from harness.report.differences import Difference, Pairs, Source, corrected, difference, own_photos
from harness.studies import STUDIES

Key = tuple[str, str, str, int]  # digest, data set, category, seed


@dataclass(frozen=True)
class Compared:
    """Hold what two sets of records have in common, and how one differs from the other.

    Attributes:
        rows: (data set, metric, mean of A, mean of B, the difference B − A), a row each.
        pairs: runs that both have, on the same images.
        only: runs that A alone has, and B alone.
        other_images: runs that both have, on different images.

    >>> compare([], []).pairs
    0
    """

    rows: Sequence[tuple[str, str, float, float, Difference]]
    pairs: int
    only: tuple[int, int]
    other_images: int


def compare(
    one: Iterable[Record], other: Iterable[Record], metrics: Sequence[str] = ("image_auroc",)
) -> Compared:
    """Compare the runs of two sets of records, paired by variant, category and seed.

    Args:
        one: A.
        other: B, which a positive difference is in favour of.
        metrics: of :data:`harness.score.metrics.METRICS`; Holm's correction is over the variants
            of a data set and metric.
    """
    a, b = ({_key(r): r for r in records} for records in (one, other))
    common = [k for k in a if k in b]
    same = [k for k in common if a[k].data.digest == b[k].data.digest]
    rows = []
    for dataset in dict.fromkeys(k[1] for k in same):
        decides: Source = "photos" if own_photos(dataset) else "seeds"
        for metric in metrics:
            found, means = [], []
            for digest in dict.fromkeys(k[0] for k in same if k[1] == dataset):
                pairs: Pairs = {}
                for key in same:
                    has = metric in a[key].metrics and metric in b[key].metrics
                    if key[:2] == (digest, dataset) and has:
                        pairs.setdefault(key[2], []).append((b[key], a[key]))
                if pairs:
                    runs = [pair for of in pairs.values() for pair in of]
                    found.append(difference(name_of(runs[0][0]), pairs, metric, decides))
                    means.append([_mean([p[side] for p in runs], metric) for side in (1, 0)])
            rows += [
                (dataset, metric, mean[0], mean[1], d)
                for mean, d in zip(means, corrected(found), strict=True)
            ]
    only = (len(a) - len(common), len(b) - len(common))
    return Compared(rows, len(same), only, len(common) - len(same))


def name_of(record: Record) -> str:
    """Name a record's variant as the first study that has it does, else by what it changes."""
    for study in STUDIES.values():
        if label := study.labels().get(record.digest):
            return f"{study.name}: {label}"
    try:
        changes = Variant.from_fields(record.variant).changes()
    except InputError:
        return record.digest
    return ", ".join(f"{field}={show(value)}" for field, value in changes.items()) or "defaults"


def records_of(text: str, results: Path) -> tuple[Record, ...]:
    """Read the records of a folder, or of a commit of the repository that holds ``results``.

    Raises:
        InputError: it is neither, or has no record.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        found = tuple(read_records(folder, damaged=warn))
    else:
        found = _at_commit(text, results)
    if not found:
        raise InputError(f"{text}: expected run records; found none; run a study there first")
    return found


def _at_commit(commit: str, results: Path) -> tuple[Record, ...]:
    wrong = InputError(
        f"{commit}: expected a folder of results, or a commit of the repository that holds "
        f"{results}; found neither"
    )
    if not results.is_dir():
        raise wrong
    try:
        full = _git(results, "rev-parse", "--verify", "--quiet", "--end-of-options",
                    f"{commit}^{{commit}}").decode().strip()  # fmt: skip
        packed = _git(results, "archive", "--format=tar", full, "runs")
    except (OSError, subprocess.CalledProcessError):
        raise wrong from None
    with scratch(Path(tempfile.gettempdir())) as there:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(there, filter="data")
        return tuple(read_records(there, damaged=warn))


def _git(folder: Path, *words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
    return done.stdout


def _key(record: Record) -> Key:
    return record.digest, record.dataset, record.category, record.seed


def _mean(records: Iterable[Record], metric: str) -> float:
    return float(np.mean([100 * r.metrics[metric] for r in records]))

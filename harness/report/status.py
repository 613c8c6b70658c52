"""How far a study is, read off the files of its results alone, while it runs or after."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from harness.data.counts import PUBLISHED_COUNTS
from harness.experiment.place import Place
from harness.experiment.study import Study
from harness.heartbeat import Holder, Running
from harness.report.selection import Selection, reason_in

METRICS = ("image_auroc", "pixel_auroc")  # by which the best is told; the first that there is
Cell = tuple[str, str, str, int]  # digest, data set, category, seed


class _Finished(msgspec.Struct):
    finished: str = ""


class _Glance(msgspec.Struct):
    """The few fields of a record that are needed here; the rest is passed over."""

    metrics: dict[str, float]
    measured: _Finished


@dataclass(frozen=True)
class Status:
    """Say how far a study is on a data set.

    Attributes:
        study: its name.
        dataset: its name in records.
        runs: how many there are in all.
        recorded: how many have a record.
        running: which are trained now: their name, where, since when, epoch and epochs.
        failed: which have failed, and why; they are tried again at the next start.
        damaged: records that cannot be read.
        hourly: runs recorded an hour, since the first of the starts that are at work began.
        seconds_left: at this rate; None: nobody is at work, or nothing is recorded yet.
        best: variant, metric, its mean over the recorded runs, and their number.

    >>> Status("kernels", "mvtec_ad", runs=90, recorded=30).waiting
    60
    """

    study: str
    dataset: str
    runs: int
    recorded: int = 0
    running: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[tuple[str, str]] = ()
    damaged: Sequence[str] = ()
    hourly: float | None = None
    seconds_left: float | None = None
    best: tuple[str, str, float, int] | None = None

    @property
    def waiting(self) -> int:
        """Count the runs that nobody has begun."""
        return self.runs - sum(
            (self.recorded, len(self.running), len(self.failed), len(self.damaged))
        )


@dataclass
class _Seen:
    """What was found of a study's runs."""

    records: dict[str, list[_Glance]] = field(default_factory=dict)  # by digest
    running: list[dict[str, Any]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def status(selection: Selection, starts: Iterable[Holder], *, now: datetime) -> Status:
    """Look at every run of a selection, once.

    Args:
        selection: whose runs.
        starts: what the starts at work in the folder say (:func:`harness.heartbeat.holders`).
        now: the time.
    """
    starts = list(starts)
    at_work = {_cell(run): (start, run) for start in starts for run in start.running}
    seen = _Seen()
    for place in selection.places:
        _look(place, selection, at_work, seen)
    done = [glance for glances in seen.records.values() for glance in glances]
    began = [s.started for s in starts if s.study == selection.study.name and s.started]
    hourly = _hourly(done, min(began), now) if began else None
    left = selection.runs - len(done) - len(seen.failed)
    return Status(
        selection.study.name,
        selection.dataset,
        runs=selection.runs,
        recorded=len(done),
        running=seen.running,
        failed=seen.failed,
        damaged=seen.damaged,
        hourly=hourly,
        seconds_left=left / hourly * 3600 if hourly else None,
        best=_best(seen.records, selection.labels),
    )


def selections(
    study: Study, results: Path, dataset: str = "", categories: Sequence[str] = ()
) -> Iterator[Selection]:
    """Yield a study's selections on the data sets that its runs have left files of.

    Of a published data set all of the study's categories count; of other images those that some
    run has left a file of, as nothing else is known of them here.

    Args:
        study: which.
        results: the folder of records.
        dataset: only this one.
        categories: only these.
    """
    seen: dict[str, set[str]] = {}
    smoke = all(v.smoke for v in study.variants)  # which a plan runs on one category
    for digest in study.labels():
        for folder in (results / "runs" / digest).glob("*/*"):
            seen.setdefault(folder.parent.name, set()).add(folder.name)
    for name in sorted(seen) if not dataset else [dataset]:
        published = tuple(PUBLISHED_COUNTS.get(name.removeprefix("disturbed-"), ()))
        named = study.categories if name == study.dataset else ()
        all_of_it = () if smoke else tuple(named) or published
        found = tuple(categories) or all_of_it or sorted(seen.get(name, ()))
        yield Selection(study, results, name, tuple(found))


def _look(
    place: Place, selection: Selection, at_work: Mapping[Cell, tuple[Holder, Running]], seen: _Seen
) -> None:
    """Look at one run, and note what became of it."""
    name = f"{place.category}, {selection.labels[place.digest]}, seed {place.seed}"
    try:
        glance = msgspec.json.decode(place.record.read_bytes(), type=_Glance)
        seen.records.setdefault(place.digest, []).append(glance)
    except FileNotFoundError:
        if found := at_work.get((place.digest, place.dataset, place.category, place.seed)):
            start, run = found
            seen.running.append(
                {
                    "run": name,
                    "where": start.where,
                    "since": run.since,
                    "epoch": run.epoch,
                    "epochs": run.epochs,
                }
            )
        elif place.failure.is_file():
            seen.failed.append((name, reason_in(place.failure)))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        seen.damaged.append(str(place.record))


def _cell(run: Running) -> Cell:
    return run.digest, run.dataset, run.category, run.seed


def _hourly(done: Iterable[_Glance], began: str, now: datetime) -> float | None:
    """Runs recorded an hour since a moment; None where it tells nothing yet."""
    start = _time(began)
    if start is None:
        return None
    times = (_time(glance.measured.finished) for glance in done)
    count = sum(time is not None and time >= start for time in times)
    hours = (now - start).total_seconds() / 3600
    return count / hours if count and hours > 0 else None


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _best(
    records: Mapping[str, Sequence[_Glance]], labels: Mapping[str, str]
) -> tuple[str, str, float, int] | None:
    """The best of the variants that have the most runs: fewer are of other categories."""
    for metric in METRICS:
        values = {
            digest: [g.metrics[metric] for g in glances if metric in g.metrics]
            for digest, glances in records.items()
        }
        most = max(map(len, values.values()), default=0)
        if most:
            means = {d: fmean(v) for d, v in values.items() if len(v) == most}
            best = max(means, key=lambda d: means[d])
            return labels[best], metric, means[best], most
    return None

"""How far a study is, read off the files of its results alone, while it runs or after."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.data.counts import PUBLISHED_COUNTS
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.study import Study
from harness.files import matching
from harness.heartbeat import Holder
from harness.report.selection import Selection, reason_in

METRICS = ("image_auroc", "pixel_auroc")  # by which the best is told; the first that there is
Run = tuple[str, str, str, int]  # digest, data set, category, seed


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
        damaged: what is wrong with records that are none, a line each.
        hourly: runs recorded an hour, since the first of the starts that are at work began.
        seconds_left: at this rate, of what the starts at work are to do: the study, or their
            shards of it; None: nobody is at work, or nothing is recorded yet.
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


def status(selection: Selection, starts: Iterable[Holder], *, now: datetime) -> Status:
    """Look at every run of a selection, once.

    A run is recorded where its record can be read, is whole and is this run's, as for a plan.

    Args:
        selection: whose runs.
        starts: what the starts at work in the folder say (:func:`harness.heartbeat.holders`);
            dead ones among them would spread the rate over the time since they began.
        now: the time.
    """
    starts = list(starts)
    selection = replace(selection, tolerant=True)
    done = {(r.digest, r.dataset, r.category, r.seed): r for r in selection.records}
    left = [p for p in selection.places if _run(p) not in done]
    running, failed = _running(left, selection, starts), []
    for place in left:
        if _run(place) not in running and place.failure.is_file() and not place.record.exists():
            failed.append((_name(place, selection), reason_in(place.failure)))
    own = [s for s in starts if s.study == selection.study.name and s.started]
    began = min((s.started for s in own), default="")
    since = _since(done.values(), began)
    hourly = _hourly(since, began, now)
    to_do = _to_do(own, since, selection.runs - len(done) - len(failed))
    return Status(
        selection.study.name,
        selection.dataset,
        runs=selection.runs,
        recorded=len(done),
        running=list(running.values()),
        failed=failed,
        damaged=selection.damaged,
        hourly=hourly,
        seconds_left=to_do / hourly * 3600 if hourly else None,
        best=_best(done.values(), selection.labels),
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
        for folder in matching(results / "runs" / digest, "*/*"):
            seen.setdefault(folder.parent.name, set()).add(folder.name)
    for name in sorted(seen) if not dataset else [dataset]:
        published = tuple(PUBLISHED_COUNTS.get(name.removeprefix("disturbed-"), ()))
        named = study.categories if name == study.dataset else ()
        all_of_it = () if smoke else tuple(named) or published
        found = tuple(categories) or all_of_it or sorted(seen.get(name, ()))
        yield Selection(study, results, name, tuple(found))


def _running(
    places: Iterable[Place], selection: Selection, starts: Iterable[Holder]
) -> dict[Run, dict[str, Any]]:
    """Which of the places' runs are trained now, where and how far."""
    said = {
        (run.digest, run.dataset, run.category, run.seed): (start, run)
        for start in starts
        for run in start.running
    }
    return {
        _run(place): {
            "run": _name(place, selection),
            "where": said[_run(place)][1].host or said[_run(place)][0].where,
            "since": said[_run(place)][1].since,
            "epoch": said[_run(place)][1].epoch,
            "epochs": said[_run(place)][1].epochs,
        }
        for place in places
        if _run(place) in said and not place.record.exists()
    }


def _run(place: Place) -> Run:
    return place.digest, place.dataset, place.category, place.seed


def _name(place: Place, selection: Selection) -> str:
    return f"{place.category}, {selection.labels[place.digest]}, seed {place.seed}"


def _since(done: Iterable[Record], began: str) -> int:
    """How many runs were recorded since a moment."""
    start = _time(began)
    times = (_time(record.measured.finished) for record in done)
    return sum(time is not None and time >= start for time in times) if start else 0


def _hourly(count: int, began: str, now: datetime) -> float | None:
    """Runs recorded an hour since a moment; None where it tells nothing yet."""
    start = _time(began)
    hours = (now - start).total_seconds() / 3600 if start else 0
    return count / hours if count and hours > 0 else None


def _to_do(starts: Sequence[Holder], since: int, left: int) -> int:
    """Runs that the starts at work have before them: where all are shards, what those found."""
    if not all(start.shard for start in starts):
        return left
    found: dict[str, int] = {}  # several starts may be at the same shard
    for start in starts:
        found[start.shard] = max(start.runs, found.get(start.shard, 0))
    return min(left, max(0, sum(found.values()) - since))


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _best(
    records: Iterable[Record], labels: Mapping[str, str]
) -> tuple[str, str, float, int] | None:
    """The best of the variants that have the most runs: fewer are of other categories."""
    of_variant: dict[str, list[Record]] = {}
    for record in records:
        of_variant.setdefault(record.digest, []).append(record)
    for metric in METRICS:
        values = {
            digest: [r.metrics[metric] for r in own if metric in r.metrics]
            for digest, own in of_variant.items()
        }
        most = max(map(len, values.values()), default=0)
        if most:
            means = {d: fmean(v) for d, v in values.items() if len(v) == most}
            best = max(means, key=lambda d: means[d])
            return labels[best], metric, means[best], most
    return None

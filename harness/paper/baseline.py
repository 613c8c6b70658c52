"""The regression check: fresh records against the accepted ones, and parameter counts.

The baseline is a results folder of its own, ``results/baseline``: the records of the embedded
study as they were accepted, and ``parameters.json``. A reference is thus a list of seeds, not
one number (as in MLPerf's reference convergence points): every run is compared with the
accepted run of its own seed, and every variant's mean by a test over its seeds.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.errors import InputError
from harness.experiment.measured import is_number
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.store import read_at, read_record
from harness.experiment.study import Study
from harness.files import write_whole
from harness.score.metrics import METRICS

# Points that a run may differ from the accepted run of its seed: another processor rounds
# otherwise, and training carries that on. Six runs moved by at most 0.01 between AVX-512 and
# AVX2. One image more on the right side moves F1-max by more than a point.
CELL_POINTS = {m: 2.0 if m == "image_f1max" else 1.0 for m in METRICS}
# Points that a variant's mean may fall, and the chance of a false alarm below which it counts.
MEAN_POINTS, ALPHA = 0.3, 0.05
FAILS = ("regressed", "missing", "not a number", "other data")
COUNTS = "parameters.json"


def compare(
    study: Study, categories: Sequence[str], results: Path, baseline: Path
) -> pd.DataFrame:
    """Compare every cell of the study with the baseline, and every variant's mean.

    Columns: cell, variant, category, seed (the last two empty for a mean), metric, reference,
    ours (fractions), difference (points), verdict: ``regressed``, ``same``, ``improved``,
    ``missing`` (no record), ``not a number`` or ``other data`` (other images or weights, or no
    result).

    Raises:
        InputError: the baseline lacks a cell.
    """
    rows = []
    for variant, name in study.named.items():
        of_variant: list[dict[str, Any]] = []
        for category in categories:
            for seed in study.seeds:
                place = Place.of(baseline, variant, study.dataset, category, seed)
                if not place.record.is_file():
                    raise InputError(
                        f"{place.record}: expected the accepted record of {name}, {category}, "
                        f"seed {seed}; found none; run `harness accept` on accepted results"
                    )
                ours = Place.of(results, variant, study.dataset, category, seed)
                known = {"variant": name, "category": category, "seed": seed}
                of_variant += [known | row for row in _cell(place, ours)]
        rows += of_variant + list(_means(name, pd.DataFrame(of_variant)))
    table = pd.DataFrame(rows)
    where = table[["category", "seed"]].astype(str).agg(", seed ".join, axis="columns")
    means = table["category"] == "mean"
    table.insert(0, "cell", table["variant"] + ", " + where.where(~means, "mean"))
    return table


def compare_counts(fresh: Mapping[str, Any], baseline: Path) -> pd.DataFrame:
    """Compare freshly counted parameters (see ``accounting``) with the accepted ones.

    Columns: cell, reference, ours, verdict: ``same``, ``regressed`` (any change) or ``missing``
    (accepted once, no longer counted); a count that was never accepted is ``missing`` too.
    """
    accepted, counted = _flat(read_counts(baseline)), _flat(fresh)
    rows = []
    for cell in dict.fromkeys([*accepted, *counted]):
        reference, ours = accepted.get(cell), counted.get(cell)
        verdict = "same" if reference == ours else "regressed"
        verdict = "missing" if reference is None or ours is None else verdict
        rows.append({"cell": cell, "reference": reference, "ours": ours, "verdict": verdict})
    return pd.DataFrame(rows, dtype=object)  # counts stay whole beside what is missing


def read_counts(baseline: Path) -> dict[str, Any]:
    """Read the accepted parameter counts: ``readings`` and ``variants``."""
    file = baseline / COUNTS
    try:
        counts = json.loads(file.read_text(encoding="utf-8"))
        _flat(counts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: expected the accepted parameter counts ({error!r}); take the file from the "
            "repository, or run `harness accept`"
        ) from None
    return dict(counts)


def accept(
    study: Study, categories: Sequence[str], results: Path, baseline: Path,
    counts: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    """Make these records and counts the baseline; returns what changes, a line each.

    A metric that was accepted has to be there again; one that is new need not be defined.

    Raises:
        InputError: a cell has no record, or one that is no result; nothing is written then.
    """
    places = []
    for variant, category, seed in study.cells(categories):
        new = Place.of(results, variant, study.dataset, category, seed)
        if not new.record.is_file():
            raise InputError(
                f"{new.record}: expected a record of every cell of {study.name}; found none; "
                f"run `harness run {study.name}` first"
            )
        record = read_at(new)
        old = Place.of(baseline, variant, study.dataset, category, seed)
        wanted = {"image_auroc", *record.metrics, *_known(old)[0]}  # others may be undefined
        bad = [m for m in METRICS if m in wanted and not is_number(record.metrics.get(m))]
        if bad or record.smoke or record.random_weights:
            what = f"no {', '.join(bad)}" if bad else "a smoke run, or random weights"
            raise InputError(f"{new.record}: expected a result; got {what}; run it again")
        name = f"{study.named[variant]}, {category}, seed {seed}"
        places.append((name, new, old))
    changed = []
    for name, new, old in places:
        (before, images), record = _known(old), read_record(new.record)
        after = record.metrics
        moved = [
            f"{m} {_percent(before.get(m))} → {_percent(after.get(m))}"
            for m in {**after, **before} if before.get(m) != after.get(m)
        ]  # fmt: skip
        moved += ["other images or weights"] if images not in ((), _made_from(record)) else []
        if moved:
            changed.append(f"{name}: {', '.join(moved)}")
    try:
        known = _flat(read_counts(baseline))
    except InputError:  # none yet, or a damaged file that is replaced
        known = {}
    now = _flat(counts)
    for cell in dict.fromkeys([*known, *now]):
        if known.get(cell) != now.get(cell):
            changed.append(f"{cell}: {known.get(cell)} → {now.get(cell)}")
    _swap(baseline, {
        **{old.record: new.record.read_bytes() for _, new, old in places},
        baseline / COUNTS: json.dumps(dict(counts), indent=1, ensure_ascii=False).encode() + b"\n",
    })  # fmt: skip
    return changed


def _swap(baseline: Path, files: Mapping[Path, bytes]) -> None:
    """Put a whole new baseline in the place of the old one."""
    fresh, old = (baseline.with_name(f".{baseline.name}.{word}") for word in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    for path, content in files.items():
        write_whole(fresh / path.relative_to(baseline), content)
    shutil.rmtree(old, ignore_errors=True)
    if baseline.exists():
        baseline.rename(old)
    fresh.rename(baseline)
    shutil.rmtree(old, ignore_errors=True)


def _known(place: Place) -> tuple[Mapping[str, Any], tuple[object, ...]]:
    """Accepted metrics, and what they are made from; nothing for a missing or damaged record."""
    try:
        record = read_record(place.record)
    except InputError:
        return {}, ()
    return dict(record.metrics), _made_from(record)


def _made_from(record: Record) -> tuple[object, ...]:
    """Images, weights, and what makes a run no result."""
    return (
        record.data.digest, record.weights.sha256, record.smoke, record.random_weights,
    )  # fmt: skip


def _flat(counts: Mapping[str, Any]) -> dict[str, int]:
    """Every count with the name of what it counts."""
    flat: dict[str, int] = {}
    for r in counts["readings"]:
        name = (
            f"parameters of {r['backbone']}, kernels={r['kernels']}, {r['coupling']}, "
            f"{r['flow_steps']} steps, width {r['width']}"
        )
        flat |= {f"{name}: {kind}": int(r[kind]) for kind in ("flow", "norm", "frozen")}
    variants = {f"parameters of variant {k}": int(v) for k, v in counts["variants"].items()}
    return flat | variants


def _cell(reference: Place, ours: Place) -> Iterator[dict[str, Any]]:
    accepted = read_at(reference)
    fresh = read_at(ours) if ours.record.is_file() else None
    if not accepted.metrics:
        raise InputError(
            f"{reference.record}: expected metrics; found none; take the file from the "
            "repository, or run `harness accept`"
        )
    for metric in METRICS:
        if metric not in accepted.metrics:
            continue
        wanted = accepted.metrics[metric]
        if not is_number(wanted):
            raise InputError(
                f"{reference.record}: {metric}: expected a number; got {wanted}; take the file "
                "from the repository, or run `harness accept`"
            )
        got = fresh.metrics.get(metric) if fresh else None
        got = float(got) if is_number(got) else np.nan
        points = 100 * (got - wanted)
        if fresh is None:
            verdict = "missing"
        elif _made_from(fresh) != _made_from(accepted):
            verdict = "other data"
        elif not is_number(got):
            verdict = "not a number"
        else:
            verdict = _judge(points, CELL_POINTS[metric])
        yield {
            "metric": metric, "reference": wanted, "ours": got, "difference": points,
            "verdict": verdict,
        }  # fmt: skip


def _means(name: str, cells: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row per metric: the variant's mean over categories, tested over all its runs."""
    for metric, rows in cells.groupby("metric", sort=False):
        points = rows["difference"].to_numpy()
        if not np.isfinite(points).all():
            continue  # a cell says why
        verdict = _judge(float(points.mean()), MEAN_POINTS)
        if verdict != "same" and not _unlikely(points):
            verdict = "same"
        yield {
            "variant": name, "category": "mean", "seed": "", "metric": metric,
            "reference": rows["reference"].mean(), "ours": rows["ours"].mean(),
            "difference": points.mean(), "verdict": verdict,
        }  # fmt: skip


def _unlikely(points: "np.ndarray[Any, Any]") -> bool:
    """Whether paired differences like these have another mean than 0 (t-test)."""
    if len(points) < 2 or np.ptp(points) < 1e-9:  # alike, but for rounding
        return True
    return bool(stats.ttest_1samp(points, 0).pvalue < ALPHA)


def _judge(points: float, allowed: float) -> str:
    if points < -allowed:
        return "regressed"
    return "improved" if points > allowed else "same"


def _percent(value: object) -> str:
    return f"{100 * float(value):.2f}" if is_number(value) else str(value).lower()

"""Tables as queries over records: nothing here trains, and nothing is typed in."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.experiment.record import Record
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.report.selection import Selection
from harness.report.speeds import speeds
from harness.score.metrics import METRICS

HEADLINE = ("image_auroc", "pixel_auroc", "aupro")  # the rest stands in a table of its own
ORACLE = "(oracle)"  # behind a variant whose epochs were chosen with the test's labels
COLUMNS = (
    *("label", "digest", "dataset", "category", "seed", *METRICS, "copy", "epoch", "oracle"),
    *("additional_params", "bank_bytes", "fps", "latency_ms", "additional_ms", "speed_why"),
    *("good", "defective", "peak_memory_bytes", "fit_seconds"),
)
COST_COLUMNS = {
    "params_flow": "flow params",
    "params_norm": "norm params",
    "params_frozen": "frozen permutation indices",
    "params_backbone": "backbone params",
    "macs_flow": "flow MACs",
    "macs_backbone": "backbone MACs",
    "latency_ms": "latency (ms)",
    "additional_ms": "A.d. time (ms)",
    "fps": "FPS",
    "bank_mb": "bank (MB)",
    "peak_mb": "peak memory (MB)",
    "fit_seconds": "training (s)",
}
MEDIANS = (
    "additional_params", "bank_bytes", "fps", "latency_ms", "peak_memory_bytes", "fit_seconds",
)  # fmt: skip
WHOLE = ("params", "MACs", "indices")  # in the names of columns of whole numbers
NOTE = (
    "% as mean ± sd over seeds of the mean over categories; last epoch, unless a variant is "
    "label-free, lowest-holdout-loss or (oracle): epochs chosen with the test's labels; images: "
    "good + bad of the test"
)


def runs(selection: Selection) -> pd.DataFrame:
    """List the recorded runs, a row each, in the selection's order.

    Columns: label, digest, dataset, category, seed, every metric (fractions), copy, epoch, oracle,
    additional_params (flow + norm; the paper's "A.d. params"), the split params_*, macs_*,
    fps, latency_ms, additional_ms, fit_seconds, bank_bytes, random_weights, smoke; speed_why says
    why a variant has no speed (:func:`harness.report.speeds.speeds`); good and defective count
    the test images.

    >>> from harness.bundled import bundled
    >>> from harness.report.selection import select
    >>> accepted = bundled("results", "baseline")
    >>> grass = select("surfaces", accepted, dataset="surfaces", categories=["grass"])
    >>> frame = runs(grass)
    >>> len(frame), sorted(frame["seed"].unique().tolist())
    (27, [0, 1, 2])
    """
    labels, why = selection.labels, speeds(selection)["why"].to_dict()
    rows = [
        _row(record, labels[record.digest], str(why[record.digest]))
        for record in selection.records
    ]
    frame = pd.DataFrame(rows, columns=None if rows else list(COLUMNS))
    frame["label"] = pd.Categorical(frame["label"], list(labels.values()), ordered=True)
    return frame


def measured(frame: pd.DataFrame) -> list[str]:
    """List those of the headline metrics that some run has."""
    return [m for m in HEADLINE if frame[m].notna().any()]


def _row(record: Record, label: str, why: str) -> dict[str, Any]:
    parameters, speed = record.parameters, record.measured.speed
    figures = ("fps", "latency_ms", "additional_ms")
    measured = {k: None if why else getattr(speed, k) for k in figures}
    return {
        "label": label,
        "digest": record.digest,
        "dataset": record.dataset,
        "category": record.category,
        "seed": record.seed,
        **{m: record.metrics.get(m, np.nan) for m in METRICS},
        "copy": record.data.copy,  # of the published data; empty in old records
        "epoch": record.selection.epoch,
        "oracle": record.selection.oracle,
        "additional_params": parameters.additional,
        **{f"params_{k}": getattr(parameters, k) for k in parameters.__struct_fields__},
        **{f"macs_{k}": getattr(record.macs, k) for k in record.macs.__struct_fields__},
        **{k: np.nan if v is None else v for k, v in measured.items()},
        "speed_why": why,
        "good": record.data.test - record.data.defective,
        "defective": record.data.defective,
        "fit_seconds": record.measured.fit_seconds,
        "bank_bytes": record.measured.bank_bytes,
        "peak_memory_bytes": np.nan if (m := record.measured.peak_memory_bytes) is None else m,
        "random_weights": record.random_weights,
        "smoke": record.smoke,
    }


def epochs(selection: Selection) -> pd.DataFrame:
    """List label, category, seed, epoch and every metric (fractions), a row an evaluated epoch.

    Label and category are categorical, in the study's order.
    """
    if "epochs" in selection.memo:
        found: pd.DataFrame = selection.memo["epochs"]
        return found
    entries = [(r, e) for r in selection.records for e in r.epochs]
    columns: dict[str, Any] = {
        "label": _coded((r.digest for r, _ in entries), selection.labels),
        "category": _coded((r.category for r, _ in entries), {c: c for c in selection.categories}),
        "seed": np.array([r.seed for r, _ in entries], int),
        "epoch": np.array([e.epoch for _, e in entries], int),
    }
    found_at = [e.metrics for _, e in entries]
    for metric in METRICS:
        if any(metric in metrics for metrics in found_at):
            columns[metric] = np.array([m.get(metric, np.nan) for m in found_at], float)
    frame = pd.DataFrame(columns)
    selection.memo["epochs"] = frame
    return frame


def _coded(values: Iterable[str], named: Mapping[str, str]) -> "pd.Categorical[str]":
    """Name many values by their places: thousands of rows hold the same few names."""
    place = {value: i for i, value in enumerate(named)}
    return pd.Categorical.from_codes([place[v] for v in values], pd.Index(list(named.values())))


def summary(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Average the runs of every variant: metrics with spreads, parameters, FPS, number of runs.

    The mean is over categories and seeds. ``*_sd_seeds`` is the standard deviation, over seeds,
    of the mean over categories (absent for one seed); ``*_min`` the lowest category's mean over
    seeds; ``images`` counts the good and the defective test images. A variant without any record
    has no figures, only ``runs`` 0.
    """
    labels = study.labels()
    numbers = frame.astype(dict.fromkeys((*METRICS, *MEDIANS), float))
    own = numbers.groupby("digest")
    oracles = set(frame["digest"][frame["oracle"].astype(bool)])
    marks = {d: f" {ORACLE}" * (d in oracles) for d in labels}
    table = pd.DataFrame(
        {"variant": [n + marks[d] for d, n in labels.items()]}, index=list(labels)
    )
    table["label"] = list(labels.values())
    table["runs"] = own.size().reindex(table.index, fill_value=0)
    by_seed, by_category = (
        numbers.groupby(["digest", part])[list(METRICS)].mean().groupby("digest")
        for part in ("seed", "category")
    )
    means, spreads, lowest = own[list(METRICS)].mean(), by_seed.std(ddof=1), by_category.min()
    for metric in METRICS:
        table[metric] = means[metric]
        table[f"{metric}_sd_seeds"] = spreads[metric]
        table[f"{metric}_min"] = lowest[metric]
    table[list(MEDIANS)] = own[list(MEDIANS)].median()
    table["speed_why"] = own["speed_why"].first().reindex(table.index).fillna("")
    images = frame.drop_duplicates(["digest", "category"]).groupby("digest")
    counts = images[["good", "defective"]].sum().reindex(table.index, fill_value=0)
    table["images"] = [f"{good} + {bad}" for good, bad in counts.to_numpy(dtype=int)]
    return table.reset_index(drop=True).dropna(axis="columns", how="all")


def by_defect(selection: Selection, frame: pd.DataFrame) -> pd.DataFrame:
    """Compute the image AUROC of every kind of defect against all good images, in %.

    A row a variant, a column a kind with the number of its images: the mean over categories and
    seeds, nan where there is none. Empty where the records do not list their images.
    """
    counts: dict[str, dict[str, int]] = {}
    alike: dict[tuple[str, tuple[str, ...]], list[tuple[Record, list[float]]]] = {}
    for r in selection.records:
        if r.images and "good" in r.images.defect:
            images = r.category, tuple(r.images.defect)
            alike.setdefault(images, []).append((r, r.images.score))
    for category, kinds in alike:
        for kind, count in Counter(kinds).items():
            counts.setdefault(kind, {})[category] = count
    counts.pop("good", None)
    parts = []
    for (_, kinds), runs_of in alike.items():
        shares = _by_kind(np.array(kinds), np.array([scores for _, scores in runs_of]))
        labels = [selection.labels[record.digest] for record, _ in runs_of]
        parts.append(pd.DataFrame({kind: 100 * share for kind, share in shares.items()}, labels))
    if not parts:
        return pd.DataFrame(index=frame["label"].cat.categories)
    means = pd.concat(parts).groupby(level=0).mean().reindex(frame["label"].cat.categories)
    return means.rename(
        columns={kind: f"{kind} ({sum(of.values())})" for kind, of in counts.items()}
    )


def by_category(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compute a metric by variant and category, the mean over seeds, in %.

    >>> rows = {"label": ["a", "a"], "category": ["x", "x"], "image_auroc": [0.5, 0.7]}
    >>> float(by_category(pd.DataFrame(rows), "image_auroc").loc["a", "x"])
    60.0
    """
    known = frame.dropna(subset=[metric])
    means = 100 * known.groupby(["label", "category"], observed=True, sort=False)[metric].mean()
    return means.unstack("category")


def _by_kind(kinds: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Kind → its AUROC against the good images, (runs,), of runs on the same images.

    Args:
        kinds: (N,) some of them ``good``.
        scores: (runs, N).
    """
    good, bad = scores[:, kinds == "good"], kinds != "good"
    shares = np.full(scores.shape, np.nan)
    for image in np.flatnonzero(bad):  # a share of the good ones alone, ties half
        below, ties = (f(good, scores[:, [image]]).mean(axis=1) for f in (np.less, np.equal))
        shares[:, image] = below + ties / 2
    return {k: shares[:, kinds == k].mean(axis=1) for k in dict.fromkeys(kinds[bad].tolist())}


def cost(frame: pd.DataFrame) -> pd.DataFrame:
    """Compute parameters by kind, MACs of an image, memory, latency and FPS per variant.

    A row a variant that has been run, by label; a column each of COST_COLUMNS, named as it is
    printed; medians over the runs, nan where nothing was measured. ``bank`` is left out where no
    method keeps one. Peak memory is of the whole process that trained, on a GPU of what was
    allocated there.
    """
    bank, peak = (frame[f"{k}_bytes"] / 1e6 for k in ("bank", "peak_memory"))
    frame = frame.assign(bank_mb=bank, peak_mb=peak)
    columns = dict(COST_COLUMNS)
    if not frame["bank_mb"].any():
        del columns["bank_mb"]
    return frame.groupby("label", observed=True)[list(columns)].median().rename(columns=columns)


def oracle(curves: pd.DataFrame, study: Study, metrics: Sequence[str]) -> pd.DataFrame:
    """Set the mean of the last epoch beside that of every run's best epoch on the test set, in %.

    Args:
        curves: of :func:`epochs`.
        study: whose variants are listed.
        metrics: those to show.
    """
    grouped = curves.sort_values("epoch").groupby(
        ["label", "category", "seed"], observed=True, sort=False
    )
    found = {"last": grouped.last(), "best on test (oracle)": grouped.max()}
    means = {
        which: 100 * each.groupby("label", observed=True).mean() for which, each in found.items()
    }
    columns = {(metric, which): means[which][metric] for metric in metrics for which in means}
    order = [label for label in study.labels().values() if label in means["last"].index]
    return pd.DataFrame(columns).reindex(order).round(1)


def as_text(table: pd.DataFrame, expected: int) -> str:
    """Write a summary for the terminal: percentages as mean ± sd over seeds.

    Args:
        table: of :func:`summary`.
        expected: runs of a variant when all are done.
    """
    shown = _joined(table, HEADLINE).reset_index()
    shown.insert(1, "runs", [f"{n}/{expected}" for n in table["runs"]])
    shown.insert(2, "images", table["images"].to_list())
    return f"{_with_cost(shown, table).to_string(index=False)}\n{NOTE}"


def base_settings(study: Study) -> pd.DataFrame:
    """List the reference variant's fields, with a mark where they differ from the defaults."""
    reference = study.variants[0]
    changed = reference.changes()
    rows = [(n, show(getattr(reference, n)), n in changed) for n in reference.choices]
    return pd.DataFrame(rows, columns=["field", "value", "changed"]).set_index("field")


def percent(mean: float, spread: float = np.nan) -> str:
    """Write a fraction as a percentage; a dash for what does not exist.

    >>> percent(0.9214, 0.0042).replace(chr(160), " "), percent(float("nan"))
    ('92.1 ± 0.4', '–')
    """
    if not np.isfinite(mean):
        return "–"
    return f"{100 * mean:.1f}" + (
        f"\u00a0±\u00a0{100 * spread:.1f}" if np.isfinite(spread) else ""
    )


def _joined(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of those metrics that exist, by variant."""
    shown = pd.DataFrame(index=pd.Index(table["variant"], name="variant"))
    for metric in metrics:
        if metric in table:
            sd = table.get(f"{metric}_sd_seeds", pd.Series(np.nan, table.index))
            column = [percent(m, s) for m, s in zip(table[metric], sd, strict=True)]
            shown[METRICS[metric].label] = column
    return shown


def _with_cost(shown: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    if "additional_params" in table:
        shown["A.d. params"] = [_millions(v) for v in table["additional_params"]]
        if table["bank_bytes"].any():
            banks = table["bank_bytes"]
            shown["bank"] = [f"{v / 1e6:.1f} MB" if v > 0 else "–" for v in banks]
        if "fps" in table:
            shown["FPS"] = [
                _one_decimal(v) if np.isfinite(v) else why.partition(":")[0] or "–"
                for v, why in zip(table["fps"], table["speed_why"], strict=True)
            ]
    return shown


def _one_decimal(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "–"


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.3f} M" if np.isfinite(parameters) else "–"

"""Tables as queries over records: nothing here trains, and nothing is typed in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.experiment.record import read_records
from harness.experiment.study import Study
from harness.experiment.variant import show

ORACLE = "(oracle)"  # behind a variant whose epochs were chosen with the test's labels


def records_of(
    study: Study, results: Path, *, dataset: str, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """The records of the study's variants and seeds on these categories."""
    digests = study.labels()
    return [
        record
        for record in read_records(results)
        if record["digest"] in digests
        and record["dataset"] == dataset
        and record["category"] in categories
        and record["seed"] in study.seeds
    ]


def load(study: Study, results: Path, *, dataset: str, categories: Sequence[str]) -> pd.DataFrame:
    """One row per recorded run of the study, in the study's order.

    Columns: label, digest, dataset, category, seed, every metric (fractions), epoch, oracle,
    additional_params (flow + norm; the paper's "A.d. params"), the split params_*, macs_flow,
    macs_backbone, fps, latency_ms, random_weights, smoke.
    """
    labels = study.labels()
    order = {digest: i for i, digest in enumerate(labels)}
    records = records_of(study, results, dataset=dataset, categories=categories)
    rows = [_row(record, labels[record["digest"]]) for record in records]
    rows.sort(key=lambda r: (order[r["digest"]], r["category"], r["seed"]))
    frame = pd.DataFrame(rows, columns=None if rows else list(_COLUMNS))
    frame["label"] = pd.Categorical(frame["label"], list(labels.values()), ordered=True)
    frame.attrs["expected"] = len(categories) * len(study.seeds)  # runs per variant
    return frame


_COLUMNS = (
    "label", "digest", "dataset", "category", "seed", *METRICS, "copy", "epoch", "oracle",
    "additional_params", "bank_bytes", "fps", "latency_ms", "additional_ms",
)  # fmt: skip


def _row(record: dict[str, Any], label: str) -> dict[str, Any]:
    parameters, speed = record["parameters"], record["measured"]["speed"]
    return {
        "label": label,
        **{k: record[k] for k in ("digest", "dataset", "category", "seed")},
        **{m: record["metrics"].get(m, np.nan) for m in METRICS},
        "copy": record["data"].get("copy", ""),  # of the published data; empty in old records
        "epoch": record["selection"]["epoch"],
        "oracle": record["selection"]["oracle"],
        "additional_params": parameters["flow"] + parameters["norm"],
        **{f"params_{k}": v for k, v in parameters.items()},
        **{f"macs_{k}": v for k, v in record["macs"].items()},
        "fps": speed.get("fps", np.nan),
        "latency_ms": speed.get("latency_ms", np.nan),
        "additional_ms": speed.get("additional_ms", np.nan),
        "fit_seconds": record["measured"]["fit_seconds"],
        "bank_bytes": record["measured"].get("bank_bytes", 0),
        "random_weights": record["random_weights"],
        "smoke": record["smoke"],
    }


def epochs(
    study: Study, results: Path, *, dataset: str, categories: Sequence[str]
) -> pd.DataFrame:
    """One row per run, evaluated epoch and metric: label, category, seed, epoch, metric, value."""
    labels = study.labels()
    rows = [
        {
            "label": labels[r["digest"]], "category": r["category"], "seed": r["seed"],
            "epoch": entry["epoch"], "metric": metric, "value": value,
        }
        for r in records_of(study, results, dataset=dataset, categories=categories)
        for entry in r["epochs"]
        for metric, value in entry["metrics"].items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["label", "category", "seed", "epoch", "metric", "value"])


def summary(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row per variant: every metric's mean and spreads, parameters, FPS, number of runs.

    The mean is over categories and seeds. ``*_sd_seeds`` is the standard deviation, over seeds,
    of the mean over categories (absent for one seed); ``*_min`` the lowest category's mean over
    seeds. A variant without any record has no figures, only ``runs`` 0.
    """
    rows = []
    for digest, label in study.labels().items():
        runs = frame[frame["digest"] == digest]
        mark = f" {ORACLE}" if runs["oracle"].any() else ""
        row: dict[str, Any] = {"variant": label + mark, "runs": len(runs)}
        for metric in METRICS:
            values = runs[["category", "seed", metric]].dropna()
            per_seed = values.groupby("seed")[metric].mean()
            row[metric] = values[metric].mean()
            row[f"{metric}_sd_seeds"] = per_seed.std(ddof=1)
            row[f"{metric}_min"] = values.groupby("category")[metric].mean().min()
        for name in ("additional_params", "bank_bytes", "fps", "latency_ms"):
            row[name] = runs[name].median()
        rows.append(row)
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")
    table.attrs["expected"] = frame.attrs["expected"]
    return table


def differences(frame: pd.DataFrame, study: Study, metric: str = "image_auroc") -> pd.DataFrame:
    """Every variant minus the reference, paired over category and seed, in points.

    Columns: variant, pairs, difference, low, high: the 95 % percentile interval of a bootstrap
    that resamples the pairs within each category (stratified), 10,000 times, seed 0. The
    categories are fixed: the interval speaks of these categories, not of others.
    """
    labels = list(study.labels().items())
    reference = _paired(frame, labels[0][0], metric)
    rows = []
    for digest, label in labels[1:]:
        pairs = (_paired(frame, digest, metric) - reference).dropna() * 100
        groups = [g.to_numpy() for _, g in pairs.groupby(level="category")]
        low, high = bootstrap(groups) if groups else (np.nan, np.nan)
        rows.append({
            "variant": label, "pairs": len(pairs), "difference": pairs.mean(),
            "low": low, "high": high,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["variant", "pairs", "difference", "low", "high"])


def cost(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Parameters by kind, multiply-accumulates of an image, latency and FPS per variant."""
    columns = {
        "params_flow": "flow params", "params_norm": "norm params",
        "params_frozen": "frozen permutation indices", "params_backbone": "backbone params",
        "macs_flow": "flow MACs", "macs_backbone": "backbone MACs",
        "latency_ms": "latency (ms)", "additional_ms": "A.d. time (ms)", "fps": "FPS",
        "bank_bytes": "bank (MB)", "fit_seconds": "training (s)",
    }  # fmt: skip
    frame = frame.assign(bank_bytes=frame["bank_bytes"] / 1e6)
    if not frame["bank_bytes"].any():
        del columns["bank_bytes"]
    table = frame.groupby("label", observed=True)[list(columns)].median().rename(columns=columns)
    whole = [c for c in columns.values() if any(w in c for w in ("params", "MACs", "indices"))]
    table[whole] = table[whole].map(lambda n: f"{n:,.0f}")
    rest = [c for c in table.columns if c not in whole]
    table[rest] = table[rest].map(lambda x: f"{x:.1f}" if np.isfinite(x) else "–")
    return table


def oracle(curves: pd.DataFrame, study: Study, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean of the last epoch beside the mean of every run's best epoch on the test set, in %."""
    runs = curves[curves["metric"].isin(metrics)].sort_values("epoch")
    grouped = runs.groupby(["label", "metric", "category", "seed"], sort=False)["value"]
    each = pd.DataFrame({"last": grouped.last(), "best on test (oracle)": grouped.max()})
    means = 100 * each.groupby(["label", "metric"]).mean()
    columns = {
        (metric, column): means[column].xs(metric, level="metric")
        for metric in metrics
        for column in means
    }
    order = [label for label in study.labels().values() if label in means.index]
    return pd.DataFrame(columns).reindex(order).round(1)


def styled(table: pd.DataFrame) -> pd.DataFrame:
    """The summary with means and spreads joined, ready to be shown in a report."""
    shown = _joined(table, ("image_auroc", "pixel_auroc", "aupro"))
    shown.insert(0, "runs", table["runs"].to_list())
    if "image_auroc_min" in table:
        shown["lowest category"] = [percent(m) for m in table["image_auroc_min"]]
    if "additional_params" in table:
        _show_cost(shown, table)
    return shown


def styled_rest(table: pd.DataFrame) -> pd.DataFrame:
    """Average precision and F1-max, which the main table leaves out for its width."""
    return _joined(table, ("image_ap", "image_f1max", "pixel_ap", "pixel_f1max"))


def _joined(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of those metrics that exist, by variant."""
    shown = pd.DataFrame(index=pd.Index(table["variant"], name="variant"))
    for metric in metrics:
        if metric in table:
            sd = table.get(f"{metric}_sd_seeds", pd.Series(np.nan, table.index))
            shown[NAMES[metric]] = [percent(m, s) for m, s in zip(table[metric], sd, strict=True)]
    return shown


def base_settings(study: Study) -> pd.DataFrame:
    """The reference variant's fields, with a mark where they differ from the defaults."""
    reference = study.variants[0]
    changed = reference.changes()
    rows = [
        {"field": name, "value": show(getattr(reference, name)), "changed": name in changed}
        for name in reference.choices
    ]
    return pd.DataFrame(rows).set_index("field")


def as_text(table: pd.DataFrame) -> str:
    """A summary for the terminal: percentages as mean ± sd over seeds."""
    shown = pd.DataFrame({"variant": table["variant"]})
    shown["runs"] = [f"{n}/{table.attrs['expected']}" for n in table["runs"]]
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        if metric in table:
            sd = table.get(f"{metric}_sd_seeds", pd.Series(np.nan, table.index))
            shown[NAMES[metric]] = [
                percent(mean, spread) for mean, spread in zip(table[metric], sd, strict=True)
            ]
    if "additional_params" in table:
        _show_cost(shown, table)
    note = (
        "\n% as mean ± sd over seeds of the mean over categories; last epoch, unless a variant is "
        "label-free or (oracle): epochs chosen with the test's labels"
    )
    return shown.to_string(index=False) + note


def percent(mean: float, spread: float = np.nan) -> str:
    """A fraction as a percentage, ``92.1 ± 0.4`` on one line; a dash for what does not exist."""
    if not np.isfinite(mean):
        return "–"
    return f"{100 * mean:.1f}" + (
        f"\u00a0±\u00a0{100 * spread:.1f}" if np.isfinite(spread) else ""
    )


def _show_cost(shown: pd.DataFrame, table: pd.DataFrame) -> None:
    shown["A.d. params"] = [_millions(v) for v in table["additional_params"]]
    if table["bank_bytes"].any():
        shown["bank"] = [f"{v / 1e6:.1f} MB" if v > 0 else "–" for v in table["bank_bytes"]]
    if "fps" in table:
        shown["FPS"] = [f"{v:.1f}" if np.isfinite(v) else "–" for v in table["fps"]]


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.3f} M" if np.isfinite(parameters) else "–"


def _paired(frame: pd.DataFrame, digest: str, metric: str) -> "pd.Series[float]":
    return frame[frame["digest"] == digest].set_index(["category", "seed"])[metric]

"""What a report says in words, read off the records and tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.experiment.record import Place
from harness.experiment.study import Study
from harness.experiment.variant import show
from harness.report.tables import NAMES, RESAMPLES, differences, records_of
from harness.studies import STUDIES

DIFFERENCES = (
    "Points of the variant minus the reference, paired over category and seed; 95 % percentile "
    f"interval of a bootstrap that resamples the pairs within each category ({RESAMPLES:,} "
    "times). The categories are taken as fixed, and the intervals are not corrected for the "
    "number of comparisons."
)
ORACLE = (
    "*Last* is each run's last evaluated epoch. *Best on test* is its best evaluated one, chosen "
    "with the test labels: an oracle, which nobody has in practice, shown because published "
    "reproductions report it."
)


def opening(
    frame: pd.DataFrame, study: Study, results: Path, *, dataset: str, categories: Sequence[str]
) -> str:
    """The report's first lines, in Markdown: question, what was run, and what was not."""
    expected = frame.attrs["expected"] * len(study.variants)
    lines = [f"# {study.name}", f"**{study.asks}**"]
    if study.mirrors:
        lines.append(f"Mirrors: {study.mirrors}.")
    lines.append(
        f"{len(study.variants)} variants × {len(categories)} categories of {dataset} "
        f"({', '.join(categories)}) × {len(study.seeds)} seeds: "
        f"{len(frame)} of {expected} runs are recorded."
    )
    if other := other_settings(study, dataset):
        lines.append(f"> **Not the study's own settings**: {other}.")
    if frame.empty:
        lines.append("> **Nothing has been run**: every figure of ours is missing.")
    elif len(frame) < expected:
        lines.append(f"> **{expected - len(frame)} runs are missing**: the means are over less.")
    places = (Place.of(results, c.variant, dataset, c.category, c.seed)
              for c in study.cells(categories))  # fmt: skip
    notes = [place.failure for place in places if place.failure.is_file()]
    failures = [json.loads(note.read_text())["reason"] for note in notes]
    lines += [f"> A run **failed**: {reason}" for reason in failures]
    if len(frame) and frame["smoke"].any():
        lines.append("> **A smoke run**: one epoch on a few images. Its figures mean nothing.")
    if len(frame) and frame["random_weights"].any():
        lines.append("> **Random backbone weights**: not a result about trained features.")
    if len(frame) and frame["oracle"].any():
        names = frame.loc[frame["oracle"], "label"].unique()
        lines.append(f"> **Oracle**: epochs chosen with the test labels: {'; '.join(names)}.")
    return "\n\n".join(lines)


def other_settings(study: Study, dataset: str) -> str:
    """What a study as it was run changes of its definition; empty if nothing."""
    own = STUDIES.get(study.name)
    if own is None:
        return ""
    named = {name: variant for variant, name in own.named.items()}
    said = {
        f"{field} {show(value)} instead of {show(getattr(named[name], field))}": None
        for variant, name in study.named.items()
        if name in named
        for field, value in variant.changes(named[name]).items()
    }
    if dataset != own.dataset:
        said[f"the data set {dataset} instead of {own.dataset}"] = None
    return "; ".join(said)


def protocol(study: Study, results: Path, *, dataset: str, categories: Sequence[str]) -> str:
    """How the figures were measured, in Markdown, read off the records."""
    records = records_of(study, results, dataset=dataset, categories=categories)
    if not records:
        return "*Nothing has been run yet.*"
    first = records[0]
    machine = first["environment"]
    counts: dict[str, list[str]] = {}  # the same said once for all categories that share it
    for name, c in {r["category"]: r["data"] for r in records}.items():
        said = f"{c['train']} train, {c['test']} test ({c['defective']} defective, {c['masks']} "
        counts.setdefault(f"{said}masks{_copy(c)})", []).append(name)
    data = "; ".join(f"{', '.join(names)} {said}" for said, names in counts.items())
    sources = dict.fromkeys(
        f"{r['weights']['backbone']} from {r['weights']['source']} "
        f"(SHA-256 {r['weights']['sha256'][:12] or 'none'})"
        for r in records
    )
    labels = study.labels()
    rules: dict[str, list[tuple[int, str]]] = {}
    for r in records:
        rule = r["selection"]["rule"] if r["loss"] else "fitted in one pass"
        rules.setdefault(rule, []).append((r["selection"]["epoch"], labels[r["digest"]]))
    epochs = "; ".join(
        f"{rule} ({_range([epoch for epoch, _ in runs])})"
        + (f" for {', '.join(_in_order(runs, labels))}" if len(rules) > 1 else "")
        for rule, runs in rules.items()
    )
    masks = ", ".join(sorted({r["protocol"]["masks"] for r in records}))
    return "\n".join([
        f"- Metrics: mean over categories and seeds, ± standard deviation over seeds; AUPRO up to "
        f"a false-positive rate of {first['protocol']['aupro_fpr_limit']}; maps and masks at "
        f"the input size (images {first['protocol']['resize']}, masks {masks}).",
        f"- Epoch: {epochs}; "
        f"seeds {', '.join(map(str, study.seeds))}.",
        f"- Data ({dataset}): {data}.",
        f"- Backbones: {'; '.join(sources)}.",
        f"- FPS: {_speed(records)}.",
        f"- harness {machine['harness']}, torch {machine['versions']['torch']}, "
        f"timm {machine['versions']['timm']}, commit {(machine['commit'] or 'unknown')[:12]}.",
    ])  # fmt: skip


def _speed(records: Sequence[Mapping[str, Any]]) -> str:
    timed = [r for r in records if r["measured"]["speed"]]
    if not timed:
        return "not measured"
    speed, machine = timed[0]["measured"]["speed"], timed[0]["environment"]
    some = f"of {len(timed)} of {len(records)} runs; " * (len(timed) < len(records))
    return some + (
        f"{speed['measures']}; batches of {speed['fps_batch_size']}, {speed['threads']} threads, "
        f"{machine['device_name'] or machine['device']}; the median of {speed['rounds']} rounds "
        "in which the variants took turns"
    )


def _in_order(runs: Sequence[tuple[int, str]], labels: Mapping[str, str]) -> list[str]:
    ran = {name for _, name in runs}
    return [name for name in labels.values() if name in ran]


def _range(epochs: Sequence[int]) -> str:
    """Epochs as ``20``, or as ``3 … 20``."""
    low, high = min(epochs), max(epochs)
    return str(low) if low == high else f"{low} … {high}"


def _copy(data: Mapping[str, Any]) -> str:
    """The images' form and what the copy is, where the record says so."""
    copy = data.get("copy") if data.get("official") is not None else None
    said = [data.get("form"), copy, data.get("disturbance")]
    return "".join(f"; {text}" for text in said if text)


def answer(frame: pd.DataFrame, study: Study, metric: str = "image_auroc") -> str:
    """The study's answer in plain sentences, from the paired differences."""
    labels = list(study.labels().values())
    reference = frame.loc[frame["label"] == labels[0], metric].mean()
    if np.isnan(reference):
        if (frame["label"] == labels[0]).any():
            return "Not answered: the test images are all good or all defective, so no metric."
        return "Not answered: the reference has not been run."
    said = [f"The reference ({labels[0]}) has a mean {NAMES[metric]} of {100 * reference:.1f}."]
    table = differences(frame, study, metric)
    clear = table[(table["low"] > 0) | (table["high"] < 0)]
    for row in clear.sort_values("difference", ascending=False).to_dict("records"):
        verb = "gains" if row["difference"] > 0 else "loses"
        said.append(
            f"{row['variant']} {verb} {abs(row['difference']):.1f} points "
            f"({row['low']:+.1f} to {row['high']:+.1f})."
        )
    unclear = table[(table["low"] <= 0) & (table["high"] >= 0)]["variant"].tolist()
    if unclear:
        said.append(f"No clear difference: {', '.join(unclear)}.")
    if unknown := table[table["low"].isna()]["variant"].tolist():
        said.append(f"Not enough seeds to tell: {', '.join(unknown)}.")
    return " ".join(said)

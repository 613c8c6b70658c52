"""Published figures beside ours, as tables for the notebooks of the paper's own tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.bundled import shipped
from harness.experiment.choices import method_of
from harness.experiment.study import Study
from harness.paper.baseline import read_counts
from harness.paper.gap import gaps, official_categories
from harness.paper.ledger import Published, ledger
from harness.report.tables import NAMES

MARKS = {"confirmed": "", "single-source": "°", "unverified": "?"}
LEGEND = (
    "Published figures: no mark where two or more independent sources agree; ° one source; "
    "? recalled without a source, shown and never judged. Every figure's source is in the ledger "
    "(results/paper)."
)
# In the paper's order; compared methods as the paper prints them.
COSTS = ("fps", "additional_time", "additional_params", "image_auroc", "pixel_auroc")
SPELT = {
    "fps": "FPS", "additional_time": "A.d. time (ms)", "additional_params": "A.d. params (M)",
    **NAMES,
}  # fmt: skip
DIGITS = {"fps": 1, "additional_time": 1, "additional_params": 3}


def accepted_counts() -> dict[str, int]:
    """Digest → additional parameters, as the baseline has them (`harness gap` recounts)."""
    return dict(read_counts(shipped("results", "baseline"))["variants"])


def compared(
    table: str, results: Path, asked: Study | None = None, by: str = "FastFlow"
) -> pd.DataFrame:
    """The gap (see :func:`harness.paper.gap.gaps`) of one published table's figures."""
    figures = [f for f in ledger() if f.by == by and f.table == table]
    return gaps(figures, results, accepted_counts(), asked)


def complexity(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1: a row per backbone and method, published | ours for every column."""
    rows: dict[Any, dict[str, str]] = {}
    for r in table.to_dict("records"):
        if r["metric"] in COSTS:
            row = rows.setdefault((r["backbone"], r["method"]), {})
            row[SPELT[r["metric"]]] = f"{_printed(r)} | {_ours(r)}"
    shown = pd.DataFrame.from_dict(rows, orient="index")
    shown.index.names = ["backbone", "method"]
    columns = [SPELT[c] for c in COSTS if SPELT[c] in shown]
    return shown[columns].fillna("–")


def by_category(
    asked: Study, name: str, frame: pd.DataFrame, metric: str, categories: Sequence[str]
) -> pd.DataFrame:
    """One variant by category: ours, then every published figure of its method and backbone.

    Columns: ``ours`` (mean ± standard deviation over seeds, %; it says where the images are not
    the published ones), the paper's, and each reproduction's, an oracle marked so; in Table 4
    the compared methods' too. The last row is the mean, and only over all categories.
    """
    variant = next(v for v, n in asked.named.items() if n == name)
    architecture = variant.backbone.split(".")[0]
    mine = _mine(frame, variant.digest, metric)
    if not set(categories) >= set(official_categories(asked)):
        mine.pop("mean", None)
    columns = {f"ours{_other_copy(frame)}": mine}
    for f in ledger():
        own = method_of(f.method) == variant.method
        compared_with = own or (f.table == asked.name == "table4" and f.method != "FastFlow")
        if not compared_with or f.metric != metric or f.dataset != asked.dataset:
            continue
        # Where a rival's backbone is not named, it may be any.
        named = f.backbone or (variant.method != "fastflow" and own)
        if named and f.backbone.split(".")[0] != architecture:
            continue
        other = {k: v for k, v in f.fields.items() if k != "epoch_selection"}
        if not f.category or (own and any(getattr(variant, k) != v for k, v in other.items())):
            continue
        if f.table in ("table2", "table3", "table4") or f.by not in ("FastFlow", "U-Flow"):
            columns.setdefault(_source(f), {})[f.category] = f"{f.value:.1f}{MARKS[f.status]}"
    shown = pd.DataFrame(columns, dtype=object).reindex([*categories, "mean"]).fillna("–")
    shown.index.name = f"{NAMES[metric]} (%)"
    return shown


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Published, ours, gap, interval and verdict of figures, ready to be shown."""
    rows = [
        {
            "figure": _what(r), "published": _printed(r), "ours": _ours(r),
            "gap": f"{r['gap']:+.2f}" if r["seeds"] else "–",
            "95 % interval": _interval(r), "tolerance": f"±{r['tolerance']:.2f}",
            "verdict": r["verdict"], "why": r["why"],
        }
        for r in table.to_dict("records")
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("figure") if rows else pd.DataFrame()


def tally(table: pd.DataFrame) -> str:
    """How many rows have which verdict, in words."""
    counts = table["verdict"].value_counts()
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "none"


def readings(published_only: bool = False) -> pd.DataFrame:  # noqa: FBT001, FBT002
    """Every reading of the paper with its parameters (see :mod:`harness.paper.parameters`)."""
    table = pd.DataFrame(read_counts(shipped("results", "baseline"))["readings"])
    return table.dropna(subset=["published"]) if published_only else table


def surviving() -> pd.DataFrame:
    """Reading → which of the paper's printed counts it gives, one column per count.

    A reading is a coupling and a width; ``matched`` counts the printed figures it rounds to,
    unverified ones left out.
    """
    table = readings(published_only=True)
    steps = np.where(table["flow_steps"].isin([4, 10]), "half the steps", "all steps")
    table = table.assign(
        reading=table["coupling"] + ", " + steps + ", width " + table["width"],
        count=table["backbone"] + " " + table["kernels"].str.replace(",", "-")
        + " (" + table["published"].astype(str) + " M"
        + np.where(table["status"] == "unverified", "?", "") + ")",
    )  # fmt: skip
    shown = table.pivot_table(
        index="reading", columns="count", values="rounds", aggfunc="first", sort=False
    ).astype(bool)
    sure = [c for c in shown.columns if "?" not in str(c)]
    shown.insert(0, "matched", shown[sure].sum(axis="columns"))
    return shown.sort_values("matched", ascending=False, kind="stable")


def _mine(frame: pd.DataFrame, digest: str, metric: str) -> dict[str, str]:
    runs = frame[frame["digest"] == digest].dropna(subset=[metric])
    said = {str(c): _spread(100 * v[metric]) for c, v in runs.groupby("category")}
    wanted = frame.attrs["expected"]
    if len(runs) == wanted and wanted:
        said["mean"] = _spread(100 * runs.groupby("seed")[metric].mean())
    return said


def _spread(values: "pd.Series[float]") -> str:
    if len(values) < 2:
        return f"{values.mean():.1f} (1 seed)"
    return f"{values.mean():.1f} ± {values.std():.1f}"


def _other_copy(frame: pd.DataFrame) -> str:
    """What sets the images apart from the published ones, in brackets."""
    copies = " ".join(frame["copy"].dropna().unique())
    signs = {
        "a part of": "a part of the data", "not the published": "other data",
        "another form": "stored in another form",
    }  # fmt: skip
    said = [text for sign, text in signs.items() if sign in copies]
    return f" ({', '.join(said)})" if said else ""


def _source(figure: Published) -> str:
    if figure.by == "FastFlow":
        return "paper" if figure.method == "FastFlow" else f"{figure.method}, in the paper"
    field, _, value = figure.setting.partition("=")
    rule = value if field == "epoch_selection" else ""
    several = "issue" in figure.table or "," in figure.table  # tables of one author
    return f"{figure.by}{f' ({figure.table})' if several else ''}" + (
        ", best epoch on test" if rule else ", last epoch" if figure.by == "gathierry" else ""
    )


def _printed(row: Mapping[Any, Any]) -> str:
    unit = "" if row["unit"] in ("%", "images/s", "ms", "M") else f" {row['unit']}"
    return f"{row['value']:g}{unit}{MARKS[row['status']]}"


def _ours(row: Mapping[Any, Any]) -> str:
    if not row["seeds"]:
        return "–"
    figure = f"{row['ours']:.{DIGITS.get(row['metric'], 2)}f}"
    return figure if row["metric"] in COSTS[:3] else f"{figure} (n={row['seeds']})"


def _interval(row: Mapping[Any, Any]) -> str:
    return f"{row['low']:.2f} … {row['high']:.2f}" if row["seeds"] > 2 else "–"


def _what(row: Mapping[Any, Any]) -> str:
    method = "" if row["method"] == row["by"] == "FastFlow" else row["method"]
    by = "" if row["by"] == "FastFlow" else f"{row['by']}: "
    parts = (f"{by}{method}", row["setting"], row["backbone"], row["category"])
    return ", ".join(filter(None, (*parts, SPELT.get(row["metric"], row["metric"]))))

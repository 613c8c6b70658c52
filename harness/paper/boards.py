"""Published figures beside ours as tables of a page: verdicts in colour and in words."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from harness.experiment.study import Study
from harness.paper import tables
from harness.paper.tables import COSTS, SPELT
from harness.report.names import architecture
from harness.report.selection import Selection, select
from harness.report.site.boards import DASH, Board, Cell, Column
from harness.report.tables import runs
from harness.score.metrics import METRICS
from harness.studies.recipe import FASTFLOW

RECOMMENDED = "recommended recipe"
RECIPE_NOTE = (
    "*Ours* is the paper's text taken literally; the *recommended recipe* is the one of the study "
    "`recipe`, which is better at the last epoch, on the same images where it has been run. Gap: "
    "ours, literal, minus the published figure, in points."
)


def verdicts(name: str, table: pd.DataFrame) -> Board | None:
    """Show published, ours, gap, interval and verdict of figures; None where there are none.

    Args:
        name: of the files that it is downloaded as.
        table: of :func:`harness.paper.gap.gaps`.
    """
    heads = (
        ("figure", True), ("published", False), ("ours", False), ("gap", False),
        ("95 % interval", True), ("tolerance", False), ("verdict", True), ("why", True),
    )  # fmt: skip
    rows = [_judged(r, tables.what(r)) for r in table.to_dict("records")]
    columns = [Column(head, words=words) for head, words in heads]
    return Board(name, "Published and ours", columns, rows) if rows else None


def _judged(row: Mapping[Any, Any], what: str) -> list[Cell]:
    return [
        Cell(what), _published(row), _ours(row), _gap(row), Cell(tables.interval(row)),
        Cell(f"±{row['tolerance']:.2f}", float(row["tolerance"])), verdict(row), Cell(row["why"]),
    ]  # fmt: skip


def verdict(row: Mapping[Any, Any]) -> Cell:
    """Show a verdict in its colour and in words."""
    said = str(row["verdict"])
    return Cell(said, said, look=f"said {said.replace(' ', '-')}", says=str(row["why"]))


def complexity(name: str, table: pd.DataFrame) -> Board:
    """Lay out the paper's Table 1: published and ours side by side, a row per backbone and method.

    Args:
        name: of the files that it is downloaded as.
        table: of :func:`harness.paper.gap.gaps`.
    """
    rows: dict[Any, dict[str, list[Cell]]] = {}
    for r in table.to_dict("records"):
        if r["metric"] in COSTS:
            row = rows.setdefault((r["backbone"], r["method"]), {})
            row[r["metric"]] = [_published(r), _ours(r)]
    shown = [metric for metric in COSTS if any(metric in row for row in rows.values())]
    heads = [Column("backbone", words=True), Column("method", words=True)]
    for metric in shown:
        heads += [Column(f"{SPELT[metric]}, published"), Column("ours")]
    nothing = [Cell(DASH), Cell(DASH)]
    cells = [
        [Cell(architecture(backbone), says=backbone), Cell(method),
         *(cell for metric in shown for cell in row.get(metric, nothing))]
        for (backbone, method), row in rows.items()
    ]  # fmt: skip
    return Board(name, "Published and ours", heads, cells)


def by_category(
    selection: Selection, frame: pd.DataFrame, judged: pd.DataFrame, label: str, metric: str
) -> Board:
    """Set one variant's categories beside the published figures, with gap and verdict.

    Args:
        selection: the runs.
        frame: of :func:`harness.report.tables.runs`.
        judged: of :func:`harness.paper.gap.gaps`, on the figures of this table.
        label: the variant's name.
        metric: a key of ``METRICS``.
    """
    table = tables.by_category(selection, frame, label, metric)
    ours, *others = table.columns
    own = judged[(judged["variant"] == label) & (judged["metric"] == metric)]
    known = {str(r["category"]): r for r in own.to_dict("records")}
    better = recommended(selection, label, metric)
    heads = [Column("category", words=True), Column(str(ours), says="the paper's text, literally")]
    if known:
        heads += [Column("published", says="by the paper"), Column("gap", says="in points"),
                  Column("verdict", words=True)]  # fmt: skip
    if better:
        heads.append(Column(RECOMMENDED))
    rest = [c for c in others if not (known and c == "paper")]
    rows = []
    for category in table.index:
        row = [Cell(str(category)), _sorted_as_number(table.loc[category, ours])]
        if known:
            of = known.get(str(category))
            row += [_published(of), _gap(of), verdict(of)] if of else [Cell(DASH)] * 3
        if better:
            row.append(_sorted_as_number(better.get(str(category), DASH)))
        rows.append(row + [_sorted_as_number(table.loc[category, c]) for c in rest])
    columns = [*heads, *(Column(str(c)) for c in rest)]
    name = f"{selection.study.name}-{metric}-{label}".replace(" ", "-")
    return Board(name, f"{METRICS[metric].label} (%) of {label}", columns, rows,
                 f"{METRICS[metric].label} (%)")  # fmt: skip


def recommended(selection: Selection, label: str, metric: str) -> dict[str, str]:
    """Read what the recommended recipe gets on the same images, by category; empty for nothing.

    Only beside a variant of its method and backbone.
    """
    variant = next(v for v, n in selection.study.named.items() if n == label)
    same = all(getattr(variant, f) == getattr(FASTFLOW, f) for f in ("method", "backbone"))
    if not same or variant == FASTFLOW:
        return {}
    only = select("recipe", selection.results, dataset=selection.dataset,
                  categories=selection.categories, variants=["fastflow"])  # fmt: skip
    found = tables.mine(runs(only), FASTFLOW.digest, metric, only.runs_of_a_variant)
    return found if set(found) - {"mean"} else {}


def strip(table: pd.DataFrame) -> list[dict[str, str]]:
    """List a table's figures as small cells: their verdict, and what a pointer reads."""
    return [
        {"look": str(r["verdict"]).replace(" ", "-"), "says": f"{tables.what(r)}: {_said(r)}"}
        for r in table.to_dict("records")
    ]


def reasons(table: pd.DataFrame) -> list[str]:
    """Say why figures are judged without a run, and why others do not compare, a line each.

    Args:
        table: of :func:`harness.paper.gap.gaps`.
    """
    judged = ~table["verdict"].isin(("not run", "not comparable"))
    counted = bool((judged & (table["metric"] == "additional_params")).any())
    said = ["Parameters are counted, not trained: they need no run."] if counted else []
    apart = table.loc[table["verdict"] == "not comparable", "why"]
    whys = dict.fromkeys(str(why).replace(": ", ", ") for why in apart)
    return said + [f"Not comparable: {why}." for why in whys]


def of_study(study: Study, judged: pd.DataFrame) -> pd.DataFrame:
    """Take the figures that FastFlow's paper prints of itself in the table a study mirrors."""
    own = (judged["by"] == "FastFlow") & (judged["method"] == "FastFlow")
    return judged[own & (judged["table"] == study.name)]


def _said(row: Mapping[Any, Any]) -> str:
    if not row["seeds"]:
        return f"published {tables.printed(row)}; {row['verdict']}"
    return (
        f"published {tables.printed(row)}, ours {row['ours']:.2f} (n={row['seeds']}), gap "
        f"{row['gap']:+.2f}: {row['verdict']}"
    )


def _published(row: Mapping[Any, Any]) -> Cell:
    source = f"{row['source']}; {row['status']}" + (f"; {row['note']}" if row["note"] else "")
    return Cell(tables.printed(row), float(row["value"]), says=source)


def _ours(row: Mapping[Any, Any]) -> Cell:
    if not row["seeds"]:
        return Cell(DASH, says=str(row["why"]))
    judged = row["verdict"] in ("reproduced", "gap", "exceeds", "undecided")
    look = f"said {row['verdict']}" if judged else ""
    says = f"n = {row['seeds']} seeds; {row['verdict']}" + (f"; {w}" if (w := row["why"]) else "")
    digits = tables.DIGITS.get(row["metric"], 2)
    return Cell(f"{row['ours']:.{digits}f}", round(float(row["ours"]), 6), look=look, says=says)


def _gap(row: Mapping[Any, Any]) -> Cell:
    if not row["seeds"] or not isfinite(row["gap"]):
        return Cell(DASH)
    return Cell(f"{row['gap']:+.2f}".replace("-", "−"), round(float(row["gap"]), 6))


def _sorted_as_number(text: object) -> Cell:
    """A figure as text, sorted by the number that it begins with."""
    shown = str(text)
    number = shown.split(" ")[0].rstrip("°?")
    try:
        return Cell(shown, float(number))
    except ValueError:
        return Cell(shown, None if shown != DASH else np.nan)

"""The tables of a study's page."""

from collections.abc import Iterable, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from harness.report import label_free, tables
from harness.report.site.boards import DASH, Board, Cell, Column, figures
from harness.report.study_page import StudyPage
from harness.score.metrics import METRICS

SPREAD = (
    "mean over categories and seeds ± standard deviation over seeds of the mean over categories"
)


def variants(page: StudyPage) -> Board:
    """Tabulate the variants: metrics with their spread, then what they cost, a row each."""
    table = page.summary
    columns, cells = [Column("variant", words=True)], [_names(page, table["label"])]
    for metric in page.shown:
        columns.append(Column(METRICS[metric].label, says=f"%, {SPREAD}"))
        cells.append(_metric(table, metric))
    if "image_auroc_min" in table:
        columns.append(Column("lowest category", says="image AUROC, %, mean over seeds"))
        cells.append(figures(list(100 * table["image_auroc_min"])))
    for name, digits, scale, head, says in (
        ("additional_params", 2, 1e-6, "A.d. params (M)", "trained beside the backbone"),
        ("bank_bytes", 1, 1e-6, "bank (MB)", "what is kept of the training images"),
        ("latency_ms", 1, 1.0, "latency (ms)", "of one image, backbone to map"),
        ("fps", 1, 1.0, "FPS", "images a second, in batches"),
        ("peak_memory_bytes", 0, 1e-6, "peak memory (MB)", "of the process that trained"),
    ):
        if name in table and (table[name].fillna(0) != 0).any():
            columns.append(Column(head, says=says))
            why = table.get("speed_why", pd.Series("", table.index))
            given = list(why.fillna("")) if name in ("latency_ms", "fps") else []
            values = list(scale * table[name])
            cells.append(figures(values, digits=digits, best=False, says=given))
    columns += [Column("test images", words=True, says="good + bad"), Column("runs")]
    cells += [[Cell(str(v)) for v in table["images"]], [_count(v) for v in table["runs"]]]
    study = page.selection.study.name
    return _board(page, f"{study}-variants", f"Variants of {study}", columns, cells, CAPTION)


CAPTION = (
    "%, mean ± standard deviation over seeds of the mean over categories; the bar is the same on "
    "the column's own scale. Last epoch, unless a variant is marked. ✓ the highest mean, which "
    "need not be clearly best. Press a column's name to sort."
)


def rest(page: StudyPage) -> Board | None:
    """Tabulate the metrics that the main table leaves out; None where there are none."""
    table = page.summary
    others = [m for m in METRICS if m not in tables.HEADLINE and m in table]
    if not others:
        return None
    columns = [Column("variant", words=True), *(Column(METRICS[m].label) for m in others)]
    cells = [_names(page, table["label"]), *(_metric(table, m) for m in others)]
    study = page.selection.study.name
    return _board(page, f"{study}-more-metrics", f"More metrics of {study}", columns, cells)


def cost(page: StudyPage) -> Board:
    """Tabulate parameters by kind, MACs, memory, training time and speed."""
    table = tables.cost(page.frame)
    columns, cells = [Column("variant", words=True)], [_names(page, table.index)]
    for name in table.columns:
        if table[name].notna().any():
            whole = any(word in name for word in tables.WHOLE)
            columns.append(Column(name))
            cells.append([_number(v, whole=whole) for v in table[name]])
    study = page.selection.study.name
    return _board(page, f"{study}-cost", f"What the variants of {study} cost", columns, cells)


def by_category(page: StudyPage, metric: str) -> Board:
    """Tabulate a metric by category, the mean over seeds."""
    table = tables.by_category(page.frame, metric)
    name = f"{page.selection.study.name}-{metric}-by-category"
    return _shares(page, table, name, f"{METRICS[metric].label} by category (%)")


def by_defect(page: StudyPage) -> Board | None:
    """Tabulate the image AUROC of every kind of defect; None where images are not listed."""
    table = tables.by_defect(page.selection, page.frame)
    if table.empty or not len(table.columns):
        return None
    said = "Image AUROC by kind of defect (%), with the number of its images"
    return _shares(page, table, f"{page.selection.study.name}-by-defect", said)


def last_and_best(page: StudyPage) -> Board:
    """Set the last epoch beside an oracle's: every run's best epoch on the test set."""
    table = tables.oracle(page.curves, page.selection.study, page.shown)
    columns, cells = [Column("variant", words=True)], [_names(page, table.index)]
    for metric, which in _pairs(table):
        columns.append(Column(f"{METRICS[metric].label}, {which}"))
        cells.append(figures(list(table[metric, which])))
    name = f"{page.selection.study.name}-last-and-best-epoch"
    return _board(page, name, "The last epoch beside the best on the test", columns, cells)


def chosen_without_labels(page: StudyPage) -> list[Board]:
    """Tabulate what validation on drawn defects chooses, and how well it predicts the test."""
    study = page.selection.study.name
    chosen = label_free.choices(page.selection)
    heads = [Column("category", words=True)]
    heads += [Column(f"{by}: {what}", words=what == "variant") for by, what in _pairs(chosen)]
    rows = [
        [Cell(str(place)), *(Cell(DASH if pd.isna(v) else str(v)) for v in row)]
        for place, row in zip(chosen.index, chosen.to_numpy(), strict=True)
    ]
    said = label_free.correlations(label_free.pairs(page.selection))
    ranked = [
        [Cell(str(c)) for c in said.index],
        *(figures(list(said[n]), digits=0 if n == "pairs" else 2, best=False) for n in said),
    ]
    columns = [Column("category", words=True), *(Column(str(n)) for n in said)]
    return [
        Board(f"{study}-chosen", "What validation chooses", heads, rows),
        Board(f"{study}-rank", "Rank correlation with the test", columns, _rows(ranked)),
    ]  # fmt: skip


def settings(page: StudyPage) -> Board:
    """Tabulate the reference variant's fields; what is not the default is said."""
    table = tables.base_settings(page.selection.study)
    rows = [
        [Cell(str(field)), Cell(str(row["value"])), Cell("changed" * bool(row["changed"]))]
        for field, row in table.iterrows()
    ]
    columns = [Column(name, words=True) for name in ("field", "value", "against the default")]
    name = f"{page.selection.study.name}-settings"
    return Board(name, "Settings of the reference", columns, rows)


def differences_board(page: StudyPage) -> Board:
    """Tabulate the paired differences with their intervals and Holm's verdict, all metrics."""
    from harness.report.differences import differences

    columns = [Column("variant", words=True)]
    found = {metric: differences(page.selection, metric, photos=()) for metric in page.shown}
    first = next(iter(found.values()))
    cells = [_names(page, [d.variant for d in first])]
    for metric, of_metric in found.items():
        label = METRICS[metric].label
        columns += [Column(f"{label}, points"), Column("95 % interval", words=True),
                    Column("verdict", words=True)]  # fmt: skip
        cells.append([_signed(d.deciding.mean) for d in of_metric])
        cells.append([Cell(_interval(*d.interval)) for d in of_metric])
        says = [f"p = {d.adjusted:.2g}, corrected for {len(of_metric)} variants (Holm)"
                if isfinite(d.adjusted) else "" for d in of_metric]  # fmt: skip
        cells.append(
            [Cell(d.verdict, best=False, look=LOOKS.get(d.verdict, ""), says=s)
             for d, s in zip(of_metric, says, strict=True)]
        )  # fmt: skip
    name = f"{page.selection.study.name}-differences"
    return _board(page, name, "Differences to the reference", columns, cells)


LOOKS = {"gains": "said exceeds", "loses": "said gap"}


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The names of a table's columns, which have two levels."""
    return [(str(pair[0]), str(pair[1])) for pair in table.columns]


def _names(page: StudyPage, labels: Iterable[Any]) -> list[Cell]:
    return [Cell(variant=page.names[label], value=page.names[label].text) for label in labels]


def _metric(table: pd.DataFrame, metric: str) -> list[Cell]:
    spread = table.get(f"{metric}_sd_seeds", pd.Series(nan, table.index))
    return figures(list(100 * table[metric]), list(100 * spread))


def _shares(page: StudyPage, table: pd.DataFrame, name: str, title: str) -> Board:
    """A board of percentages by variant, each with a bar on the whole table's scale."""
    columns = [Column("variant", words=True), *(Column(str(c)) for c in table.columns)]
    cells = [_names(page, table.index), *(figures(list(table[c])) for c in table.columns)]
    return _board(page, name, title, columns, cells, f"{title}, mean over seeds.")


def _board(
    page: StudyPage,
    name: str,
    title: str,
    columns: Sequence[Column],
    cells: Sequence[Sequence[Cell]],
    caption: str = "",
) -> Board:
    """A board of variants, a column of cells each, which shows those that the page shows."""
    rows, chief = _rows(cells), set(page.chief)
    shown = [row for row in rows if row[0].variant and row[0].variant.full in chief]
    caption += page.leaves_out.strip() if not caption else page.leaves_out
    return Board(name, title, columns, rows, caption, shown=shown)


def _rows(columns: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _count(value: float) -> Cell:
    return Cell(f"{value:.0f}", float(value))


def _number(value: float, *, whole: bool) -> Cell:
    if not np.isfinite(value):
        return Cell(DASH)
    return Cell(f"{value:,.0f}" if whole else f"{value:,.1f}", round(float(value), 4))


def _signed(value: float) -> Cell:
    return Cell(_typeset(f"{value:+.2f}"), round(value, 4)) if isfinite(value) else Cell(DASH)


def _interval(low: float, high: float) -> str:
    return _typeset(f"{low:+.2f} … {high:+.2f}") if isfinite(low) else DASH


def _typeset(figure: str) -> str:
    """A figure with a minus sign as wide as its plus."""
    return figure.replace("-", "−")

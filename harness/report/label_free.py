"""Choosing without the test set: what validation on synthetic defects chooses, and predicts.

Seeds are averaged first. Nothing here is chosen with the test's labels but what is named an oracle
or the best fixed variant, which stand beside the choice to say what it loses.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.experiment.record import Record
from harness.report.selection import Selection
from harness.report.tables import percent
from harness.score.metrics import METRICS
from harness.score.select_epoch import validation_score

FIGURES = ("image_auroc", "pixel_auroc")
BOTH = "both"  # their mean, which the rule goes by
LABELS = {**{name: METRICS[name].label for name in FIGURES}, BOTH: "mean of both"}
LEAST = 3  # pairs that a rank correlation is given for
CHOSEN, FIXED, ORACLE = "chosen without labels", "best fixed variant (oracle)", "oracle"
NOTE = (
    "Defects drawn on held-out good images stand for real ones: in every category the variant "
    "with the highest mean of image and pixel AUROC there is chosen, and gets on the test images "
    "what the table says (%, mean over seeds). Beside it two choices that need the test's "
    "labels: the variant that is best over all categories, and the best one of each category. "
    "How well validation predicts the test is Spearman's rank correlation over all pairs of a "
    "variant and an evaluated epoch; pairs of one training are not independent."
)


def pairs(selection: Selection) -> pd.DataFrame:
    """Pair the validation's AUROC with the test's, of every variant at every evaluated epoch.

    Variants that differ in ``epoch_selection`` alone have the same epochs, and count once.

    Returns:
        label, category, epoch, figure (a key of LABELS), validation and test: fractions, means
        over the seeds. No row where no record has a validation.
    """
    rows = [
        (selection.labels[record.digest], record.category, entry.epoch, *figure)
        for record in _once(selection)
        for entry in record.epochs
        for figure in _figures(entry.validation or {}, entry.metrics)
    ]
    columns = ["label", "category", "epoch", "figure", "validation", "test"]
    frame = pd.DataFrame(rows, columns=columns)
    grouped = frame.groupby(columns[:4], sort=False, as_index=False)
    return grouped[["validation", "test"]].mean()


def correlations(paired: pd.DataFrame) -> pd.DataFrame:
    """Tabulate how validation ranks against the test: Spearman's correlation, by category.

    Args:
        paired: of :func:`pairs`.

    Returns:
        A row a category; a column a figure, nan where either side is constant or there are fewer
        than LEAST pairs; ``pairs`` counts them.

    >>> rows = [("a", "nut", e, "both", e / 9, e / 7) for e in (1, 2, 3)]
    >>> columns = ["label", "category", "epoch", "figure", "validation", "test"]
    >>> correlations(pd.DataFrame(rows, columns=columns)).loc["nut"].tolist()
    [1.0, 3.0]
    """
    table: dict[str, dict[str, float]] = {}
    for (category, figure), group in paired.groupby(["category", "figure"], sort=False):
        row = table.setdefault(str(category), {})
        row[LABELS[str(figure)]] = _spearman(group["validation"], group["test"])
        row["pairs"] = max(row.get("pairs", 0), len(group))
    frame = pd.DataFrame.from_dict(table, orient="index")
    return frame[[name for name in (*LABELS.values(), "pairs") if name in frame]]


def choices(selection: Selection) -> pd.DataFrame:
    """Tabulate which variant validation chooses in each category, and what the test says of it.

    A variant counts at the epoch that its own rule took; one whose rule is an oracle is left out.

    Returns:
        A row a category, and their mean; for CHOSEN, FIXED and ORACLE the variant and its image
        and pixel AUROC on the test images in %, as text. Empty where nothing was validated.
    """
    table = _candidates(selection)
    if table.empty:
        return pd.DataFrame()
    scores = table.pivot_table(index="category", columns="label", values="both", sort=False)
    whole = scores.dropna(axis="columns")  # a mean over other categories says nothing
    fixed = str(whole.mean().idxmax()) if whole.size else None
    shown: dict[str, dict[tuple[str, str], str]] = {}
    taken: dict[str, list[Any]] = {}
    for category, group in table.groupby("category", sort=False):
        mine: Any = group.set_index("label")
        best = {by: str(mine[of].idxmax()) for by, of in ((CHOSEN, "validation"), (ORACLE, BOTH))}
        for by, label in ((CHOSEN, best[CHOSEN]), (FIXED, fixed), (ORACLE, best[ORACLE])):
            if label is not None:
                taken.setdefault(by, []).append(mine.loc[label])
                shown.setdefault(str(category), {}).update(_cells(by, label, mine.loc[label]))
    means = {by: pd.DataFrame(rows)[list(FIGURES)].mean() for by, rows in taken.items()}
    shown["mean"] = {k: v for by, mean in means.items() for k, v in _cells(by, "", mean).items()}
    return pd.DataFrame.from_dict(shown, orient="index")


def _once(selection: Selection) -> Iterator[Record]:
    """The records, one of those that differ in the epoch's choice alone."""
    seen = set()
    validated = (r for r in selection.records if any(e.validation for e in r.epochs))
    for record in validated:
        fields = {k: v for k, v in record.variant.items() if k != "epoch_selection"}
        key = (json.dumps(fields, sort_keys=True), record.category, record.seed)
        if key not in seen:
            seen.add(key)
            yield record


def _figures(
    validation: dict[str, float], test: dict[str, float]
) -> Iterator[tuple[str, float, float]]:
    """Figure, its value in validation, and on the test images; of those that both have."""
    common = [name for name in FIGURES if name in validation and name in test]
    for name in common:
        yield name, validation[name], test[name]
    if common:
        means = [float(np.mean([given[n] for n in common])) for given in (validation, test)]
        yield BOTH, means[0], means[1]


def _candidates(selection: Selection) -> pd.DataFrame:
    """By label and category: validation, the test's AUROCs and their mean, over the seeds."""
    rows = []
    for record in selection.records:
        found = (e for e in record.epochs if e.epoch == record.selection.epoch)
        score = next(map(validation_score, found), None)
        if score is not None and not record.selection.oracle:
            figures = [record.metrics.get(name, np.nan) for name in FIGURES]
            known = [f for f in figures if np.isfinite(f)]
            both = float(np.mean(known)) if known else np.nan
            rows.append((selection.labels[record.digest], record.category, score, *figures, both))
    columns = ["label", "category", "validation", *FIGURES, BOTH]
    frame = pd.DataFrame(rows, columns=columns).dropna(subset=[BOTH])
    return frame.groupby(["label", "category"], sort=False, as_index=False).mean()


def _cells(by: str, label: str, row: pd.Series) -> dict[tuple[str, str], str]:
    return {(by, "variant"): label} | {(by, LABELS[n]): percent(row[n]) for n in FIGURES}


def _spearman(one: pd.Series, other: pd.Series) -> float:
    if len(one) < LEAST or one.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)

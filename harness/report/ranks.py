"""Ranks over categories, where there are enough of them to rank by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scikit_posthocs
from scipy import stats

from harness.report.selection import Selection

FEWEST = 10  # categories: with fewer, not even a variant that wins on all of them stands out
VARIANTS = 3


@dataclass(frozen=True)
class Ranks:
    """Hold how variants rank over categories (Demšar, JMLR 7, 2006).

    Attributes:
        mean: variant → mean rank, 1 the best.
        friedman: p-value of "all rank alike".
        pairs: Wilcoxon's p-values of every two variants, adjusted by Holm.
        categories: their number.
    """

    mean: "pd.Series[float]"
    friedman: float
    pairs: pd.DataFrame
    categories: int

    def sentence(self) -> str:
        """Say it in words, in Markdown."""
        differ = "differ" if self.friedman < 0.05 else "are not shown to differ"
        return (
            f"Over {self.categories} categories the variants' ranks {differ} (Friedman, "
            f"p = {self.friedman:.2g}). Variants that a bar joins are not told apart (Wilcoxon "
            "with Holm's correction, on each category's mean over seeds)."
        )


def ranks(selection: Selection, metric: str) -> Ranks | None:
    """Rank the variants in every category by the mean over seeds.

    Args:
        selection: the records.
        metric: of :data:`harness.score.metrics.METRICS`.

    Returns:
        The ranks over the categories that every variant has; None where these are fewer than ten,
        or there are fewer than three variants.
    """
    rows = [
        (selection.labels[r.digest], r.category, r.metrics[metric])
        for r in selection.records
        if metric in r.metrics
    ]
    frame = pd.DataFrame(rows, columns=["variant", "category", "value"])
    table = frame.pivot_table(index="category", columns="variant", values="value").dropna()
    if len(table) < FEWEST or table.shape[1] < VARIANTS:
        return None
    values = table.to_numpy()
    if np.ptp(values, axis=1).max() == 0:
        return None
    long = table.melt(ignore_index=False, var_name="variant", value_name="value").reset_index()
    return Ranks(
        mean=table.rank(axis=1, ascending=False).mean(),
        friedman=float(stats.friedmanchisquare(*values.T).pvalue),
        pairs=scikit_posthocs.posthoc_wilcoxon(
            long, val_col="value", group_col="variant", p_adjust="holm", sort=True
        ),
        categories=len(table),
    )

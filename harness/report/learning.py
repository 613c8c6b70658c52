"""Whether training had ended: a ranking of what still rises is one of speed of learning."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.escape import in_markdown
from harness.report.names import some
from harness.score.statistics import paired_estimate

RISE = 0.5  # points over the last quarter of the epochs
FROM = 0.75  # where the last quarter begins


@dataclass(frozen=True)
class Rise:
    """Hold how a variant's metric moved over the last quarter of its epochs, in points.

    >>> Rise("base", since=15, until=20, points=2.0, low=1.0).still
    True
    """

    variant: str
    since: int
    until: int
    points: float
    low: float

    @property
    def still(self) -> bool:
        """Tell whether it still rose: by more than half a point, and surely.

        That is, the 95 % interval over categories and seeds lies above zero; with one seed there
        is none, and the rise itself has to do.
        """
        return self.points > RISE and not self.low <= 0


def rises(curves: pd.DataFrame, metric: str, above: float = -np.inf) -> list[Rise]:
    """Measure for every variant how the metric moved from 3/4 of the epochs to the last one.

    Args:
        curves: of :func:`harness.report.tables.epochs`.
        metric: one that every evaluated epoch has.
        above: points; variants that rose by no more are left out.

    Returns:
        One of each variant that was evaluated before, at a multiple of ``eval_every``; what was
        evaluated at its end alone says nothing of it.
    """
    runs = ["label", "category", "seed"]
    chosen = curves.dropna(subset=[metric]).sort_values("epoch")
    epochs = chosen.groupby(runs, observed=True, sort=False)["epoch"]
    three_quarters = np.maximum(FROM * epochs.transform("last"), epochs.transform("first"))
    before = chosen[chosen["epoch"] <= three_quarters].groupby(runs, observed=True).last()
    last = chosen.groupby(runs, observed=True).last()
    table = pd.DataFrame({"since": before["epoch"], "until": last["epoch"],
                          "points": 100 * (last[metric] - before[metric])})  # fmt: skip
    table = table[table["since"] < table["until"]]
    table = table[table.groupby(level="label", observed=True)["points"].transform("mean") > above]
    found = []
    by_label = dict(iter(table.groupby(level="label", observed=True)))
    for label in dict.fromkeys(curves["label"]):
        if (mine := by_label.get(label)) is None:
            continue
        by_category = mine["points"].groupby(level="category", observed=True)
        made = paired_estimate([g.to_numpy() for _, g in by_category])
        since, until = max(zip(mine["since"], mine["until"], strict=True))
        found.append(Rise(str(label), int(since), int(until), made.mean, made.interval()[0]))
    return found


def unfinished(curves: pd.DataFrame, metric: str, label: str) -> str:
    """Warn, in Markdown, of variants whose training had not ended; empty where all had.

    Args:
        curves: of :func:`harness.report.tables.epochs`.
        metric: that is looked at.
        label: how it is printed.
    """
    rising = [r for r in rises(curves, metric, RISE) if r.still]
    if not rising:
        return ""
    most = max(rising, key=lambda r: r.points)
    names = in_markdown(some(r.variant for r in rising))
    return (
        f"**Training had not ended**: the {label} of {names} still rose (most: "
        f"{in_markdown(most.variant)}, {most.points:+.1f} points from epoch {most.since} to "
        f"{most.until}), so this ranking may be one of speed of learning. More epochs tell: "
        f"`--epochs {2 * most.until}`."
    )

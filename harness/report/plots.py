"""Charts of a study, drawn from tables: small, one question each, in the page's colours.

Every function gives a :class:`harness.report.drawing.Panel`: a chart about as wide as a phone,
with a title, and with what it says in words for those who do not see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scikit_posthocs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from harness.report.differences import Difference
from harness.report.drawing import SETTINGS, Panel
from harness.report.label_free import LABELS
from harness.report.names import Name
from harness.report.ranks import Ranks
from harness.report.site.palette import INK, LINE, MUTED, PAPER, VARIANTS, colour, marker
from harness.score.metrics import METRICS

WIDTH = 4.6  # inches: at this width letters are as large as the page's small ones
STYLE: Any = SETTINGS | {
    "font.size": 9.5, "axes.titlesize": 9.5, "axes.labelsize": 9.5, "legend.fontsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9.5, "text.color": INK[0],
    "axes.labelcolor": MUTED[0], "axes.edgecolor": MUTED[0], "xtick.color": MUTED[0],
    "ytick.color": MUTED[0], "ytick.labelcolor": INK[0], "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": LINE[0], "grid.linewidth": 0.7, "axes.axisbelow": True,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}  # fmt: skip
VERDICTS = {  # as `harness gap` says them
    "reproduced": VARIANTS[7][0], "gap": VARIANTS[2][0], "exceeds": VARIANTS[5][0],
    "undecided": MUTED[0],
}  # fmt: skip
MOST_IN_WORDS = 12  # variants that a description goes through one by one


def _axes(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _rows(axis: Axes, names: Sequence[str]) -> np.ndarray:
    """Put names at the rows of a chart, the first one above."""
    rows = np.arange(len(names))[::-1]
    axis.set_yticks(rows, list(names))
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    return rows


def _panel(figure: Figure, title: str, says: str) -> Panel:
    return Panel(figure, title, says)


def _jitter(count: int) -> np.ndarray:
    """Where a row's dots stand, so that few hide each other."""
    return np.linspace(-0.14, 0.14, count) if count > 1 else np.zeros(count)


def runs(frame: pd.DataFrame, metric: str, names: Mapping[str, Name], title: str) -> Panel:
    """Draw every run as a dot by its variant, and each variant's mean as a line.

    Args:
        frame: of :func:`harness.report.tables.runs`.
        metric: of :data:`harness.score.metrics.METRICS`.
        names: the variants, by label, in order.
        title: of the chart.
    """
    with plt.rc_context(STYLE):
        groups = {k: 100 * g.dropna() for k, g in frame.groupby("label", observed=True)[metric]}
        present = [label for label in names if label in groups]
        figure, axis = _axes(0.75 + 0.27 * len(present))
        rows = _rows(axis, [names[label].text for label in present])
        values = [groups[label].to_numpy() for label in present]
        drawn = [colour(place) for place, label in enumerate(names) if label in groups]
        counts = [len(v) for v in values]
        # One artist for all dots, and one for all lines: hundreds would take seconds.
        axis.scatter(
            np.concatenate([*values, []]),
            np.repeat(rows, counts) + np.concatenate([*map(_jitter, counts), []]),
            c=np.repeat(drawn, counts), s=17, alpha=0.75, linewidths=0,
        )  # fmt: skip
        means = np.array([v.mean() if len(v) else np.nan for v in values])
        known = np.isfinite(means)
        axis.vlines(means[known], rows[known] - 0.32, rows[known] + 0.32, linewidth=1.5,
                    colors=np.array(drawn)[known], capstyle="round")  # fmt: skip
        said = [f"{names[n].text} {m:.1f}" for n, m in zip(present, means, strict=True) if m == m]
        axis.set_xlabel(f"{METRICS[metric].label} (%)")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    return _panel(figure, title, f"{METRICS[metric].label} in %, means: {_some(said)}.")


def forest(
    found: Sequence[Difference], names: Mapping[str, Name], reference: str, metric: str
) -> Panel:
    """Draw paired differences to the reference with their 95 % intervals, in points.

    The line: over seeds. The band: over seeds and test images, where the metric has that one. A
    full dot survives Holm's correction.
    """
    with plt.rc_context(STYLE):
        figure, axis = _axes(0.85 + 0.33 * len(found))
        rows = _rows(axis, [names[d.variant].text for d in found])
        axis.axvline(0, color=INK[0], linewidth=0.8)
        places = {label: place for place, label in enumerate(names)}
        drawn = [colour(places[d.variant]) for d in found]
        for estimates, width, alpha, end in (
            ([d.by_photos for d in found], 6.0, 0.25, "butt"),
            ([d.by_seeds for d in found], 1.5, 1.0, "round"),
        ):
            low, high = np.reshape([e.interval() for e in estimates], (-1, 2)).T
            known = np.isfinite(low)
            axis.hlines(rows[known], low[known], high[known], linewidth=width, alpha=alpha,
                        colors=np.array(drawn)[known], capstyle=end)  # fmt: skip
        sure = [d.verdict in ("gains", "loses") for d in found]
        filled = [c if s else PAPER[0] for c, s in zip(drawn, sure, strict=True)]
        means = [d.deciding.mean for d in found]
        axis.scatter(means, rows, s=36, c=filled, edgecolors=drawn, linewidths=1.4, zorder=3)
        said = [
            f"{names[d.variant].text} {d.deciding.mean:+.1f} ({d.interval[0]:+.1f} to "
            f"{d.interval[1]:+.1f}), {d.verdict}"
            for d in found if np.isfinite(d.deciding.mean)
        ]  # fmt: skip
        axis.set_xlabel(f"points against {names[reference].text}")
        axis.xaxis.set_major_locator(MaxNLocator(6))
    label = METRICS[metric].label
    return _panel(
        figure, label, f"Differences of {label} to {reference}, in points: {_some(said)}."
    )


def front(
    table: pd.DataFrame, names: Mapping[str, Name], metric: str, column: str, text: str
) -> Panel:
    """Draw the metric against a cost; a line joins what no other variant beats in both.

    Args:
        table: with ``label``, the metric as a fraction, and ``column``.
        names: the variants, by label.
        metric: of :data:`harness.score.metrics.METRICS`.
        column: the cost.
        text: what stands at its axis.
    """
    with plt.rc_context(STYLE):
        known = table.dropna(subset=[metric, column])
        known = known[known[column] > 0]
        figure, axis = _axes(3.1)
        order = known.sort_values([column, metric], ascending=[True, False])
        best = order[order[metric] > order[metric].cummax().shift(fill_value=-1)]
        axis.step(best[column], 100 * best[metric], where="post", color=MUTED[0], linewidth=0.9)
        for row in known.to_dict("records"):
            place = list(names).index(row["label"])
            axis.plot(row[column], 100 * row[metric], marker(place), color=colour(place),
                      markersize=7.5, markeredgewidth=0)  # fmt: skip
        axis.set(xscale="log", xlabel=text, ylabel=f"{METRICS[metric].label} (%)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.1)
    said = [names[n].text for n in best["label"]]
    label = METRICS[metric].label
    return _panel(figure, f"{label} against {text}", f"Not beaten in both: {_some(said)}.")


def learning(
    curves: pd.DataFrame, names: Mapping[str, Name], metric: str, chosen: Mapping[str, float]
) -> Panel:
    """Draw a metric of the test images over the epochs, with the epoch that each rule chose.

    Args:
        curves: of :func:`harness.report.tables.epochs`: means over categories and seeds are drawn.
        names: the variants, by label.
        metric: one that every evaluated epoch has.
        chosen: label → the epoch that counts, the mean over its runs.
    """
    with plt.rc_context(STYLE):
        figure, axis = _axes(3.1)
        known = curves.dropna(subset=[metric])
        means = 100 * known.groupby(["label", "epoch"], observed=True)[metric].mean()
        drawn = {
            label: line.droplevel("label")
            for label, line in means.groupby(level="label", observed=True)
        }
        said = []
        for place, label in enumerate(names):
            if (line := drawn.get(label)) is None:
                continue
            axis.plot(line.index, line, color=colour(place), linewidth=1.3 + 0.7 * (not place))
            if (at := chosen.get(label)) is not None:
                epoch = line.index[int(np.abs(line.index - at).argmin())]
                axis.plot(epoch, line[epoch], marker(place), color=colour(place), markersize=6)
                said.append(f"{names[label].text} ends at {line.iloc[-1]:.1f}")
        axis.set(xlabel="epoch", ylabel=f"{METRICS[metric].label} (%)")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label = METRICS[metric].label
    return _panel(figure, label, f"{label} in % over the epochs: {_some(said)}.")


def histogram(
    scores: Sequence[float], labels: Sequence[bool], threshold: float, title: str
) -> Panel:
    """Draw the scores of good and of defective test images, and the threshold between them.

    Args:
        scores: larger = more anomalous.
        labels: true = defective.
        threshold: what scores at least as much is flagged; nan: none is drawn.
        title: of the chart.
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    with plt.rc_context(STYLE):
        figure, axis = _axes(2.3)
        bins = np.linspace(values.min(), values.max() + 1e-9, 25)
        groups = (("good", ~truth, VARIANTS[5][0], 1), ("defective", truth, VARIANTS[2][0], -1))
        top = 1
        for name, those, drawn, side in groups:
            counts, _ = np.histogram(values[those], bins)
            top = max(top, counts.max())
            axis.stairs(side * counts, bins, fill=True, color=drawn, linewidth=0)
            axis.text(1.0, 0.97 if side > 0 else 0.03, f"{name} ({int(those.sum())})", ha="right",
                      transform=axis.transAxes, color=MUTED[0],
                      va="top" if side > 0 else "bottom")  # fmt: skip
        axis.axhline(0, color=MUTED[0], linewidth=0.7)
        if np.isfinite(threshold):
            axis.axvline(threshold, color=INK[0], linewidth=1.2, linestyle=(0, (4, 2)))
        axis.set_ylim(-1.5 * top, 1.5 * top)  # room for what the sides are called
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.spines["bottom"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel("image score")
    flagged = values >= threshold
    good, bad = int((~truth).sum()), int(truth.sum())
    says = f"Scores of {good} good images above, of {bad} defective ones below."
    if np.isfinite(threshold):
        says += (
            f" At the threshold {threshold:.3g}, {int((truth & ~flagged).sum())} defective images "
            f"are missed and {int((~truth & flagged).sum())} good ones flagged."
        )
    return _panel(figure, title, says)


def critical_difference(ranked: Ranks, names: Mapping[str, Name], title: str) -> Panel:
    """Draw the mean ranks, and join the variants that are not told apart."""
    with plt.rc_context(STYLE):
        figure, axis = _axes(1.2 + 0.27 * len(ranked.mean), 2 * WIDTH)
        axis.grid(visible=False)
        text = {label: names[label].text for label in ranked.mean.index}
        pairs = ranked.pairs.rename(index=text, columns=text)
        scikit_posthocs.critical_difference_diagram(
            ranks=ranked.mean.rename(text).to_dict(), sig_matrix=pairs, ax=axis,
            color_palette={names[label].text: colour(i) for i, label in enumerate(names)},
        )  # fmt: skip
    return _panel(figure, title, ranked.sentence())


def gap_forest(table: pd.DataFrame) -> Panel:
    """Draw ours minus published with the 95 % interval, coloured by verdict."""
    with plt.rc_context(STYLE):
        figure, axis = _axes(0.8 + 0.24 * len(table), 2 * WIDTH)
        known = table[["by", "setting", "backbone", "category", "metric"]].to_numpy()
        rows = _rows(axis, [" ".join(filter(None, row)) for row in known])
        axis.axvline(0, color=INK[0], linewidth=0.8)
        for verdict, drawn in VERDICTS.items():
            chosen = (table["verdict"] == verdict).to_numpy()
            some = table[chosen]
            spread = np.vstack([some["ours"] - some["low"], some["high"] - some["ours"]])
            axis.errorbar(some["gap"], rows[chosen], xerr=np.nan_to_num(spread), fmt="o",
                          color=drawn, markersize=4.5)  # fmt: skip
        axis.set(xlabel="ours minus published (points; M for parameters)")
    counts = table["verdict"].value_counts()
    said = [f"{n} {verdict}" for verdict, n in counts.items()]
    return _panel(figure, "Ours minus published", f"{len(table)} figures: {', '.join(said)}.")


def prediction(paired: pd.DataFrame, figure_name: str) -> Panel:
    """Draw the test's AUROC against that of validation, a dot a variant at an evaluated epoch.

    Args:
        paired: of :func:`harness.report.label_free.pairs`.
        figure_name: of :data:`harness.report.label_free.LABELS`.
    """
    with plt.rc_context(STYLE):
        figure, axis = _axes(3.2)
        mine = paired[paired["figure"] == figure_name]
        for i, (category, rows) in enumerate(mine.groupby("category", sort=False)):
            axis.plot(100 * rows["validation"], 100 * rows["test"], marker(i), color=colour(i),
                      alpha=0.8, markersize=5, markeredgewidth=0, linestyle="none",
                      label=str(category))  # fmt: skip
        axis.set(xlabel="on drawn defects (%)", ylabel="on the test (%)")
    categories = list(map(str, mine["category"].unique()))
    return _panel(figure, LABELS[figure_name], f"A dot a variant and epoch: {_some(categories)}.")


def _some(said: Sequence[str]) -> str:
    """A list in words that stays short enough to be read aloud."""
    more = len(said) - MOST_IN_WORDS
    return "; ".join([*said[:MOST_IN_WORDS], *([f"and {more} more"] if more > 0 else [])])

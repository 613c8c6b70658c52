"""Figures of a study, drawn from tables and from the galleries that runs leave."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scikit_posthocs
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from harness.experiment.place import Place
from harness.report.differences import Difference
from harness.report.drawing import draw_text_as_text, shown
from harness.report.label_free import LABELS
from harness.report.ranks import Ranks
from harness.report.selection import Selection
from harness.score.metrics import METRICS


def style() -> None:
    """Set the look of every figure and table: call once per notebook."""
    pd.set_option("display.max_rows", None, "display.max_colwidth", None)
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "axes.titlesize": "medium"})
    draw_text_as_text()


def metric_by_variant(frame: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw one panel per metric: every run a dot, by category, and the mean a bar."""
    height = _height(frame["category"], 0.9 + 0.5 * frame["label"].nunique())
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(2.5 + 3.2 * len(metrics), height),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    values = {m: 100 * frame[m] for m in metrics}
    table = frame.assign(category=frame["category"].map(shown), **values)
    for axis, metric in zip(axes[0], metrics, strict=True):
        sns.stripplot(
            table, x=metric, y="label", hue="category", ax=axis, size=6, alpha=0.8,
            jitter=0.18, legend=metric == metrics[-1],
        )  # fmt: skip
        sns.pointplot(
            table, x=metric, y="label", ax=axis, errorbar=None, linestyle="none", marker="|",
            markersize=22, markeredgewidth=2.5, color="black",
        )  # fmt: skip
        axis.set(xlabel=f"{METRICS[metric].label} (%)", ylabel="")
    if legend := axes[0][-1].get_legend():
        sns.move_legend(axes[0][-1], "center left", bbox_to_anchor=(1, 0.5), frameon=False)
        legend.set_title("category")
    return _closed(figure)


def forest(found: Sequence[Difference], reference: str, metric: str) -> Figure:
    """Draw paired differences to the reference with their 95 % intervals, in points.

    Dark: over seeds. Light: over seeds and test images, where the metric has that one.
    """
    figure, axis = plt.subplots(figsize=(7.5, 0.9 + 0.45 * len(found)), layout="constrained")
    rows = np.arange(len(found))[::-1]
    dark, *_ = sns.color_palette()
    for name, colour, width in (("by_photos", (*dark, 0.3), 5), ("by_seeds", dark, 1.5)):
        estimates = [getattr(d, name) for d in found]
        means = np.array([e.mean for e in estimates])
        half = np.array([e.interval()[1] - e.mean for e in estimates])
        axis.errorbar(
            means, rows, xerr=np.nan_to_num(half), fmt="o", color=colour, elinewidth=width,
            capsize=4 if name == "by_seeds" else 0,
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(rows, [d.variant for d in found])
    axis.set(
        xlabel=f"{METRICS[metric].label}, points against {reference}",
        ylim=(-0.6, len(found) - 0.4),
    )
    return _closed(figure)


def critical_difference(ranked: Ranks) -> Figure:
    """Draw the mean ranks, and join the variants that are not told apart."""
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.25 * len(ranked.mean)), layout="constrained")
    scikit_posthocs.critical_difference_diagram(
        ranks=ranked.mean.to_dict(), sig_matrix=ranked.pairs, ax=axis
    )
    return _closed(figure)


def gap_forest(table: pd.DataFrame) -> Figure:
    """Draw ours minus published with the 95 % interval, by verdict."""
    figure, axis = plt.subplots(figsize=(9, 1 + 0.28 * len(table)), layout="constrained")
    rows = np.arange(len(table))[::-1]
    verdicts = ("reproduced", "gap", "exceeds", "undecided")
    colours = dict(zip(verdicts, [*sns.color_palette()[2:5], "grey"], strict=True))
    for verdict, colour in colours.items():
        chosen = (table["verdict"] == verdict).to_numpy()
        some = table[chosen]
        spread = np.vstack([some["ours"] - some["low"], some["high"] - some["ours"]])
        axis.errorbar(
            some["gap"], rows[chosen], xerr=np.nan_to_num(spread), fmt="o",
            color=colour, capsize=3, label=f"{verdict} ({len(some)})",
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=1)
    known = table[["by", "setting", "backbone", "category", "metric"]].to_numpy()
    axis.set_yticks(rows, [" ".join(filter(None, row)) for row in known], fontsize=8)
    axis.set(xlabel="ours minus published (points; M for parameters)")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return _closed(figure)


def pareto(table: pd.DataFrame, metric: str = "image_auroc") -> Figure:
    """Draw the metric against latency, and against what is kept beside the backbone.

    Kept: the additional parameters at four bytes each, and the memory bank. A line joins the
    variants that no other one beats in both (the Pareto front).
    """
    columns = {"latency_ms": "latency of one image (ms)", "kept": "parameters and bank (MB)"}
    if "latency_ms" not in table:  # not measured
        del columns["latency_ms"]
    kept = (4 * table["additional_params"] + table["bank_bytes"]) / 1e6
    known = table.assign(kept=kept).dropna(subset=[metric])
    size = (3 + 4 * len(columns), _height(known["variant"], 4.2))
    figure, axes = plt.subplots(
        1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    axes = axes[0]
    for axis, (column, text) in zip(axes, columns.items(), strict=True):
        for row, colour in zip(known.to_dict("records"), _colours(len(known)), strict=True):
            if not np.isfinite(row[column]):  # its latency is not measured
                continue
            millions, bank = row["additional_params"] / 1e6, row["bank_bytes"] / 1e6
            said = f"{millions:.2f} M" + (f", bank {bank:.0f} MB" if bank else "")
            axis.scatter(
                row[column], 100 * row[metric], s=90, color=colour, alpha=0.85,
                label=shown(f"{row['variant']} ({said})"),
            )  # fmt: skip
        front = known.dropna(subset=[column])
        front = front.sort_values([column, metric], ascending=[True, False])
        front = front[front[metric] > front[metric].cummax().shift(fill_value=-1)]
        axis.plot(front[column], 100 * front[metric], color="grey", linewidth=1, zorder=0)
        axis.set(xscale="log", xlabel=text)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.12)
    axes[0].set_ylabel(f"{METRICS[metric].label} (%)")
    figure.legend(
        *axes[-1].get_legend_handles_labels(), loc="outside right center", frameon=False,
        fontsize=10, title="variant (A.d. params)",
    )  # fmt: skip
    return _closed(figure)


def learning_curves(epochs: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw metrics of the test images over the epochs: the mean over categories and seeds.

    The last epoch is what the tables report; a peak before it is what an oracle would pick.
    """
    size = (3 + 3.2 * len(metrics), _height(epochs["label"], 3.6))
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, layout="constrained")
    for axis, metric in zip(axes[0], metrics, strict=True):
        table = epochs[epochs["metric"] == metric].assign(value=lambda t: 100 * t["value"])
        labels = [shown(str(label)) for label in table["label"]]
        table["label"] = pd.Categorical(labels, list(dict.fromkeys(labels)))
        sns.lineplot(
            table, x="epoch", y="value", hue="label", errorbar=None, marker="o", ax=axis,
            legend=metric == metrics[-1],
        )  # fmt: skip
        axis.set(ylabel=f"{METRICS[metric].label} (%)")
    if axes[0][-1].get_legend():
        sns.move_legend(
            axes[0][-1], "center left", bbox_to_anchor=(1, 0.5), frameon=False, title=""
        )
    return _closed(figure)


def prediction(paired: pd.DataFrame) -> Figure:
    """Draw the test's AUROC against that of validation, a dot a variant at an evaluated epoch.

    Args:
        paired: of :func:`harness.report.label_free.pairs`.
    """
    figures = [name for name in LABELS if (paired["figure"] == name).any()]
    size = (2 + 3.6 * len(figures), _height(paired["category"], 3.8))
    figure, axes = plt.subplots(1, len(figures), figsize=size, squeeze=False, layout="constrained")
    values = {side: 100 * paired[side] for side in ("validation", "test")}
    table = paired.assign(category=paired["category"].map(shown), **values)
    for axis, name in zip(axes[0], figures, strict=True):
        sns.scatterplot(
            table[table["figure"] == name], x="validation", y="test", hue="category",
            style="category", s=45, alpha=0.8, ax=axis, legend=name == figures[-1],
        )  # fmt: skip
        axis.set(title=LABELS[name], xlabel="on synthetic defects (%)", ylabel="on the test (%)")
    sns.move_legend(axes[0][-1], "center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _closed(figure)


def gallery(selection: Selection, label: str, category: str) -> Figure | None:
    """Show test images of a category with mask and anomaly map, of one variant's first seed.

    The first image of every kind of defect and the good image with the highest score, so
    neither the best nor the worst of the method was picked. One colour scale for all maps.

    Args:
        selection: where the runs are.
        label: the variant's name.
        category: one of its categories.

    Returns:
        The figure; None where nothing was run, the file is damaged, or the method gives no maps.
    """
    digests = {name: digest for digest, name in selection.labels.items()}
    seed = selection.study.seeds[0]
    where = (digests[label], selection.dataset, category, seed)
    path = Place(selection.results, *where).gallery
    if (data := _kept(path)) is None:
        return None
    count = len(data["images"])
    height, width = data["maps"].shape[1:]
    size = (1.9 * count, 0.5 + 3.8 * height / width)
    figure, axes = plt.subplots(2, count, figsize=size, squeeze=False, layout="constrained")
    low, high = np.nanmin(data["maps"]), np.nanmax(data["maps"])
    for column in range(count):
        image, mask, anomaly = (data[k][column] for k in ("images", "masks", "maps"))
        for axis in axes[:, column]:
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            if mask.any():
                axis.contour(mask, levels=[0.5], colors="cyan", linewidths=1)
        axes[1, column].imshow(anomaly, cmap="inferno", vmin=low, vmax=high, alpha=0.75)
        axes[0, column].set_title(
            f"{str(data['defects'][column]).replace('_', ' ')}\n"
            f"score {data['scores'][column]:.3f}",
            fontsize=9,
        )
    axes[0, 0].set_ylabel("image, mask")
    axes[1, 0].set_ylabel("anomaly map")
    figure.suptitle(f"{category}: {label}, seed {seed}", fontsize=11)
    return _closed(figure)


def _kept(path: Path) -> dict[str, Any] | None:
    """The images that a run kept; None where it kept none, or they cannot be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            data = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error):
        return None
    return data


def _height(legend: pd.Series, least: float) -> float:
    """The height of a figure, in inches, that has room for a legend of these names beside it."""
    return max(least, 1 + 0.3 * legend.nunique())


def _closed(figure: Figure) -> Figure:
    """The figure, no longer pyplot's: a notebook would else show it a second time."""
    plt.close(figure)
    return figure


def _colours(count: int) -> list[tuple[float, float, float]]:
    palette = sns.color_palette() if count <= 10 else sns.color_palette("husl", count)
    return [tuple(c) for c in palette[:count]]

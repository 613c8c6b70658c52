"""The figures of a study's page: each names its records and offers its data."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from harness.experiment.record import Record
from harness.report import label_free, photos, plots, ranks
from harness.report.differences import differences
from harness.report.drawing import Plate
from harness.report.sentences import DIFFERENCES_NOTE
from harness.report.site.markup import Html, block, prose
from harness.report.study_page import StudyPage
from harness.score.metrics import METRICS

MOST_PANELS = 15
MOST_ROWS = 5_000  # of a chart's data, as they are downloaded
MOST_BYTES = 700_000  # of a page's pictures in a part of it, as they stand in the page
COSTS = {
    "latency_ms": "latency of one image (ms)", "kept": "parameters and bank (MB)",
    "peak_mb": "peak memory of training (MB)",
}  # fmt: skip


def runs(page: StudyPage) -> Plate:
    """Draw every run, a chart a category; one metric, the first that was measured."""
    metric = page.shown[0]
    categories = [c for c in page.selection.categories if (page.frame["category"] == c).any()]
    frame = page.frame[page.frame["label"].isin(page.chief)]
    panels = [
        plots.runs(frame[frame["category"] == c], metric, page.names, c)
        for c in categories[:MOST_PANELS]
    ]
    label = METRICS[metric].label
    caption = f"{label} by category: a dot a run, a line the mean of a variant."
    caption += page.leaves_out
    data = page.frame[["label", "category", "seed", *page.shown]]
    if len(data) > MOST_ROWS:
        caption += " Downloaded: means over the seeds."
        by = data.groupby(["label", "category"], observed=True, sort=False)
        data = by[page.shown].mean().reset_index()
    return Plate(f"runs-{_study(page)}", panels, caption, page.records, data)


def forests(page: StudyPage) -> Plate:
    """Draw the paired differences to the reference, a chart a metric."""
    panels, rows = [], []
    for metric in page.shown:
        found = differences(page.selection, metric, photos=page.chief)
        chief = [d for d in found if d.variant in page.chief]
        panels.append(plots.forest(chief, page.names, page.reference, metric))
        rows += [
            (metric, d.variant, d.pairs, d.deciding.mean, *d.interval, d.decides, d.adjusted,
             d.verdict)
            for d in found
        ]  # fmt: skip
    columns = [
        "metric",
        "variant",
        "pairs",
        "points",
        "low",
        "high",
        "over",
        "p (Holm)",
        "verdict",
    ]
    data = pd.DataFrame(rows, columns=columns)
    caption = DIFFERENCES_NOTE + page.leaves_out
    return Plate(f"differences-{_study(page)}", panels, caption, page.records, data)


def rank_diagrams(page: StudyPage) -> list[Plate | Html]:
    """Draw critical-difference diagrams, where there are categories enough to rank by.

    Of more variants than a page shows there is none, which is said.
    """
    made: list[Plate | Html] = []
    if len(page.chief) < len(page.names):
        many = len(page.names)
        return [prose(f"No diagram of ranks: it would compare every two of {many} variants.")]
    for metric in page.shown:
        if ranked := ranks.ranks(page.selection, metric):
            label = METRICS[metric].label
            panel = plots.critical_difference(ranked, page.names, f"Mean ranks by {label}")
            data = ranked.mean.rename("mean rank").rename_axis("variant").reset_index()
            made.append(Plate(f"ranks-{metric}-{_study(page)}", [panel], ranked.sentence(),
                              page.records, data, wide=True))  # fmt: skip
    return made


def fronts(page: StudyPage) -> Plate | None:
    """Draw the first metric against each cost that was measured, with its Pareto front."""
    metric, table = page.shown[0], page.summary.copy()
    bank = table["bank_bytes"] if "bank_bytes" in table else 0
    table["kept"] = (4 * table["additional_params"] + bank) / 1e6
    table["peak_mb"] = table.get("peak_memory_bytes", np.nan) / 1e6
    known = [c for c in COSTS if c in table and (table[c] > 0).any()]
    if not known:
        return None
    chief = table[table["label"].isin(page.chief)]
    panels = [plots.front(chief, page.names, metric, c, COSTS[c]) for c in known]
    caption = (
        f"Mean {METRICS[metric].label} against what a variant costs, on a logarithmic scale. The "
        "line joins those that no other one beats in both. Parameters are those beside the "
        f"backbone, at four bytes each.{page.leaves_out}"
    )
    data = table[["label", metric, *known]]
    key = [page.names[label] for label in chief.dropna(subset=[metric])["label"]]
    return Plate(f"cost-{_study(page)}", panels, caption, page.records, data, key)


def learning(page: StudyPage) -> Plate:
    """Draw the metrics over the epochs, with the epoch that each variant's rule chose."""
    frame = page.frame
    means = frame.groupby("label", observed=True)["epoch"].mean()
    chosen = {str(label): float(epoch) for label, epoch in means.items()}
    curves = page.curves[page.curves["label"].isin(page.chief)]
    panels = [plots.learning(curves, page.names, m, chosen) for m in page.shown]
    rules = sorted({r.selection.rule for r in page.selection.records})
    caption = (
        "Means over categories and seeds, on the test images. The mark is at the epoch that "
        f"counts (rule: {', '.join(rules)}), the mean over the runs; a peak before it is what an "
        f"oracle would pick.{page.leaves_out}"
    )
    ran = set(frame["label"])
    key = [page.names[label] for label in page.chief if label in ran]
    data = page.curves
    if len(data) > MOST_ROWS:
        caption += " Downloaded: the means that are drawn."
        data = curves.groupby(["label", "epoch"], observed=True)[page.shown].mean().reset_index()
    return Plate(f"learning-{_study(page)}", panels, caption, page.records, data, key)


def predictions(page: StudyPage) -> Plate | None:
    """Draw the test's AUROC against that of validation; None where nothing was validated."""
    paired = label_free.pairs(page.selection)
    if paired.empty:
        return None
    figures = [name for name in label_free.LABELS if (paired["figure"] == name).any()]
    panels = [plots.prediction(paired, name) for name in figures]
    caption = "A dot a variant at an evaluated epoch; a colour and shape a category."
    return Plate(f"prediction-{_study(page)}", panels, caption, page.records, paired)


def scores(page: StudyPage, label: str) -> Plate | None:
    """Draw a variant's scores by category; see :meth:`StudyPage.histograms`."""
    return page.histograms(label, MOST_PANELS)


def failures(page: StudyPage, label: str) -> Html:
    """Show a variant's worst misses and worst false alarms in every category, the worst first."""
    groups = []
    for record in page.first_seed(label):
        kept = photos.shots(page.selection, record)
        cut = page.cut(record)
        if not kept or not isfinite(cut):
            continue
        scale = photos.common_scale([kept], str(record.variant.get("score_map", "")))
        missed = sorted((s for s in kept if s.bad), key=lambda s: s.score)[:2]
        alarms = sorted((s for s in kept if not s.bad), key=lambda s: -s.score)[:2]
        pairs = [photos.pair(s, scale, cut, "missed" if s.score < cut else "lowest score")
                 for s in missed]  # fmt: skip
        pairs += [photos.pair(s, scale, cut, "flagged, though good" if s.score >= cut
                              else "highest score of a good photo") for s in alarms]  # fmt: skip
        wrong = sum(s.score < cut for s in missed) + sum(s.score >= cut for s in alarms)
        groups.append((wrong, record, pairs, scale))
    groups.sort(key=lambda g: (-g[0], g[1].metrics.get("image_auroc", 2.0)))
    left, few = MOST_BYTES, []
    for group in groups:
        left -= sum(len(image.source) for pair in group[2] for image in pair.images)
        few += [group] if left > 0 else []
    return block("failures", name=page.names[label], groups=few, left=len(groups) - len(few),
                 note=photos.THRESHOLD_NOTE)  # fmt: skip


def sample(page: StudyPage) -> Html:
    """Show the first photo of every kind of defect as every variant maps it, on one scale.

    Variants whose maps are made by another rule have another scale, which is said.
    """
    left, groups, dropped = MOST_BYTES, [], []
    mapped: set[str] = set()
    for category in page.selection.categories:
        runs = {
            label: record
            for label in page.names
            for record in page.first_seed(label)
            if record.category == category
        }
        kept = {label: photos.shots(page.selection, r) for label, r in runs.items()}
        kept = {label: shots for label, shots in kept.items() if shots}
        if not kept:
            continue
        mapped.update(kept)
        first = photos.same_images(list(kept.values()))
        rows = _rows(page, runs, kept, first)
        heads = [photos.plain_photo(shot) for shot in first]
        taken = sum(len(picture.source) for picture, _ in heads)
        taken += sum(len(p.images[1].source) for row in rows for p in row["maps"] if p)
        if taken > left:
            dropped.append(category)
            continue
        left -= taken
        groups.append({"category": category, "heads": heads, "rows": rows})
    without = [page.no_maps(label) for label in page.names if mapped and label not in mapped]
    return block("sample", groups=groups, dropped=dropped, without=without)


def _rows(
    page: StudyPage,
    runs: Mapping[str, Record],
    kept: Mapping[str, list[photos.Shot]],
    first: Sequence[photos.Shot],
) -> list[dict[str, Any]]:
    """A row a variant: its maps of the same photos, and the scale that they are drawn on."""
    rules = {label: photos.map_rule(runs[label]) for label in kept}
    scales = {
        rule: photos.common_scale(
            [shots for label, shots in kept.items() if rules[label] == rule], rule[0]
        )
        for rule in set(rules.values())
    }
    rows = []
    for label, shots in kept.items():
        by_place = {(s.place, s.defect): s for s in shots}
        cut = page.cut(runs[label])
        mine = [by_place.get((f.place, f.defect)) for f in first]
        scale = scales[rules[label]]
        maps = [photos.pair(s, scale, cut, "") if s else None for s in mine]
        rows.append({"name": page.names[label], "maps": maps, "scale": scale})
    return rows


def _study(page: StudyPage) -> str:
    return page.selection.study.name

"""The answer to a study's question: which variant to take, or what it would take to tell."""

from collections.abc import Iterator, Sequence
from math import isnan

import numpy as np

from harness.experiment.values import plain
from harness.report.differences import Difference, differences, own_photos
from harness.report.learning import unfinished
from harness.report.selection import Selection
from harness.report.tables import epochs
from harness.score.metrics import METRICS
from harness.score.statistics import needed

LEVELS = {"image_auroc": "image level", "pixel_auroc": "localisation"}


def answer(selection: Selection) -> str:
    """Answer a study's question in plain sentences: take which variant, at each level.

    A lead counts where it survives Holm's correction for the number of variants. On a person's
    own photos the interval takes in that other photos would have given other figures.
    """
    reference = next(iter(selection.labels.values()))
    of_reference = [r for r in selection.records if selection.labels[r.digest] == reference]
    if not of_reference:
        return "Not answered: the reference has not been run."
    if not any("image_auroc" in r.metrics for r in of_reference):
        return "Not answered: the test images are all good or all defective, so no metric."
    said = []
    for metric, level in LEVELS.items():
        if any(metric in r.metrics for r in of_reference):
            said.append(" ".join(_level(selection, metric, level, reference)))
    curves = epochs(selection)
    warnings = (unfinished(curves, m, METRICS[m].label) for m in LEVELS)
    return "\n\n".join([*said, *filter(None, warnings)])


def _level(selection: Selection, metric: str, level: str, reference: str) -> Iterator[str]:
    """The sentences about one level."""
    means = _means(selection, metric)
    found = differences(selection, metric)
    label = METRICS[metric].label
    yield (
        f"**{level.capitalize()}**: the reference ({plain(reference)}) has a mean {label} of "
        f"{means[reference]:.1f}."
    )
    yield from _clear(found)
    honest = {n: m for n, m in means.items() if n not in _oracles(selection)}
    if len(honest) > 1:
        yield _take(selection, metric, honest, reference)


def _take(selection: Selection, metric: str, means: dict[str, float], reference: str) -> str:
    """Which variant to take, or what would tell."""
    best = max(means, key=lambda name: means[name])
    behind = [d for d in differences(selection, metric, best) if d.variant in means]
    lost = [d.variant for d in behind if d.verdict == "loses"]
    near = [d.variant for d in behind if d.verdict != "loses"]
    if lost:
        said = f"Take {plain(best)} ({means[best]:.1f})"
        return said + (f"; not clearly behind it: {_names(near)}." if near else ".")
    photos = own_photos(selection.dataset)
    who = "These photos cannot tell" if photos else "These runs cannot tell"
    rival = next((d for d in behind if d.variant == reference), None) or min(
        behind, key=lambda d: -d.deciding.mean
    )
    low, high = (-bound for bound in reversed(rival.interval))
    lead = -rival.deciding.mean
    names = f"the best, {plain(best)}, leads {plain(rival.variant)}"
    said = f"{who} which variant to take: {names} by {lead:.1f} points"
    said += ". " if isnan(low) else f" ({low:+.1f} to {high:+.1f}). "
    return said + _what_would(selection, rival)


def _what_would(selection: Selection, rival: Difference) -> str:
    """How many photos and seeds would show a lead of this size."""
    test = {r.category: r.data for r in selection.records}.values()
    good, bad = sum(d.test - d.defective for d in test), sum(d.defective for d in test)
    seeds = len(selection.study.seeds)
    estimate = rival.deciding
    if isnan(estimate.seeds) or seeds < 2:
        return "At least two seeds are needed to tell more, and three to tell much."
    if isnan(estimate.error) and any(r.images is None for r in selection.records):
        return "Old records do not list their images: `harness rescore` adds them."
    if isnan(estimate.error):
        return f"At least two good and two bad test photos are needed (here: {good} and {bad})."
    if estimate.mean == 0:
        return "They are equal here."
    more, wanted = needed(estimate, estimate.mean, seeds)
    if rival.decides == "seeds":
        return f"To show a lead of this size would take about {wanted} seeds."
    photos = f"{np.ceil(more * good):.0f} good and {np.ceil(more * bad):.0f} bad test photos"
    return (
        f"To show a lead of this size would take about {photos} (here: {good} and {bad}) and "
        f"{wanted} seeds."
    )


def _clear(found: Sequence[Difference]) -> Iterator[str]:
    """What gains, what loses, what is open, and what one seed cannot tell."""
    for d in sorted(found, key=lambda d: -np.nan_to_num(d.deciding.mean)):
        if d.verdict in ("gains", "loses"):
            low, high = d.interval
            yield (
                f"{plain(d.variant)} {d.verdict} {abs(d.deciding.mean):.1f} points "
                f"({low:+.1f} to {high:+.1f})."
            )
    if undecided := [d.variant for d in found if d.verdict == "open"]:
        yield f"No clear difference: {_names(undecided)}."
    if unknown := [d.variant for d in found if d.verdict == "unknown" and d.pairs]:
        few = any(isnan(d.deciding.seeds) for d in found if d.verdict == "unknown")
        yield f"Not enough {'seeds' if few else 'photos'} to tell: {_names(unknown)}."


def _names(variants: Sequence[str]) -> str:
    return plain(", ".join(variants))


def _means(selection: Selection, metric: str) -> dict[str, float]:
    """Variant → mean over its runs, in %."""
    values: dict[str, list[float]] = {}
    for r in selection.records:
        if metric in r.metrics:
            values.setdefault(selection.labels[r.digest], []).append(100 * r.metrics[metric])
    return {
        name: float(np.mean(values[name])) for name in selection.labels.values() if name in values
    }


def _oracles(selection: Selection) -> set[str]:
    """Variants whose epochs were chosen with the test's labels: nobody can take them."""
    return {selection.labels[r.digest] for r in selection.records if r.selection.oracle}

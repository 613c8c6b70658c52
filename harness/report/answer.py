"""The answer to a study's question: which variant to take, or what it would take to tell."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
import pandas as pd

from harness.escape import in_markdown
from harness.report.differences import ALPHA, Difference, differences, own_photos
from harness.report.learning import unfinished
from harness.report.names import some
from harness.report.selection import Selection
from harness.report.tables import epochs
from harness.score.metrics import METRICS
from harness.score.statistics import needed

MOST = 30  # variants that a sentence is written of
LEVELS = {"image_auroc": "image level", "pixel_auroc": "localisation"}


def answer(selection: Selection) -> str:
    """Answer a study's question in plain sentences: take which variant, at each level.

    A lead counts where it survives Holm's correction for the number of variants. On a person's
    own photos the interval takes in that other photos would have given other figures.

    >>> from harness.report.selection import select
    >>> answer(select("kernels", "nowhere", dataset="mvtec_ad", categories=["screw"]))
    'Not answered: the reference has not been run.'
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
    warnings = (unfinished(curves, m, METRICS[m].label) for m in LEVELS if m in curves)
    return "\n\n".join([*said, *filter(None, warnings)])


def _level(selection: Selection, metric: str, level: str, reference: str) -> Iterator[str]:
    """The sentences about one level."""
    found = differences(selection, metric, photos=())
    label = METRICS[metric].label
    mean = means_of(selection, metric, [reference])[reference]
    yield (
        f"**{level.capitalize()}**: the reference ({in_markdown(reference)}) has a mean "
        f"{label} of {mean:.1f}."
    )
    yield from _clear(found)
    chosen_by_labels = oracles(selection)
    honest = [name for name in selection.labels.values() if name not in chosen_by_labels]
    means = means_of(selection, metric, honest)
    if len(means) > 1:
        yield take(selection, metric, means, reference)
    elif len(honest) > 1:
        yield "Which to take is not told: the variants have no run in common."


@dataclass(frozen=True)
class Lead:
    """Hold which variant is best, and how far the others are behind it.

    Attributes:
        best: the variant with the highest mean.
        mean: its mean, in %.
        behind: the others' differences to it.
        lost: those that are clearly behind; each comparison counts as one of all pairs, as the
            best is picked after looking.

    >>> Lead("base", 97.0, [], frozenset()).near
    []
    """

    best: str
    mean: float
    behind: Sequence[Difference]
    lost: frozenset[str]

    @property
    def near(self) -> list[str]:
        """List the variants that are not clearly behind."""
        return [d.variant for d in self.behind if d.variant not in self.lost]


def lead(selection: Selection, metric: str, means: dict[str, float]) -> Lead:
    """Find the best of some variants, and which of the others are clearly behind it.

    Args:
        selection: the records.
        metric: of :data:`harness.score.metrics.METRICS`.
        means: variant → mean in %, of :func:`means_of`; at least one.
    """
    best = max(means, key=lambda name: means[name])
    behind = [d for d in differences(selection, metric, best, photos=()) if d.variant in means]
    pairs = len(means) * (len(means) - 1) / 2
    lost = {d.variant for d in behind if d.verdict == "loses" and d.deciding.p * pairs < ALPHA}
    return Lead(best, means[best], behind, frozenset(lost))


def take(selection: Selection, metric: str, means: dict[str, float], reference: str) -> str:
    """Say which variant to take, or what would tell."""
    first = lead(selection, metric, means)
    best, near = first.best, first.near
    if first.lost:
        said = f"Take {in_markdown(best)} ({first.mean:.1f})"
        return said + (f"; not clearly behind it: {_names(near)}." if near else ".")
    photos = own_photos(selection.dataset)
    who = "These photos cannot tell" if photos else "These runs cannot tell"
    rival = next((d for d in first.behind if d.variant == reference), None) or max(
        first.behind, key=lambda d: np.nan_to_num(d.deciding.mean, nan=-np.inf)
    )
    low, high = (-bound + 0.0 for bound in reversed(rival.interval))
    ahead = round(-rival.deciding.mean, 1) + 0.0
    names = f"the best, {in_markdown(best)}, leads {in_markdown(rival.variant)}"
    said = f"{who} which variant to take: {names} by {ahead:.1f} points"
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
    clear = [d for d in found if d.verdict in ("gains", "loses")]
    clear.sort(key=lambda d: -np.nan_to_num(d.deciding.mean))
    for d in clear[:MOST]:
        low, high = d.interval
        yield (
            f"{in_markdown(d.variant)} {d.verdict} {abs(d.deciding.mean):.1f} points "
            f"({low:+.1f} to {high:+.1f})."
        )
    if more := clear[MOST:]:
        gain = sum(d.verdict == "gains" for d in more)
        yield f"Of {len(more)} more, {gain} gain less than these and {len(more) - gain} lose."
    if undecided := [d.variant for d in found if d.verdict == "open"]:
        yield f"No clear difference: {_names(undecided)}."
    if unknown := [d.variant for d in found if d.verdict == "unknown" and d.pairs]:
        few = any(isnan(d.deciding.seeds) for d in found if d.verdict == "unknown")
        why = "Not enough seeds to tell" if few else "No interval over photos"
        yield f"{why}: {_names(unknown)}."


def _names(variants: Sequence[str]) -> str:
    return in_markdown(some(variants))


def means_of(selection: Selection, metric: str, names: Iterable[str]) -> dict[str, float]:
    """Give each variant's mean in %, over the runs on the same images that all of them have."""
    frame = _values(selection, metric)
    common = frame[[name for name in names if name in frame]].dropna()
    return {str(n): float(mean) for n, mean in common.mean().items()} if len(common) else {}


def _values(selection: Selection, metric: str) -> pd.DataFrame:
    """A metric of every run in %, a column a variant and a row a category, seed and images."""
    if ("values", metric) not in selection.memo:
        by_name: dict[str, dict[tuple[str, int, str], float]] = {}
        for r in selection.records:
            if metric in r.metrics:
                of_variant = by_name.setdefault(selection.labels[r.digest], {})
                of_variant[r.category, r.seed, r.data.digest] = 100 * r.metrics[metric]
        selection.memo["values", metric] = pd.DataFrame(by_name)
    found: pd.DataFrame = selection.memo["values", metric]
    return found


def oracles(selection: Selection) -> set[str]:
    """Find the variants whose epochs were chosen with the test's labels: nobody can take them."""
    return {selection.labels[r.digest] for r in selection.records if r.selection.oracle}

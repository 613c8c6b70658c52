"""Which variant to take away: the best one within a budget, and whether that can be told."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from harness.errors import InputError, unknown
from harness.escape import in_markdown
from harness.experiment.record import Record
from harness.report.answer import means_of, oracles, take
from harness.report.selection import Selection
from harness.score.metrics import METRICS
from harness.score.select_epoch import validation_score


@dataclass(frozen=True)
class Best:
    """Hold the variant to take.

    Attributes:
        variant: its name in the study.
        value: its mean, in %.
        by: of which figure.
        said: the sentence that says by how much it leads, or that this cannot be told.
        left_out: variant → why it was not considered.

    >>> Best("base", 97.0, "image AUROC", "Take base.", {}).variant
    'base'
    """

    variant: str
    value: float
    by: str
    said: str
    left_out: dict[str, str]


def best(
    selection: Selection,
    metric: str,
    *,
    max_latency_ms: float | None = None,
    max_params: float | None = None,
) -> Best:
    """Choose a variant by its mean of a metric, or without bad photos by the label-free rule.

    Args:
        selection: the records.
        metric: of :data:`harness.score.metrics.METRICS`; larger = better.
        max_latency_ms: of an image alone, as the records' speeds have it.
        max_params: trained beside the backbone.

    Raises:
        InputError: nothing is recorded, or nothing is within the budget or has a figure.

    >>> from harness.bundled import bundled
    >>> from harness.report.selection import select
    >>> accepted = bundled("results", "baseline")
    >>> grass = select("surfaces", accepted, dataset="surfaces", categories=["grass"])
    >>> found = best(grass, "image_auroc")
    >>> found.variant in grass.labels.values(), found.by, found.left_out
    (True, 'image AUROC', {})
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if not selection.records:
        raise InputError(
            f"study {selection.study.name}: expected records in {selection.results}; found none; "
            "run it first"
        )
    reasons = {
        name: why
        for name in dict.fromkeys(selection.labels[r.digest] for r in selection.records)
        if (why := _why_not(_of(selection, name), max_latency_ms, max_params))
    }
    reasons |= dict.fromkeys(oracles(selection), "its epoch was chosen with the test's labels")
    names = [name for name in selection.labels.values() if name not in reasons]
    if not any(metric in r.metrics for r in selection.records):
        return _without_labels(selection, names, reasons)
    means = means_of(selection, metric, names)
    if not means:
        raise InputError(_nothing(selection, reasons))
    first = max(means, key=lambda name: means[name])
    label = METRICS[metric].label
    said = f"{in_markdown(first)} is the only one."
    if len(means) > 1:
        said = take(selection, metric, means, next(iter(means)))
    return Best(first, means[first], label, said, reasons)


def _without_labels(selection: Selection, names: list[str], reasons: dict[str, str]) -> Best:
    """By what validation on defects drawn on held-out good photos says."""
    values = {
        name: [s for r in _of(selection, name) if (s := _validated(r)) is not None]
        for name in names
    }
    means = {name: 100 * float(np.mean(found)) for name, found in values.items() if found}
    if not means:
        raise InputError(
            "the test images are all good, so no metric tells the variants apart; expected runs "
            "with --set validation=synthetic --set holdout=0.2, which draw defects on held-out "
            "photos; or add bad photos to test/"
        )
    first = max(means, key=lambda name: means[name])
    said = (
        f"Take {in_markdown(first)} ({means[first]:.1f}), by defects drawn on held-out good "
        "photos: how well that foretells real defects is not known for these photos."
    )
    return Best(first, means[first], "validation on drawn defects", said, reasons)


def _validated(record: Record) -> float | None:
    found = (e for e in record.epochs if e.epoch == record.selection.epoch)
    return next(map(validation_score, found), None)


def _of(selection: Selection, name: str) -> list[Record]:
    return [r for r in selection.records if selection.labels[r.digest] == name]


def _why_not(records: list[Record], latency: float | None, params: float | None) -> str:
    """Why a variant is over the budget; empty where it is not."""
    if params is not None and (has := records[0].parameters.additional) > params:
        return f"{has} parameters of at most {params:g}"
    if latency is None:
        return ""
    times = [t for r in records if (t := r.measured.speed.latency_ms) is not None]
    if not times:
        return "its latency was not measured (run without --no-speed)"
    return f"{median(times):.3g} ms of at most {latency:g}" if median(times) > latency else ""


def _nothing(selection: Selection, reasons: dict[str, str]) -> str:
    why = "; ".join(f"{in_markdown(name)}: {reason}" for name, reason in list(reasons.items())[:4])
    return (
        f"study {selection.study.name}: expected a variant within the budget, with runs in "
        f"common; found none ({why or 'no run in common'}); raise the budget or run the rest"
    )

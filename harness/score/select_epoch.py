"""Which of the evaluated epochs counts."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from harness.errors import RunFailed
from harness.experiment.record import Epoch

# Epochs chosen with the test's labels.
ORACLES = ("best-on-test", "best-image-on-test", "best-pixel-on-test")
# What a metric needs that is not there, and what to do.
NEEDS = {
    "image_auroc": "good and defective test images; add some, or choose last",
    "pixel_auroc": "masks; this category has none: choose best-image-on-test or last",
}


def select_epoch(evaluated: Sequence[Epoch], rule: str) -> Epoch:
    """Choose the evaluated epoch that counts.

    Args:
        evaluated: in the order of training.
        rule: a key of :data:`RULES`: ``last``; ``label-free``: the highest mean of image and pixel
            AUROC of synthetic defects on held-out good images; ``lowest-holdout-loss``: the
            lowest loss of held-out good images; ``best-on-test``: the highest mean of image and
            pixel AUROC (lelexx's rule); ``best-image-on-test``: the highest image AUROC;
            ``best-pixel-on-test``: the highest pixel AUROC (gathierry's and anomalib's).

    Raises:
        RunFailed: the rule looks at an AUROC, or at held-out images, that do not exist.

    Of epochs that are equally good, the first counts.

    >>> epochs = [Epoch(epoch=1, metrics={"pixel_auroc": 0.9}), Epoch(epoch=2, metrics={})]
    >>> select_epoch(epochs, "last").epoch
    2
    """
    return RULES[rule](evaluated)


def validation_score(epoch: Epoch) -> float | None:
    """Average the AUROCs of an epoch's validation: image and pixel, or the image's alone.

    None where it has no validation. A method without maps has no pixel AUROC.

    >>> validation_score(
    ...     Epoch(epoch=1, metrics={}, validation={"image_auroc": 0.5, "pixel_auroc": 1.0})
    ... )
    0.75
    """
    return fmean(epoch.validation.values()) if epoch.validation else None


def _lowest_holdout(evaluated: Sequence[Epoch]) -> Epoch:
    if any(e.holdout is None for e in evaluated):
        raise RunFailed(
            "epoch_selection: lowest-holdout-loss needs held-out images; there is none: raise "
            "holdout or choose last"
        )
    return min(evaluated, key=lambda e: math.inf if e.holdout is None else e.holdout)


def _best_on_synthetic(evaluated: Sequence[Epoch]) -> Epoch:
    if any(validation_score(e) is None for e in evaluated):
        raise RunFailed(
            "epoch_selection: label-free needs the AUROC of synthetic defects; there is none: "
            "train with validation=synthetic, or choose last"
        )
    return max(evaluated, key=lambda e: validation_score(e) or 0.0)


def _best(rule: str, *metrics: str) -> Callable[[Sequence[Epoch]], Epoch]:
    """The rule of this name: the highest sum of the metrics, all of which have to exist."""

    def choose(evaluated: Sequence[Epoch]) -> Epoch:
        for name in metrics:
            if any(name not in e.metrics for e in evaluated):
                raise RunFailed(f"epoch_selection: {rule} needs {NEEDS[name]}")
        return max(evaluated, key=lambda e: sum(e.metrics[name] for name in metrics))

    return choose


RULES: dict[str, Callable[[Sequence[Epoch]], Epoch]] = {
    "last": lambda evaluated: evaluated[-1],
    "label-free": _best_on_synthetic,
    "lowest-holdout-loss": _lowest_holdout,
    "best-on-test": _best("best-on-test", "image_auroc", "pixel_auroc"),
    "best-image-on-test": _best("best-image-on-test", "image_auroc"),
    "best-pixel-on-test": _best("best-pixel-on-test", "pixel_auroc"),
}

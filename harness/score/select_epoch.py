"""Which of the evaluated epochs counts."""

import math
from collections.abc import Callable, Sequence

from harness.errors import RunFailed
from harness.experiment.record import Epoch

ORACLES = ("best-on-test", "best-pixel-on-test")  # epochs chosen with the test's labels


def select_epoch(evaluated: Sequence[Epoch], rule: str) -> Epoch:
    """Choose the evaluated epoch that counts.

    Args:
        evaluated: in the order of training.
        rule: a key of :data:`RULES`: ``last``; ``label-free``: the lowest loss of held-out good
            images; ``best-on-test``: the highest mean of image and pixel AUROC (lelexx's rule);
            ``best-pixel-on-test``: the highest pixel AUROC (gathierry's and anomalib's).

    Raises:
        RunFailed: the rule looks at an AUROC that does not exist.

    >>> epochs = [Epoch(epoch=1, metrics={"pixel_auroc": 0.9}), Epoch(epoch=2, metrics={})]
    >>> select_epoch(epochs, "last").epoch
    2
    """
    return RULES[rule](evaluated)


def _lowest_holdout(evaluated: Sequence[Epoch]) -> Epoch:
    return min(evaluated, key=lambda e: math.inf if e.holdout is None else e.holdout)


def _best_on_test(evaluated: Sequence[Epoch]) -> Epoch:
    if any("image_auroc" not in e.metrics for e in evaluated):
        raise RunFailed("epoch_selection: best-on-test needs good and defective test images")
    return max(
        evaluated, key=lambda e: e.metrics.get("image_auroc", 0) + e.metrics.get("pixel_auroc", 0)
    )


def _best_pixel_on_test(evaluated: Sequence[Epoch]) -> Epoch:
    if any("pixel_auroc" not in e.metrics for e in evaluated):
        raise RunFailed("epoch_selection: best-pixel-on-test needs masks; this category has none")
    return max(evaluated, key=lambda e: e.metrics["pixel_auroc"])


RULES: dict[str, Callable[[Sequence[Epoch]], Epoch]] = {
    "last": lambda evaluated: evaluated[-1],
    "label-free": _lowest_holdout,
    "best-on-test": _best_on_test,
    "best-pixel-on-test": _best_pixel_on_test,
}

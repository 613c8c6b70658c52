"""From energies to the figures of an epoch, by a variant's scoring choices."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.data.contract import Category, read_mask
from harness.experiment.record import Epoch, finite
from harness.experiment.variant import Variant
from harness.run.energies import History
from harness.score.metrics import image_metrics, pixel_metrics
from harness.score.rule import score
from harness.score.select_epoch import select_epoch

AUPRO_LIMIT = 0.3  # false-positive rate up to which AUPRO integrates (MVTec AD's convention)

Labels = NDArray[np.int64]
Masks = NDArray[np.bool_] | None


def truth(variant: Variant, category: Category) -> tuple[Labels, Masks]:
    """Read labels (N,) and masks (N, S, S) of the test images; None without masks.

    Read here and not cached: the rule that resizes a mask is a scoring choice.
    """
    labels = np.array([s.label for s in category.test], dtype=np.int64)
    if not category.has_masks:
        return labels, None
    size = variant.image_size
    masks = np.zeros((len(labels), size, size), dtype=bool)
    for i, sample in enumerate(category.test):
        masks[i] = read_mask(sample, size, variant.resize, variant.mask_resize)
    return labels, masks


def evaluate(variant: Variant, history: History, labels: Labels, masks: Masks) -> list[Epoch]:
    """Score every evaluated epoch, in the order of training."""
    return [evaluate_epoch(variant, history, e, labels, masks) for e in sorted(history.energies)]


def evaluate_epoch(
    variant: Variant, history: History, epoch: int, labels: Labels, masks: Masks
) -> Epoch:
    """Score one evaluated epoch."""
    maps, scores = score(variant, history.energies[epoch])
    metrics = image_metrics(scores.numpy(), labels)
    if masks is not None and maps is not None:
        metrics |= pixel_metrics(maps.numpy(), masks, fpr_limit=AUPRO_LIMIT)
    return Epoch(
        epoch=epoch,
        loss=history.loss[epoch - 1] if history.loss else None,
        metrics=finite(metrics),
        holdout=history.holdout.get(epoch),
    )


def patience(variant: Variant, labels: Labels, masks: Masks) -> Callable[[History], bool]:
    """Make the rule of early stopping: true once the chosen epoch lies ``patience`` back."""
    evaluated: list[Epoch] = []

    def enough(history: History) -> bool:
        latest = max(history.energies)
        evaluated.append(evaluate_epoch(variant, history, latest, labels, masks))
        chosen = select_epoch(evaluated, variant.epoch_selection)
        return (latest - chosen.epoch) // variant.eval_every >= variant.patience

    return enough if variant.patience else lambda history: False

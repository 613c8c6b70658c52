"""How long a training is, how its learning rate goes, and when it is evaluated."""

import math
from collections.abc import Callable

from harness.experiment.variant import Variant

SCHEDULES: dict[str, Callable[[int, int], float]] = {  # of the steps done, and of all
    "constant": lambda done, total: 1.0,
    "cosine": lambda done, total: 0.5 * (1 + math.cos(math.pi * done / total)),
}


def steps_of(variant: Variant, images: int) -> int:
    """Count the optimiser steps of an epoch of so many images; of one step a batch."""
    return math.ceil(images / variant.batch_size)


def epochs_of(variant: Variant, images: int) -> int:
    """Count the epochs of a training: the variant's, or as many as its ``min_steps`` take.

    Args:
        variant: any that is trained.
        images: good ones, those held out among them.

    >>> epochs_of(Variant(epochs=20, batch_size=4, min_steps=240), images=9)
    80
    """
    return epochs_in(variant, _steps(variant, images))


def epochs_in(variant: Variant, steps: int) -> int:
    """Count the epochs of a training whose epochs have so many optimiser steps."""
    return max(variant.epochs, math.ceil(variant.min_steps / steps))


def smallest_batch(variant: Variant, images: int) -> int:
    """Count the images of a training's smallest batch.

    Args:
        variant: any that is trained.
        images: good ones, those held out among them.

    >>> smallest_batch(Variant(batch_size=4), images=9)
    1
    >>> smallest_batch(Variant(batch_size=4, drop_last=True), images=9)
    4
    """
    size, kept = variant.batch_size, images - round(variant.holdout * images)
    return size if variant.drop_last else kept % size or size


def evaluations_of(variant: Variant, images: int) -> int:
    """Count the evaluations of a training; the last epoch is always evaluated.

    Args:
        variant: any that is trained.
        images: good ones, those held out among them.

    >>> evaluations_of(Variant(epochs=20, batch_size=4, eval_steps=25), images=10)
    3
    """
    steps, epochs = _steps(variant, images), epochs_of(variant, images)
    return 1 + sum(is_due(variant, epoch, steps) for epoch in range(1, epochs))


def is_due(variant: Variant, epoch: int, steps: int) -> bool:
    """Tell whether the variant asks for an evaluation at the end of this epoch.

    With ``eval_steps`` that is the epoch in which a multiple of it is reached.

    Args:
        variant: any that is trained.
        epoch: its number, from 1.
        steps: optimiser steps of every epoch.

    >>> [epoch for epoch in range(1, 9) if is_due(Variant(eval_steps=5), epoch, steps=2)]
    [3, 5, 8]
    """
    if every := variant.eval_steps:
        return epoch * steps // every > (epoch - 1) * steps // every
    return variant.eval_every > 0 and epoch % variant.eval_every == 0


def factor_of(variant: Variant, images: int) -> Callable[[int], float]:
    """Make the learning rate's factor at optimiser step n: linear warm-up, then the schedule.

    Args:
        variant: any that is trained.
        images: of an epoch.

    >>> [factor_of(Variant(warmup_steps=4), images=320)(n) for n in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    """
    per_epoch = steps_of(variant, images)
    epochs = epochs_in(variant, per_epoch)
    warmup, total = variant.warmup_epochs * per_epoch, epochs * per_epoch
    warmup = variant.warmup_steps or warmup
    schedule = SCHEDULES[variant.schedule]

    def factor(n: int) -> float:
        if n < warmup:
            return (n + 1) / warmup
        return schedule(n - warmup, max(1, total - warmup))

    return factor


def _steps(variant: Variant, images: int) -> int:
    """Optimiser steps of an epoch, those held out taken off the images; at least 1."""
    kept = images - round(variant.holdout * images)
    return max(1, kept // variant.batch_size if variant.drop_last else steps_of(variant, kept))

"""The shared training core, for every variant of every method."""

import math
from collections.abc import Callable, Iterator
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import RunFailed
from harness.experiment.variant import Variant
from harness.features.copies import Copies
from harness.methods.batches import batches, read_batch
from harness.methods.contract import Arrays, Energies, Method
from harness.run.energies import History
from harness.run.process import draws_apart

CHUNK = 32  # images read at a time where all are looked at

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SCHEDULES: dict[str, Callable[[int, int], float]] = {  # of the steps done, and of all
    "constant": lambda done, total: 1.0,
    "cosine": lambda done, total: 0.5 * (1 + math.cos(math.pi * done / total)),
}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def train(
    model: Method,
    good: Arrays,
    test: Arrays,
    *,
    variant: Variant,
    seed: int,
    device: str = "cpu",
    progress: Callable[[int, float], object] = lambda epoch, loss: None,
    enough: Callable[[History], bool] = lambda history: False,
    history: History | None = None,
    copies: Copies | None = None,
) -> History:
    """Learn from good images alone, by Eq. 1 or by a fit as the only epoch; score the test images.

    Args:
        model: freshly built.
        good: features of the good images, (N, C, H, W) per tap.
        test: features of the test images; only scored, never trained on.
        variant: its training fields are used.
        seed: of the batches' order and the held-out images; independent of the model's
            initialisation, so that variants with one seed see the same batches.
        device: as in torch.
        progress: called after every epoch with its number, from 1, and its mean loss.
        enough: called after every evaluation; true ends it.
        history: filled on the way; None: one in memory.
        copies: of all good images, defective; those of the held-out ones are scored beside them.

    Raises:
        RunFailed: no whole batch where ``drop_last`` asks for one; or the loss is not finite:
            says at which epoch and the last good loss.
    """
    generator = torch.Generator().manual_seed(seed)
    model.to(device).to(memory_format=torch.channels_last)
    history = History() if history is None else history
    if not model.trained:
        return _fit(model, history, good, test, variant, device, progress)
    kept, held = _split(len(good[0]), variant.holdout, generator)
    used = _used(len(kept), variant)
    model.initialise(read_batch(good, kept[: variant.batch_size], device))
    optimiser = _optimiser(model, variant)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _factor(variant, used))
    epochs = epochs_of(variant, len(good[0]))
    for epoch in range(1, epochs + 1):
        order = kept[torch.randperm(len(kept), generator=generator).numpy()][:used]
        try:
            loss = _epoch(model, good, order, optimiser, schedule, variant, device)
        except ArithmeticError as error:
            raise _diverged(error, epoch, epochs, history) from None
        history.loss.append(loss)
        evaluated = variant.eval_every and epoch % variant.eval_every == 0
        if evaluated or epoch == epochs:
            with draws_apart(model, seed=seed, device=device):
                _evaluate(model, history, epoch, good, held, test, variant, device)
                _validate(model, history, epoch, good, copies, held, variant, device)
        progress(epoch, loss)
        if evaluated and enough(history):
            break
    return history


def epochs_of(variant: Variant, images: int) -> int:
    """Count the epochs of a training: the variant's, or as many as its ``min_steps`` take.

    Args:
        variant: any that is trained.
        images: good ones, those held out among them.

    >>> epochs_of(Variant(epochs=20, batch_size=4, min_steps=240), images=9)
    80
    """
    kept = images - round(variant.holdout * images)
    steps = kept // variant.batch_size if variant.drop_last else _steps(kept, variant)
    return max(variant.epochs, math.ceil(variant.min_steps / max(1, steps)))


def _steps(images: int, variant: Variant) -> int:
    """Optimiser steps of an epoch of so many images; of one step a batch."""
    return math.ceil(images / variant.batch_size)


def _fit(
    model: Method,
    history: History,
    good: Arrays,
    test: Arrays,
    variant: Variant,
    device: str,
    progress: Callable[[int, float], object],
) -> History:
    """Learn by a fit, which is the only epoch."""
    _finite(good)
    _evaluate(model, history, 1, good, np.arange(0), test, variant, device)
    progress(1, math.nan)
    return history


def _finite(good: Arrays) -> None:
    """Refuse features that no distance can be taken of; a training would notice by its loss."""
    for array in good:
        for start in range(0, len(array), CHUNK):
            if not np.isfinite(array[start : start + CHUNK]).all():
                raise RunFailed(
                    "a training image's features are not finite; try feature_dtype=float32"
                )


def _diverged(error: object, epoch: int, epochs: int, history: History) -> RunFailed:
    last = f"{history.loss[-1]:.6g}" if history.loss else "none"
    return RunFailed(
        f"the loss became {error} in epoch {epoch} of {epochs}; last good epoch's "
        f"loss: {last}; try a smaller learning_rate, gradient_clip or another clamp"
    )


def _epoch(
    model: Method,
    good: Arrays,
    order: NDArray[np.int64],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    variant: Variant,
    device: str,
) -> float:
    """One pass over the images in this order; the mean loss.

    Raises:
        ArithmeticError: the loss is not finite; its text is the value.
    """
    model.train()
    total = 0.0
    for rows, features in batches(good, order, size=variant.batch_size, device=device):
        values = []
        for loss in _losses(model, features, variant):
            if not math.isfinite(value := loss.item()):
                raise ArithmeticError(value)
            optimiser.zero_grad()
            loss.backward()
            if variant.gradient_clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), variant.gradient_clip)
            optimiser.step()
            values.append(value)
        schedule.step()
        total += fmean(values) * len(rows)
    return total / len(order)


def _evaluate(
    model: Method,
    history: History,
    epoch: int,
    good: Arrays,
    held: NDArray[np.int64],
    test: Arrays,
    variant: Variant,
    device: str,
) -> None:
    """Score the test images, and the held-out good ones, at this epoch."""
    model.eval()
    with precision(variant, device):
        model.fit(good, device=device)
    with torch.inference_mode():
        history.energies.save(
            epoch, _finite_energies(model, history, epoch, test, variant, device)
        )
        losses = [
            fmean(v.item() for v in _losses(model, features, variant)) * len(rows)
            for rows, features in batches(good, held, size=variant.batch_size, device=device)
        ]
    history.bank_bytes = model.bank_bytes
    if losses:
        history.holdout[epoch] = sum(losses) / len(held)


def _validate(
    model: Method,
    history: History,
    epoch: int,
    good: Arrays,
    copies: Copies | None,
    held: NDArray[np.int64],
    variant: Variant,
    device: str,
) -> None:
    """Score the held-out images, then their copies, at this epoch; nothing without copies."""
    if copies is None:
        return
    part = history.energies.part("validation")
    if not part:
        history.energies.write("validation/masks", copies.masks[held])
    splits = (good, copies.features)
    each = (_finite_energies(model, history, epoch, s, variant, device, held) for s in splits)
    part.save(epoch, chain.from_iterable(each))


def _finite_energies(
    model: Method,
    history: History,
    epoch: int,
    images: Arrays,
    variant: Variant,
    device: str,
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Energies]:
    for energies in energies_in_batches(model, images, variant, device, rows):
        if not energies.isfinite():
            which = "a test" if rows is None else "a validation"
            last = f"; last epoch's loss: {history.loss[-1]:.6g}" if history.loss else ""
            raise RunFailed(f"{which} image's energy is not finite at epoch {epoch}{last}")
        yield energies


def energies_of(model: Method, test: Arrays, variant: Variant, device: str = "cpu") -> Energies:
    """Ask a model that has learnt about images, features (N, C, H, W) per tap, in batches."""
    return Energies.join(list(energies_in_batches(model, test, variant, device)))


@torch.inference_mode()
def energies_in_batches(
    model: Method,
    test: Arrays,
    variant: Variant,
    device: str = "cpu",
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Energies]:
    """Yield what :func:`energies_of` joins, batch by batch; of these rows alone, if given."""
    for _, features in batches(test, rows, size=variant.batch_size, device=device):
        with precision(variant, device):
            energies = model.energies(features).cpu()
        yield energies


def _losses(model: Method, features: list[Tensor], variant: Variant) -> Iterator[Tensor]:
    losses = model.losses(features)
    while True:
        with precision(variant, features[0].device.type):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def precision(variant: Variant, device: str) -> torch.autocast:
    """Enter the variant's arithmetic: bfloat16 where it says so, else float32."""
    reduced = PRECISIONS[variant.precision]
    return torch.autocast(device.split(":")[0], reduced, enabled=reduced is not None)


def _split(
    images: int, holdout: float, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on, and rows held out (none where the share is 0)."""
    rows = torch.randperm(images, generator=generator).numpy()
    held = round(holdout * images)
    if holdout and not 0 < held < images:
        raise RunFailed(
            f"holdout: expected a share that leaves images on both sides; got {holdout} of "
            f"{images} images"
        )
    return rows[held:], rows[:held]


def _used(images: int, variant: Variant) -> int:
    """Images of an epoch: all, or those of its whole batches."""
    if not variant.drop_last:
        return images
    if images < variant.batch_size:
        raise RunFailed(
            f"drop_last: expected at least one whole batch of {variant.batch_size} images; got "
            f"{images} training images; use a smaller batch_size or drop_last=false"
        )
    return images - images % variant.batch_size


def _optimiser(model: Method, variant: Variant) -> torch.optim.Optimizer:
    kind: Any = OPTIMISERS[variant.optimiser]
    rate, decay = variant.learning_rate, variant.weight_decay
    optimiser: torch.optim.Optimizer = kind(
        model.parameters(), lr=rate, weight_decay=decay, fused=True
    )
    return optimiser


def _factor(variant: Variant, images: int) -> Callable[[int], float]:
    """The learning rate's factor at optimiser step n: linear warm-up, then the schedule."""
    per_epoch = _steps(images, variant)
    epochs = max(variant.epochs, math.ceil(variant.min_steps / per_epoch))
    warmup, total = variant.warmup_epochs * per_epoch, epochs * per_epoch
    schedule = SCHEDULES[variant.schedule]

    def factor(n: int) -> float:
        if n < warmup:
            return (n + 1) / warmup
        return schedule(n - warmup, max(1, total - warmup))

    return factor

"""The shared training core, for every variant of every method."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.frame import Boxes
from harness.data.tiles import Photos
from harness.errors import RunFailed
from harness.experiment.variant import Variant
from harness.features.defective import DefectiveCopies
from harness.methods.batches import batches, one_copy_each, read_batch
from harness.methods.contract import Arrays, Method
from harness.run.averaging import WeightAverage
from harness.run.checkpoint import Checkpoint
from harness.run.history import History
from harness.run.noise import FeatureNoise
from harness.run.process import draws_apart
from harness.run.schedule import epochs_in, factor_of, is_due, steps_of
from harness.run.training import Training
from harness.run.turns import Turns
from harness.run.watch import REMEDY, Watch, losses_of

CHUNK = 32  # images read at a time where all are looked at

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


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
    augmented: Arrays = (),
    turned: Arrays = (),
    defective: DefectiveCopies | None = None,
    good_boxes: Boxes = None,
    test_boxes: Boxes = None,
    tiles: Sequence[int] = (),
    photos: Photos | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Learn from good images alone, by Eq. 1 or by a fit as the only epoch; score the test images.

    Args:
        model: freshly built.
        good: features of the good images, (N, C, H, W) per tap.
        test: features of the test images; only scored, never trained on.
        variant: its training fields are used.
        seed: of batches, held-out images and copies, whatever the model: variants share them.
        device: as in torch.
        progress: called after every epoch with its number, from 1, and its mean loss.
        enough: called after every evaluation; true ends it.
        history: filled on the way; None: one in memory.
        augmented: features of the good images' copies, (N·K, C, H, W) per tap, an image's in a
            row: every epoch trains on one of each image's in its place; empty: on the images.
        turned: of the test images' turned copies, likewise; scored beside them.
        defective: copies of all good images; those of the held-out ones are scored too.
        good_boxes: where the input shows each good image, if not everywhere; it is learnt whole.
        test_boxes: where it shows each test image.
        tiles: of each good photo, where the good images are tiles: a photo is held out whole.
        photos: whose tiles the test images are, if they are tiles.
        checkpoint: where a training by gradient is written down; None: nowhere.

    Raises:
        RunFailed: no whole batch where ``drop_last`` asks for one, or a loss that is not finite.
    """
    model.to(device).to(memory_format=torch.channels_last)
    history = History() if history is None else history
    checkpoint = checkpoint or Checkpoint()
    watch = Watch(
        variant, device, history, good, test, turned, defective,
        good_boxes=good_boxes, test_boxes=test_boxes, photos=photos,
    )  # fmt: skip
    if not model.trained:
        _finite(good)
        watch.look(model, 1)
        with checkpoint.keeping():
            progress(1, math.nan)
        return history
    _train(model, watch, augmented, tiles, seed, progress, enough, checkpoint)
    return history


def _train(
    model: Method,
    watch: Watch,
    augmented: Arrays,
    tiles: Sequence[int],
    seed: int,
    progress: Callable[[int, float], object],
    enough: Callable[[History], bool],
    checkpoint: Checkpoint,
) -> None:
    """Epoch after epoch, by gradient; those that a checkpoint has are only drawn again."""
    variant, device, history, good = watch.variant, watch.device, watch.history, watch.good
    generator = torch.Generator().manual_seed(seed)
    kept, watch.held = split(len(tiles) or len(good[0]), variant.holdout, generator, tiles)
    watch.kept, used = kept, _used(len(kept), variant)
    optimiser, schedule, turns = ready(model, good, kept, used, variant, device)
    average = WeightAverage(model, optimiser, variant.ema)
    noise = FeatureNoise(variant.feature_noise, seed)
    training = Training(model, optimiser, schedule, turns, average, noise, history, device)
    checkpoint.take_up(training)
    epochs = epochs_in(variant, steps_of(variant, used))
    source, drawn = one_copy_each(augmented, good, seed)
    with checkpoint.keeping():
        for epoch in range(1, epochs + 1):
            order = drawn(kept[torch.randperm(len(kept), generator=generator).numpy()][:used])
            if epoch < training.epoch:
                continue
            try:
                loss = _epoch(training, source, order, variant, checkpoint)
            except ArithmeticError as error:
                _finite(good)
                raise _diverged(error, epoch, epochs, history) from None
            history.loss.append(loss)
            evaluated = is_due(variant, epoch, steps_of(variant, used))
            if evaluated or epoch == epochs:
                with (
                    checkpoint.around(training),
                    draws_apart(model, seed=seed, device=device),
                    average.applied(),
                ):
                    watch.look(model, epoch)
            progress(epoch, loss)
            if evaluated and enough(history):
                break
            training.next_epoch()
    average.swap()  # the model leaves as it was evaluated


def _finite(good: Arrays) -> None:
    """Refuse features that nothing can be learnt of; a training notices by its loss."""
    for array in good:
        for start in range(0, len(array), CHUNK):
            if not np.isfinite(array[start : start + CHUNK]).all():
                raise RunFailed(
                    "a training image's features are not finite; try feature_dtype=float32"
                )


def _diverged(error: object, epoch: int, epochs: int, history: History) -> RunFailed:
    last = f"{epoch - 1}, of loss {history.loss[-1]:.6g}" if history.loss else "none"
    return RunFailed(
        f"the loss became {error} in epoch {epoch} of {epochs}; last good epoch: {last}; {REMEDY}"
    )


def _epoch(
    training: Training,
    good: Arrays,
    order: NDArray[np.int64],
    variant: Variant,
    checkpoint: Checkpoint,
) -> float:
    """One pass over the images in this order, or what is left of it; the mean loss.

    Raises:
        ArithmeticError: the loss is not finite; its text is the value.
    """
    model, optimiser, size = training.model, training.optimiser, variant.batch_size
    model.train()
    checkpoint.look(training)
    left = order[training.batches * size :]
    for rows, features in batches(good, left, size=size, device=training.device):
        values = step(model, optimiser, training.noise(features), variant)
        training.schedule.step()
        training.total += fmean(values) * len(rows)
        training.batches += 1
        checkpoint.look(training)
    return training.total / len(order)


def step(
    model: Method, optimiser: torch.optim.Optimizer, features: list[Tensor], variant: Variant
) -> list[float]:
    """Take a batch's optimiser steps, one a loss; the losses.

    Raises:
        ArithmeticError: a loss is not finite; its text is the value.
    """
    values = []
    for loss in losses_of(model, features, variant):
        if not math.isfinite(value := loss.item()):
            raise ArithmeticError(value)
        optimiser.zero_grad()
        loss.backward()
        if variant.gradient_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), variant.gradient_clip)
        optimiser.step()
        values.append(value)
    return values


def ready(
    model: Method, good: Arrays, kept: NDArray[np.int64], used: int, variant: Variant, device: str
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, Turns]:
    """Initialise the model from data; give the optimiser, its schedule and its groups' turns."""
    model.survey(x for _, x in batches(good, np.sort(kept), device=device))
    model.initialise(read_batch(good, kept[: variant.batch_size], device))
    optimiser, turns = _optimiser(model, variant)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor_of(variant, used))
    return optimiser, schedule, turns


def split(
    images: int, holdout: float, generator: torch.Generator, tiles: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the rows to train on and those held out, none where the share is 0.

    The generator is the training's, by its seed, and this is what it draws first. Where images
    are photos cut into so many tiles each, the rows are of tiles, those of a photo on one side.

    >>> kept, held = split(3, 0.4, torch.Generator().manual_seed(0), tiles=(2, 2, 2))
    >>> len(kept), set(held.tolist()) in ({0, 1}, {2, 3}, {4, 5})
    (4, True)
    """
    rows = torch.randperm(images, generator=generator).numpy()
    held = round(holdout * images)
    if holdout and not 0 < held < images:
        raise RunFailed(
            f"holdout: expected a share that leaves images on both sides; got {holdout} of "
            f"{images} images"
        )
    if not tiles:
        return rows[held:], rows[:held]
    order = torch.randperm(sum(tiles), generator=generator).numpy()
    out = np.isin(np.repeat(np.arange(images), tiles)[order], rows[:held])
    return order[~out], order[out]


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


def _optimiser(model: Method, variant: Variant) -> tuple[torch.optim.Optimizer, Turns]:
    kind: Any = OPTIMISERS[variant.optimiser]
    rate, decay = variant.learning_rate, variant.weight_decay
    optimiser: torch.optim.Optimizer = kind(
        model.parameter_groups(), lr=rate, weight_decay=decay, eps=variant.adam_epsilon, fused=True
    )
    return optimiser, Turns(optimiser, rate)

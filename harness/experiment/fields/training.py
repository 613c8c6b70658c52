"""Choices of the training."""

from dataclasses import dataclass
from typing import Literal

from harness.experiment.fields.declare import (
    Average,
    Batch,
    Clip,
    Decay,
    Epochs,
    Epsilon,
    Noise,
    Part,
    Rate,
    SomeEpochs,
    Steps,
    choice,
    flow,
    trained,
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Choose what the shared training core does."""

    loss: Literal["sum", "mean"] = flow("sum", "over a tap's dimensions", "Eq. 1; no reduction")
    optimiser: Literal["adam", "adamw"] = trained("adam", "the optimiser", "Adam")
    learning_rate: Rate = trained(1e-3, "learning rate", "1e-3")
    weight_decay: Decay = trained(1e-5, "weight decay", "1e-5")
    adam_epsilon: Epsilon = trained(1e-8, "what Adam adds to its denominator")
    schedule: Literal["constant", "cosine"] = trained("constant", "of the learning rate")
    warmup_epochs: SomeEpochs = trained(0, "epochs of linear warm-up")
    warmup_steps: Steps = trained(
        0, "optimiser steps of linear warm-up, in place of warmup_epochs"
    )
    epochs: Epochs = trained(500, "passes over the training images", "500")
    min_steps: Steps = trained(
        0,
        "optimiser steps at the least: with few images, epochs go up to reach them; epochs=1 "
        "makes it a training of so many steps, up to the end of an epoch",
    )
    batch_size: Batch = trained(32, "images of an optimiser step", "32")
    drop_last: bool = trained(default=False, says="leave out a batch that is not full")
    gradient_clip: Clip = trained(0.0, "largest norm of the gradient; 0: any")
    precision: Literal["float32", "bfloat16"] = trained(
        "float32", "arithmetic of the convolutions"
    )
    ema: Average = trained(
        0.0, "decay of a moving average of the weights, which alone is evaluated; 0: none"
    )
    feature_noise: Noise = trained(
        0.0, "deviation of Gaussian noise on training features, as a share of their tap's"
    )
    holdout: Part = trained(0.0, "share of the good images held out")
    validation: Literal["none", "synthetic"] = trained(
        "none",
        "what the held-out images are compared with at every evaluation; synthetic: copies of "
        "them with drawn defects",
    )
    eval_every: SomeEpochs = trained(0, "epochs between evaluations; 0: the last alone")
    eval_steps: Steps = trained(
        0, "optimiser steps between evaluations, at an epoch's end; in place of eval_every"
    )
    patience: SomeEpochs = trained(0, "evaluations without a better epoch to stop after; 0: never")
    smoke: bool = choice(default=False, says="a smoke run, never a result")

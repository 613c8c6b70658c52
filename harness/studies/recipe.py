"""What reproduces FastFlow's figures at the last epoch, by the same choices in every category?

``fastflow`` is this project's recipe, and what we recommend for one's own images. It was developed
on bottle, screw and magnetic tile with their test labels in view, so its figures there are those
of a development set; any other category is new to it. No choice looks at a test set when it runs.
``paper`` is the paper's text taken literally where it speaks, and the reproductions' habit where
it does not; ``paper, 200 steps`` is the same for as long as the recipe takes.

What the recipe does that the paper does not say:

- the features' channels are made uncorrelated, of variance 1, by the training images (``norm``);
- a tap's energy is taken with and without its log-determinant, and read as a p-value among the
  training images' (``score_map``, ``tap_scale``);
- an image's score is the mean of its highest tenth above its border, on a linear scale
  (``image_score``, ``top_k``, ``image_centring``, ``image_tap_scale``);
- optimiser steps are counted, not epochs, and the learning rate falls to zero (``min_steps``,
  ``schedule``).
"""

from harness.experiment.study import Study
from harness.studies.paper import RESNET18

FASTFLOW = RESNET18.replace(
    norm="whiten",
    kernels=(3, 1),
    actnorm="none",
    subnet_scale=1.0,
    init_gain=0.02,
    learning_rate=2e-3,
    schedule="cosine",
    epochs=1,
    min_steps=200,
    eval_every=5,
    precision="bfloat16",
    score_map="nll-both",
    tap_scale="neg-log-p",
    p_floor=0.01,
    smoothing=8.0,
    image_score="top-k",
    top_k=0.1,
    image_tap_scale="standardised",
    image_centring="border",
)

STUDY = Study(
    name="recipe",
    asks="What reproduces FastFlow at the last epoch, by the same choices in every category?",
    mirrors="FastFlow, Table 2, for as long as its recipe is not known",
    dataset="surfaces",  # with --data, whatever layout is found there: one's own photos too
    bases={
        "fastflow": FASTFLOW,
        "paper": RESNET18,
        "paper, 200 steps": RESNET18.replace(
            epochs=1, min_steps=200, eval_every=5, precision="bfloat16"
        ),
    },
)

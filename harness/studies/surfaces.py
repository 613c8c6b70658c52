"""What do the backbone, the kernels, the number of steps and the coupling each change?

The embedded study: it needs no download and runs in minutes, on photographs of brick, grass
and gravel with drawn defects. Its figures are about these surfaces only. The size and the
epochs are chosen so that two CPU cores finish it, not for the best score. The learning rate
begins at five times the paper's and falls to zero, so that every variant has stopped rising after
60 steps: a ranking of what still rises would be one of speed of learning. With fewer images the
epochs go up to as many steps. The flow step is the one that the paper draws (Fig. 2: ActNorm and
permutation before the coupling).
"""

from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant

BASE = Variant(
    backbone="tf_efficientnet_lite0.pypi_in1k",
    image_size=128,
    kernels=(3, 1),
    actnorm="data",
    learning_rate=5e-3,
    schedule="cosine",
    epochs=20,
    min_steps=60,
    batch_size=16,
    eval_every=5,
)

STUDY = Study(
    name="surfaces",
    asks="What does each of backbone, kernels, flow steps, coupling, ActNorm and smoothing of "
    "the map change when it alone is changed?",
    dataset="surfaces",
    bases={"base": BASE},
    vary=one_factor(
        backbone=("tf_efficientnet_lite1.pypi_in1k",),
        kernels=((3,), (1,)),
        flow_steps=(2, 4),
        coupling=("two-sided",),
        actnorm=("affine",),
        smoothing=(4,),
    ),
)

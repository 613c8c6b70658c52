"""Which subnet kernel for which backbone?

The paper takes 3×3 alone for ResNet18 and the alternation for the other three; the AUROCs of
what it rejected are not known from any source. ``kernels`` is this study for ResNet18 alone.
"""

from harness.experiment.study import Study, grid
from harness.studies.paper import PAPER

STUDY = Study(
    name="kernels_by_backbone",
    asks="Which of 3×3 alone and alternating 3×3 and 1×1 kernels suits which backbone?",
    mirrors="FastFlow, ablation of the subnet kernel",
    bases=PAPER,
    vary=grid(kernels=((3,), (3, 1))),
)

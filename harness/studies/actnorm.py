"""Which per-channel affine in a flow step?

Fig. 2 draws an ActNorm before the coupling; FrEIA's block, which the reproductions use, learns
an affine after it and does not initialise it from data.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="actnorm",
    asks="Does an ActNorm initialised from data before the coupling score better than a learned "
    "affine after it, or none?",
    mirrors="FastFlow, Fig. 2",
    bases={"ResNet18": RESNET18},
    vary=one_factor(actnorm=("data", "none")),
)

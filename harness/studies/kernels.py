"""Do alternating 3×3 and 1×1 subnets score as well as 3×3 alone?

The paper takes 3×3 alone for ResNet18 and the alternation for the other backbones, for their
size; the scores of the rejected choices are not known from any source.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="kernels",
    asks="Do subnets that alternate 3×3 and 1×1 kernels score as well as 3×3 alone?",
    mirrors="FastFlow, ablation of the subnet kernel (ResNet18)",
    bases={"ResNet18": RESNET18},
    vary=one_factor(kernels=((3, 1),)),
    seeds=(0, 1, 2),
)

"""How should the channels be permuted? Fig. 2 says "channel permute" and no more."""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="permutation",
    asks="Does it matter how the channels are permuted between the couplings?",
    mirrors="FastFlow, Fig. 2",
    bases={"ResNet18": RESNET18},
    vary=one_factor(permutation=("reverse", "none")),
)

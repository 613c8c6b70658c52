"""How many flow steps are enough? The paper takes 8 for the ResNets and 20 for the ViTs."""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="flow_steps",
    asks="How does the score change with the number of flow steps?",
    bases={"ResNet18": RESNET18},
    vary=one_factor(flow_steps=(1, 2, 4, 12, 16, 20)),
)

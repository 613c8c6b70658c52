"""One-sided or two-sided coupling?

Eq. (3) of the paper transforms one half of the channels, Fig. 2 draws both; a parameter count
cannot tell 8 one-sided steps from 4 two-sided ones. Nothing but the coupling differs here.
"""

from harness.experiment.study import Study
from harness.studies.paper import RESNET18

STUDY = Study(
    name="coupling",
    asks="Does two-sided coupling score better, with as many steps and with as many parameters?",
    mirrors="FastFlow, Eq. (3) against Fig. 2",
    bases={"ResNet18": RESNET18},
    vary=(
        {},
        {"coupling": "two-sided"},
        {"coupling": "two-sided", "flow_steps": 4},  # the parameters of 8 one-sided steps
    ),
)

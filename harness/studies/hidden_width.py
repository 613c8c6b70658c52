"""How wide must the subnets be?

The paper has a table for Wide-ResNet50-2 whose values are not known, and its parameter counts
do not follow one width (``harness params``).
"""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import WIDE_RESNET50

STUDY = Study(
    name="hidden_width",
    asks="How does the width of the subnets' hidden layer change the score?",
    mirrors="FastFlow, ablation of the hidden channels (Wide-ResNet50-2; values not known)",
    bases={"Wide-ResNet50-2": WIDE_RESNET50},
    vary=one_factor(hidden_ratio=(0.25, 0.5, 2.0)),
)

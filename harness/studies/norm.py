"""Which norm before the flow?

The paper names none; the reproductions disagree (LayerNorm with affine, without, BatchNorm,
none), and one calls its LayerNorm "the only way works for me".
"""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="norm",
    asks="Which norm of the features before the flow scores best?",
    bases={"ResNet18": RESNET18},
    vary=one_factor(norm=("none", "layer-affine", "batch")),
)

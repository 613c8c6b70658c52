"""Which score from the same flow?

The paper upsamples and averages "likelihood maps" and defines no image score. None of these
variants trains anew: they score the same energies.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.paper import RESNET18

STUDY = Study(
    name="score_rule",
    asks="How much of the score is decided by the rule that turns latents into scores?",
    mirrors="FastFlow, section 3.3 (the image score is not defined)",
    bases={"ResNet18": RESNET18},
    vary=one_factor(
        score_map=("nll", "nll-log-det"),
        scale_aggregation=("sum", "max"),
        smoothing=(4.0, 6.0),
        image_score=("top-k", "mean"),
    ),
)

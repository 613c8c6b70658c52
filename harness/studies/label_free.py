"""How well does a choice without labels predict the test set?

Defects are drawn on held-out good images (``validation=synthetic``), and each score rule and epoch
of the recipe is judged by AUROC there and on the test set. One training a category and seed; the
rules score the same energies. Image scores are those of the energy alone, where the recipe's have
the log-determinant too: the question is whether the ranking is found, not which rule leads it.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

VALIDATED = FASTFLOW.replace(
    min_steps=60, eval_every=1, holdout=0.1, validation="synthetic", image_score_map="nll"
)

STUDY = Study(
    name="label_free",
    asks="Does AUROC on drawn defects choose the score rule and epoch that the test set would?",
    bases={"fastflow, validated": VALIDATED},
    vary=one_factor(
        score_map=("exp-mean", "nll", "nll-log-det"),
        tap_scale=("none", "quantile"),
        smoothing=(0.0,),
        image_score=("max", "mean", "std"),
        image_centring=("none",),
    ),
)

"""Which image score from the recipe's maps?

The paper defines none. Nothing is trained anew: these rules score the same energies.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

STUDY = Study(
    name="image_score",
    asks="Which rule turns an anomaly map into an image score?",
    mirrors="FastFlow, section 3.3 (the image score is not defined)",
    bases={"fastflow": FASTFLOW},
    vary=one_factor(
        image_score=("max", "mean", "std", "joined"),
        top_k=(0.01, 0.03),
        image_centring=("none", "mean", "median", "tenth"),
        image_score_map=("nll", "nll-log-det"),
        image_tap_scale=("same", "none", "quantile"),
    ),
)

"""On what scale are the taps' likelihoods read?

The paper averages the taps' maps. Nothing is trained anew.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

STUDY = Study(
    name="tap_scale",
    asks="Which part of the likelihood, on which scale, localises best?",
    mirrors="FastFlow, section 3.3 (“likelihood map”)",
    bases={"fastflow": FASTFLOW},
    vary=one_factor(
        score_map=("exp-mean", "nll", "nll-log-det"),
        tap_scale=("none", "standardised", "quantile"),
        p_floor=(0.0, 0.001, 0.1),
        tap_position=("smoothed", "position"),
        tap_weights=((1.0, 2.0, 1.0),),
        smoothing=(0.0, 4.0),
    ),
)

"""What does each choice of the recipe change when it alone is changed?

At 60 optimiser steps in place of 200, so that three seeds of every variant end in an hour on two
cores; what is best after 60 steps need not be so after 2,000 (see ``steps``).
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

SHORT = FASTFLOW.replace(min_steps=60)

STUDY = Study(
    name="around",
    asks="What does each choice of the recipe change when it alone is changed, after 60 steps?",
    bases={"fastflow, 60 steps": SHORT},
    vary=one_factor(
        norm=("layer", "standard"),
        schedule=("constant",),
        loss=("mean",),
        kernels=((3,),),
        flow_steps=(4,),
        actnorm=("affine",),
        coupling=("two-sided",),
        learning_rate=(1e-3, 5e-3),
    ),
)

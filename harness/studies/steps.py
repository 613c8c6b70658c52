"""How many optimiser steps does it take, and does the figure fall again?

Steps, not epochs: 20 epochs are 140 steps on bottle and 200 on screw. Every training is evaluated
every five epochs on its way, so that each shows a peak and a fall of its own.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

STUDY = Study(
    name="steps",
    asks="How many optimiser steps does the recipe need, and does its AUROC fall afterwards?",
    bases={"fastflow": FASTFLOW},
    vary=one_factor(min_steps=(30, 60, 100, 600, 2000)),
)

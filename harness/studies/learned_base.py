"""Does it help to learn the base distribution?

AltUB (arXiv 2210.14913) learns mean and variance of every channel of the base, in turns with the
flow. After 60 steps of the recipe, as in ``around``.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.around import SHORT

STUDY = Study(
    name="learned_base",
    asks="Does a learned base distribution make the flow score or localise better?",
    mirrors="arXiv 2210.14913 (its tables were not read)",
    bases={"fastflow, 60 steps": SHORT},
    vary=(*one_factor(base=("learned",)), {"base": "learned", "base_every": 5}),
)

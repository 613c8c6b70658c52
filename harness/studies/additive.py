"""Does a flow that keeps the volume find as much?

With additive couplings the log-determinant is one number for all images (arXiv 2510.09452 finds
them more stable). After 60 steps of the recipe, as in ``around``.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.around import SHORT

STUDY = Study(
    name="additive",
    asks="Does a volume-preserving flow score and localise as well as an affine one?",
    mirrors="arXiv 2510.09452 (its numbers were not read)",
    bases={"fastflow, 60 steps": SHORT},
    vary=one_factor(coupling_function=("additive",)),
)

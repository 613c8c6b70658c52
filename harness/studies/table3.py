"""What does FastFlow score on BTAD's three products?

Table 3 of the paper prints pixel AUROC; the backbone is not known. The compared figures are
VT-ADL's, headed "PR AUC" there, so they do not compare with ours.
"""

from harness.experiment.study import Study
from harness.studies.paper import PAPER, RIVALS, rivals

STUDY = Study(
    name="table3",
    asks="What does FastFlow score on the three products of BTAD?",
    mirrors="FastFlow, Table 3 (BTAD)",
    dataset="btad",
    bases={**PAPER, **rivals("Wide-ResNet50-2", *RIVALS)},
)

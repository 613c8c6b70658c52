"""Does FastFlow tell one class of CIFAR-10 from the other nine?

Table 4 of the paper prints a mean AUROC of 66.7; backbone and protocol are not known. SPADE and
PatchCore are left out: of 5,000 images a class SPADE would keep 37 GB, and PatchCore's greedy
selection would take 500,000 of 5 million patches.
"""

from harness.experiment.study import Study
from harness.studies.paper import PAPER, rivals

STUDY = Study(
    name="table4",
    asks="Does FastFlow, trained on one class of CIFAR-10, flag the other nine?",
    mirrors="FastFlow, Table 4 (CIFAR-10, one class against the rest)",
    dataset="cifar10",
    bases={**PAPER, **rivals("Wide-ResNet50-2", "padim", "cflow", "differnet")},
)

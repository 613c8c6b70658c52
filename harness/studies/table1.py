"""What does each of the paper's four backbones score and cost?

Table 1 of the paper: FPS, additional time, additional parameters, mean image and pixel AUROC
over MVTec AD, with the compared methods on the backbones that the table has them on. The times
are of the paper's GPU: shown beside ours, compared by nobody.
"""

from harness.experiment.study import Study
from harness.studies.paper import PAPER, rivals

STUDY = Study(
    name="table1",
    asks="What do the four backbones score on MVTec AD, and what does the flow add to each?",
    mirrors="FastFlow, Table 1 (complexity)",
    bases={
        **PAPER,
        **rivals("ResNet18", "spade", "cflow"),
        **rivals("Wide-ResNet50-2", "spade", "patchcore", "cflow"),
        **rivals("DeiT", "patchcore", "cflow"),
        **rivals("CaiT", "patchcore", "cflow"),
    },
)

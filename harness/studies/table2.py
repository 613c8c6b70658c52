"""What does FastFlow score on each of MVTec AD's fifteen categories?

Table 2 of the paper. Its backbone is CaiT by inference (the means equal CaiT's row of Table 1);
the other backbones' values per category are not known from any source. The compared methods are
run on the backbone of most of their own papers; the table does not say which it quotes. The cells
are those of ``table1`` and more: what one study has run, the other has too.
"""

from harness.experiment.study import Study
from harness.studies.paper import CAIT, PAPER, RIVALS, rivals

STUDY = Study(
    name="table2",
    asks="What does FastFlow score on each category of MVTec AD?",
    mirrors="FastFlow, Table 2 (MVTec AD by category)",
    bases={"CaiT": CAIT, **PAPER, **rivals("Wide-ResNet50-2", *RIVALS)},
)

"""How do the compared methods stand to FastFlow on the same features?

All on ResNet18's first three blocks, so that one pass of the backbone serves them all and only the
method differs. SPADE and CFLOW-AD would take the fourth block too (``table1`` gives it to them),
and the image score of SPADE rests on it: read its row here with that in mind.
"""

from harness.experiment.choices import METHODS
from harness.experiment.study import Study
from harness.studies.paper import RESNET18, RIVALS

STUDY = Study(
    name="methods",
    asks="How do SPADE, PaDiM, PatchCore, CFLOW-AD and DifferNet stand to FastFlow on the same "
    "features?",
    mirrors="FastFlow, Tables 1 and 2, with one small backbone for all",
    bases={"FastFlow": RESNET18, **{METHODS[m].name: RESNET18.replace(method=m) for m in RIVALS}},
)

"""How much does choosing the epoch on the test set give?

Every public reproduction that reaches the paper's means chose its epoch so. ``best-on-test`` and
``best-pixel-on-test`` are oracles; ``label-free`` looks at held-out good images alone, and is
compared with the last epoch of the same smaller training set.
"""

from harness.experiment.study import Study
from harness.studies.paper import RESNET18

STUDY = Study(
    name="epoch_selection",
    asks="How far is the last epoch from the best one, and can good images alone find it?",
    bases={"ResNet18": RESNET18.replace(eval_every=10)},
    vary=(
        {},
        {"epoch_selection": "best-on-test"},
        {"epoch_selection": "best-pixel-on-test"},
        {"holdout": 0.1},
        {"holdout": 0.1, "epoch_selection": "label-free"},
    ),
)

"""How much does choosing the epoch on the test set give?

Every public reproduction that reaches the paper's means chose its epoch so. ``best-on-test`` and
``best-pixel-on-test`` are oracles. Two rules look at held-out good images alone: ``label-free``
takes the epoch that best tells them from copies with drawn defects, ``lowest-holdout-loss`` the
one that finds them most likely. Both are compared with the last epoch of the same smaller
training set, and share its training.
"""

from harness.experiment.study import Study
from harness.studies.paper import RESNET18

HELD = {"holdout": 0.1, "validation": "synthetic"}

STUDY = Study(
    name="epoch_selection",
    asks="How far is the last epoch from the best one, and can good images alone find it?",
    bases={"ResNet18": RESNET18.replace(eval_every=10)},
    vary=(
        {},
        {"epoch_selection": "best-on-test"},
        {"epoch_selection": "best-pixel-on-test"},
        HELD,
        HELD | {"epoch_selection": "label-free"},
        HELD | {"epoch_selection": "lowest-holdout-loss"},
    ),
)

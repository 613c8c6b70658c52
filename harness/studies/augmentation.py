"""Does training on mirrored and turned copies help, and does the screw need it?

The paper trains with them (section 6.2, by another's account), and no public reproduction with its
means does. It says that "some categories are not suitable", and gives no angle: ±5° is what a
camera's mount allows, ±180° what a part has that lies anyhow. Eight copies of every image pass the
backbone once, and an epoch takes one of each.
"""

from harness.experiment.study import Study
from harness.studies.paper import RESNET18

STUDY = Study(
    name="augmentation",
    asks="What do mirrored and turned copies of the training images change?",
    mirrors="FastFlow, section 6.2 and Table 8 (their figures are not known)",
    bases={"ResNet18": RESNET18},
    vary=(
        {},
        {"augmentation": "flips"},
        {"augmentation": "turns", "augmentation_degrees": 5},
        {"augmentation": "turns"},
        {"augmentation": "paper"},
    ),
)

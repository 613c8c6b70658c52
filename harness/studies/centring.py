"""What of an image's own map is its zero?

Pixel AUROC pools the pixels of all images, and test images differ from each other as a whole.
Nothing is trained anew.
"""

from harness.experiment.study import Study, one_factor
from harness.studies.recipe import FASTFLOW

STUDY = Study(
    name="centring",
    asks="Does it help to take each image's own level off its maps, tap by tap?",
    bases={"fastflow": FASTFLOW},
    vary=one_factor(centring=("mean", "median", "tenth", "border")),
)

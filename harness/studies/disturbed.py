"""Does FastFlow need aligned images?

The paper turns, zooms and shifts the test images of MVTec AD at random (CaiT: 99.2 image, 98.1
pixel AUROC); the ranges it uses are not known. The training images are as they were.
"""

from harness.experiment.study import Study
from harness.studies.paper import CAIT, PAPER

STUDY = Study(
    name="disturbed",
    asks="What is lost when the test images are turned, zoomed and shifted?",
    mirrors="FastFlow, non-aligned disturbed MVTec AD",
    dataset="disturbed-mvtec_ad",
    bases={"CaiT": CAIT, **PAPER},
)

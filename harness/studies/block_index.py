"""Which block of a vision transformer gives the best features?

Table 6 of the paper chooses 7 for DeiT and 40 for CaiT, without saying where it counts from; the
neighbours are here too. The AUROCs of its other blocks are not known from any source.
"""

from harness.experiment.study import Study
from harness.studies.paper import CAIT, DEIT

STUDY = Study(
    name="block_index",
    asks="Which block's output should the flow be trained on?",
    mirrors="FastFlow, Table 6 (ViT block index; values not known)",
    bases={
        f"{name}, block {i}": base.replace(taps=(i,))
        for name, base, blocks in (
            ("DeiT", DEIT, (7, 3, 5, 6, 8, 9, 11)),
            ("CaiT", CAIT, (40, 20, 30, 39, 41, 44, 47)),
        )
        for i in blocks
    },
)

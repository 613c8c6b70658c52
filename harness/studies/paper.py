"""The paper's four settings (arXiv 2111.07677), as far as they are known, and its rivals'.

Input size, taps, number of steps and the kernels are the paper's; the ResNet weights' tags and
the ViT subnets' width are not known and are fields like any other.

The ViT taps count from 0: tap 7 is the output of ``blocks[7]``, so eight blocks run, and
tap 40 that of ``blocks[40]``. The paper's Table 6 says "7" and "40" without saying where it
counts from; the reproductions read it this way.
"""

from typing import Any

from harness.experiment.choices import METHODS
from harness.experiment.variant import Variant

RESNET18 = Variant(backbone="resnet18.tv_in1k", image_size=256, taps=(1, 2, 3), kernels=(3,))

# Published weights of this network exist under several tags; the paper names none. racm_in1k is
# what the early reproductions got by default, tv_in1k is torchvision's.
WIDE_RESNET50 = RESNET18.replace(backbone="wide_resnet50_2.racm_in1k", kernels=(3, 1))

DEIT = Variant(
    backbone="deit_base_distilled_patch16_384.fb_in1k",
    image_size=384,
    taps=(7,),
    norm="none",  # the backbone's own final norm is applied to the tap
    flow_steps=20,
    kernels=(3, 1),
    hidden_channels=128,  # the width whose parameters round to the published 14.8 M
)

CAIT = DEIT.replace(backbone="cait_m48_448.fb_dist_in1k", image_size=448, taps=(40,))

# In the order of the paper's Table 1 by cost; each with the kernels the paper chose for it.
PAPER = {"ResNet18": RESNET18, "Wide-ResNet50-2": WIDE_RESNET50, "DeiT": DEIT, "CaiT": CAIT}

# What the compared methods' own papers take of a ResNet: SPADE retrieves images by the last
# block, CFLOW-AD leaves the first out; PaDiM keeps 550 channels of the wide one. PatchCore's
# figure that the paper prints (99.1) is, by PatchCore's own table, that of the 25 % coreset.
OF_RESNET: dict[str, dict[str, Any]] = {
    "spade": {"taps": (1, 2, 3, 4)},
    "cflow": {"taps": (2, 3, 4)},
}
OF_WIDE: dict[str, dict[str, Any]] = {"padim": {"channels": 550}, "patchcore": {"coreset": 0.25}}


def rivals(backbone: str, *methods: str) -> dict[str, Variant]:
    """Name → variant of compared methods on one of the paper's backbones, as in their papers."""
    base = PAPER[backbone]
    variants = {}
    for method in methods:
        changes = OF_RESNET.get(method, {}) if "resnet" in base.backbone else {}
        if "wide" in base.backbone:
            changes = changes | OF_WIDE.get(method, {})
        variants[f"{backbone}, {METHODS[method].name}"] = base.replace(method=method, **changes)
    return variants


RIVALS = ("spade", "padim", "patchcore", "cflow", "differnet")

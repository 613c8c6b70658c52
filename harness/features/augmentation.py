"""Copies of an image, mirrored and turned: what the paper calls training data augmentation.

The paper (section 6.2, by the account in wuzujiong/FastFlow-AD ``modules/data.py``) mirrors left
and right with probability 0.5, upside down with 0.3, and turns with 0.7; it gives no angle. Copies
pass the frozen backbone once and are cached, and an epoch takes one of each image: an endless
augmentation would pass every image anew in every epoch.

A copy is made of the image as it would pass the backbone, and keeps its frame. What comes into
view is the image mirrored at its border. A copy is drawn from the image's own pixels and the
copy's number, so it depends neither on the other images nor on their order, and all seeds train
on the same copies.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from harness.data.motion import Motion
from harness.experiment.feature_spec import FeatureSpec

SEED = 0  # of all draws

Pixels = NDArray[np.uint8]  # an image (H, W, 3)


class Chances(NamedTuple):
    """Hold the probabilities with which a copy is changed, each independent of the others.

    >>> AUGMENTATIONS["turns"].turned
    0.7
    """

    left_right: float = 0.0
    upside_down: float = 0.0
    turned: float = 0.0


AUGMENTATIONS: dict[str, Chances] = {
    "none": Chances(),
    "flips": Chances(0.5, 0.3),
    "turns": Chances(turned=0.7),
    "all-turned": Chances(turned=1.0),  # AlessioGalluccio's and DifferNet's
    "paper": Chances(0.5, 0.3, 0.7),
}


def augmented(image: Pixels, spec: FeatureSpec) -> Pixels:
    """Make an image's copies (K, H, W, 3); more copies begin with the fewer ones.

    Args:
        image: bytes (H, W, 3).
        spec: its augmentation, largest angle in degrees, and number of copies K are used. Angles
            are drawn evenly from ± the largest.

    >>> spec = FeatureSpec(backbone="resnet18.tv_in1k", augmentation="flips")
    >>> augmented(np.zeros((32, 32, 3), np.uint8), spec).shape
    (8, 32, 32, 3)
    """
    chances = AUGMENTATIONS[spec.augmentation]
    entropy = [SEED, *hashlib.sha256(image.tobytes()).digest()]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    copies = []
    for *draws, side in rng.random((spec.augmentation_copies, 4)).tolist():
        left_right, upside_down, turned = (d < c for d, c in zip(draws, chances, strict=True))
        copy = Image.fromarray(image)
        copy = ImageOps.mirror(copy) if left_right else copy
        copy = ImageOps.flip(copy) if upside_down else copy
        angle = spec.augmentation_degrees * (2 * side - 1)
        copies.append(np.asarray(_turned(copy, angle) if turned else copy))
    return np.stack(copies)


def evenly_turned(image: Pixels, turns: int) -> Pixels:
    """Make the copies (turns - 1, H, W, 3) that, with the image, are turned by 360°/turns more.

    >>> evenly_turned(np.zeros((32, 32, 3), np.uint8), 4).shape
    (3, 32, 32, 3)
    """
    still = Image.fromarray(image)
    return np.stack([np.asarray(_turned(still, k * 360 / turns)) for k in range(1, turns)])


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    return Motion(degrees, 1.0, right=0.0, down=0.0).move(image, Image.Resampling.BILINEAR)

"""From a variant to its model: where its fields become a method's plain arguments."""

import torch

from harness.experiment.choices import METHODS
from harness.experiment.variant import Variant
from harness.features.views import Shapes
from harness.methods.contract import Method


def make_model(variant: Variant, shapes: Shapes, seed: int) -> Method:
    """Build the variant's model for features of these (C, H, W).

    torch is seeded before anything is drawn. What a method draws by a generator comes from one of
    its own, so that a seed's permutations are the same for every variant.
    """
    torch.manual_seed(seed)
    entry = METHODS[variant.method]
    own = {"generator": torch.Generator().manual_seed(seed)} if entry.draws else {}
    model: Method = entry.load()(shapes, **variant.arguments, **own)
    return model

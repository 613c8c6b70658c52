"""From a variant to its model: where its fields become a method's plain arguments."""

import torch
from torch import nn

from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.features.views import Shapes
from harness.methods.contract import Method
from harness.run.schedule import smallest_batch


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


def check_batches(variant: Variant, images: int) -> None:
    """Refuse a training in which a batch norm would see one value of a channel: it has no spread.

    Args:
        variant: any.
        images: good ones, those held out among them.

    Raises:
        InputError: a batch of one image meets a map of one position.

    >>> deep = Variant(norm="batch", batch_size=4, image_size=32, taps=(4,))
    >>> check_batches(deep, images=6)
    >>> check_batches(deep, images=5)
    Traceback (most recent call last):
    harness.errors.InputError: batch norm: expected at least 2 values of a channel in a batch; ...
    """
    if not METHODS[variant.method].trained or smallest_batch(variant, images) > 1:
        return
    shapes = Extractor.on_meta(variant.feature_spec).shapes
    if all(height * width > 1 for _, height, width in shapes):
        return
    with torch.device("meta"):
        model = make_model(variant, shapes, 0)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise InputError(
            "batch norm: expected at least 2 values of a channel in a batch; got 1: a batch of 1 "
            f"image of {images} at a tap of 1 × 1 positions; use drop_last=true, another "
            "batch_size, another norm or subnet_norm, a larger image_size or finer taps"
        )

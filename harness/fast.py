"""From image to energies without what only training needs: the inference path."""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.backbones import Backbone
from harness.fastflow import FastFlow


def fused(
    backbone: Backbone, model: FastFlow, *, precision: str = "float32"
) -> Callable[[Tensor], list[tuple[Tensor, Tensor]]]:
    """The path from normalised images (B, 3, S, S) to :meth:`FastFlow.energies`.

    Batch norms are folded into the convolutions before them and everything is channels-last.
    In float32 the energies differ from the plain path's by rounding alone (1e-5).

    Args:
        backbone: with its weights.
        model: trained; it is copied.
        precision: ``float32`` or ``bfloat16`` (the convolutions alone).
    """
    layout = torch.channels_last
    network = fold_batch_norms(backbone).to(memory_format=layout)
    flow = copy.deepcopy(model).eval().to(memory_format=layout)

    @torch.inference_mode()
    def path(images: Tensor) -> list[tuple[Tensor, Tensor]]:
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            features = network(images.contiguous(memory_format=layout))
            return flow.energies([f.float() for f in features])

    return path


def fold_batch_norms(backbone: Backbone) -> Backbone:
    """A copy whose batch norms are part of the convolutions registered just before them.

    Registration order need not be the order of computation: where a probe's features differ, the
    backbone itself is returned; also where there is nothing to fold.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules()):
        return backbone
    folded = copy.deepcopy(backbone)
    for module in folded.modules():
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    size = backbone.image_size
    parameter = next(backbone.parameters())
    probe = torch.linspace(-2, 2, 3 * size * size).view(1, 3, size, size).to(parameter)
    with torch.inference_mode():
        pairs = zip(backbone(probe), folded(probe), strict=True)
        equal = all((a - b).abs().max() <= 1e-4 * a.abs().max() for a, b in pairs)
    return folded if equal else backbone

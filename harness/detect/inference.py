"""From image to energies without what only training needs: the inference path."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.features.backbone import Backbone
from harness.methods.fastflow import FastFlow
from harness.methods.flow.step import ActNorm, FlowStep, GlobalAffine

SHAPES = 3  # of inputs whose weights' layouts are kept: a batch, its rest, one image


def fused(
    backbone: Backbone, model: FastFlow, *, precision: str = "float32"
) -> Callable[[Tensor], list[tuple[Tensor, Tensor]]]:
    """The path from normalised images (B, 3, S, S) to :meth:`FastFlow.energies`.

    Batch norms are folded into the convolutions before them, everything is channels-last, and
    on the CPU the weights are laid out once as its convolutions want them. In float32 the
    energies differ from the plain path's by rounding alone (1e-5).

    Args:
        backbone: with its weights.
        model: trained; it is copied.
        precision: ``float32`` or ``bfloat16``: of the flow's convolutions. The backbone stays in
            float32: in bfloat16 it moved a pixel AUROC (screw) by 0.8 points.
    """
    layout = torch.channels_last
    network = fold_batch_norms(backbone).to(memory_format=layout)
    flow = copy.deepcopy(model).eval().to(memory_format=layout)
    flow.requires_grad_(False)
    for step in (m for m in flow.modules() if isinstance(m, FlowStep)):
        if step.affine is not None:
            step.affine = cast(ActNorm, FixedAffine(step.affine))
    if next(network.parameters()).device.type == "cpu" and can_pack(precision):
        pack(flow, getattr(torch, precision))
        pack(packed := copy.deepcopy(network), torch.float32)
        network = packed if _agree(network, packed) else network

    @torch.inference_mode()
    def path(images: Tensor) -> list[tuple[Tensor, Tensor]]:
        kind = images.device.type
        features = network(images.contiguous(memory_format=layout))
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            return flow.energies(features)

    return path


class FixedAffine(nn.Module):
    """A flow step's affine whose coefficients are computed once."""

    def __init__(self, affine: ActNorm | GlobalAffine) -> None:
        super().__init__()
        with torch.inference_mode():
            self.fixed = affine.coefficients()

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and log-scale, each (1, C, 1, 1)."""
        return self.fixed


class PackedConv(nn.Module):
    """A convolution whose weights are kept in the layout that oneDNN picks, with its ReLU.

    torch's own convolution puts them into it anew at every call, after casting them: for one
    image that takes as long as half of the arithmetic. The operators are those of
    torch.compile's CPU code.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__()
        self.dtype, self.then = dtype, "relu" if relu else "none"
        self.weight = conv.weight.detach().to(dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.how = conv.padding, conv.stride, conv.dilation, conv.groups
        self.packed: dict[torch.Size, Tensor] = {}  # by the input's shape, the latest few

    def forward(self, x: Tensor) -> Tensor:
        """Of x (B, C, H, W) the convolution, in this one's number format."""
        x = x.to(self.dtype)
        if x.shape not in self.packed:
            while len(self.packed) >= SHAPES:
                del self.packed[next(iter(self.packed))]
            lay_out = torch.ops.mkldnn._reorder_convolution_weight
            self.packed[x.shape] = lay_out(self.weight, *self.how, x.shape)
        convolve = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = convolve(
            x, self.packed[x.shape], self.bias, *self.how, self.then, [], ""
        )  # fmt: skip
        return y


def _plain(module: nn.Module) -> bool:
    """Whether it is a convolution padded by a number of zeros."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
    )


def can_pack(precision: str) -> bool:
    """Whether this torch and this processor have what :class:`PackedConv` needs."""
    has = hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    if not has or not torch.backends.mkldnn.is_available():
        return False
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return precision == "float32" or bool(supported())


def pack(module: nn.Module, dtype: torch.dtype) -> None:
    """Put packed convolutions in place of a module's own."""
    children = list(module.named_children())
    for i, (name, child) in enumerate(children):
        if isinstance(child, nn.Conv2d) and _plain(child):
            after = children[i + 1] if i + 1 < len(children) else ("", module)
            relu = isinstance(module, nn.Sequential) and type(after[1]) is nn.ReLU
            setattr(module, name, PackedConv(child, dtype, relu=relu))
            if relu:
                setattr(module, after[0], nn.Identity())
        else:
            pack(child, dtype)


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
    return folded if _agree(backbone, folded) else backbone


@torch.inference_mode()
def _agree(backbone: Backbone, other: Backbone) -> bool:
    """Whether another version of a backbone gives a probe's features, relative to the largest."""
    size = backbone.image_size
    parameter = next(backbone.parameters())
    probe = torch.linspace(-2, 2, 3 * size * size).view(1, 3, size, size).to(parameter)
    pairs = zip(backbone(probe), other(probe), strict=True)
    return all((a - b).abs().max() <= 1e-4 * a.abs().max() for a, b in pairs)

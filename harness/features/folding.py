"""The same network sooner: batch norms folded in, convolutions laid out once."""

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.features.backbone import Backbone

SHAPES = 3  # of inputs whose weights' layouts are kept: a batch, its rest, one image


def fold_batch_norms(backbone: Backbone) -> Backbone:
    """Copy a backbone with its batch norms made part of the convolutions before them.

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
    return folded if agree(backbone, folded) else backbone


@torch.inference_mode()
def agree(backbone: Backbone, other: Backbone) -> bool:
    """Tell whether another version of a backbone gives a probe's features.

    Within 1e-4 of each tap's largest value.
    """
    shape = (1, 3, *backbone.shape)
    parameter = next(backbone.parameters())
    probe = torch.linspace(-2, 2, math.prod(shape)).view(shape).to(parameter)
    pairs = zip(backbone(probe), other(probe), strict=True)
    return all((a - b).abs().max() <= 1e-4 * a.abs().max() for a, b in pairs)


class PackedConv(nn.Module):
    """Convolve with weights kept in the layout that oneDNN picks, and apply the ReLU behind.

    torch's own convolution puts them into it anew at every call, after casting them: for one
    image that takes as long as half of the arithmetic. The operators are those of
    torch.compile's CPU code.

    >>> conv = PackedConv(nn.Conv2d(3, 8, 3), torch.float32, relu=True)
    >>> conv.then
    'relu'
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__()
        self.dtype, self.then = dtype, "relu" if relu else "none"
        self.weight = conv.weight.detach().to(dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.how = conv.padding, conv.stride, conv.dilation, conv.groups
        self.packed: dict[torch.Size, Tensor] = {}  # by the input's shape, the latest few

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W), in this one's number format."""
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


def can_pack(precision: str) -> bool:
    """Tell whether this torch and this processor have what :class:`PackedConv` needs."""
    has = hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    if not has or not torch.backends.mkldnn.is_available():
        return False
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return precision != "bfloat16" or bool(supported())


def _plain(module: nn.Module) -> bool:
    """Whether it is a convolution padded by a number of zeros."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
    )

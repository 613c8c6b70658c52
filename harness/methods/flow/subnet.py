"""The subnets of a coupling (FastFlow, arXiv 2111.07677, Fig. 2 b)."""

from collections.abc import Callable
from itertools import pairwise
from typing import cast

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalise the channels at each position, as MSFlow's subnets do, with an affine.

    What is at one position changes no other, so a defect stays where it is.

    >>> import torch
    >>> x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    >>> ChannelNorm(2)(x).round(decimals=3).flatten().tolist()
    [-1.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


SUBNET_NORMS: dict[str, Callable[[int], nn.Module] | None] = {  # of the channels before a ReLU
    "none": None,
    "layer": ChannelNorm,
    "batch": nn.BatchNorm2d,
}


def make_subnet(
    channels_in: int,
    channels_out: int,
    *,
    kernel: int,
    hidden: int,
    hidden_layers: int = 1,
    init_gain: float = 0.0,
    norm: str = "none",
    zero_last: bool = False,
) -> nn.Sequential:
    """Make a Conv–ReLU–Conv that keeps the spatial size (paper Fig. 2 b).

    Args:
        channels_in: of its input.
        channels_out: of its output.
        kernel: of every convolution, odd.
        hidden: channels between two convolutions.
        hidden_layers: Conv–ReLUs before the last Conv.
        init_gain: of Xavier-uniform weights; 0: torch's own initialisation.
        norm: before every ReLU, a key of :data:`SUBNET_NORMS`. In training a ``batch`` norm lets
            the images of a batch see each other; once trained, each is alone.
        zero_last: whether the last Conv starts at zero, so that the coupling starts as the
            identity (Glow, arXiv 1807.03039, section 3.3).

    >>> make_subnet(2, 4, kernel=1, hidden=3, norm="batch", zero_last=True)[-1].weight.any().item()
    False
    """
    widths = [channels_in, *[hidden] * hidden_layers, channels_out]
    make_norm = SUBNET_NORMS[norm]
    subnet = nn.Sequential()  # a ReLU may work in place: what is before it keeps no output
    for given, out in pairwise(widths):
        subnet.append(nn.Conv2d(given, out, kernel, padding=kernel // 2))
        if make_norm is not None:
            subnet.append(make_norm(out))
        subnet.append(nn.ReLU(inplace=True))
    del subnet[-1 if make_norm is None else -2 :]
    convs = [layer for layer in subnet if isinstance(layer, nn.Conv2d)]
    if init_gain:
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight, gain=init_gain)
    if zero_last:
        nn.init.zeros_(convs[-1].weight)
        nn.init.zeros_(cast(Tensor, convs[-1].bias))
    return subnet

"""The subnets of a coupling (FastFlow, arXiv 2111.07677, Fig. 2 b)."""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn


def make_subnet(
    channels_in: int,
    channels_out: int,
    *,
    kernel: int,
    hidden: int,
    hidden_layers: int = 1,
    init_gain: float = 0.0,
) -> nn.Sequential:
    """Make a Conv–ReLU–Conv that keeps the spatial size (paper Fig. 2 b).

    ``hidden_layers``: Conv–ReLUs before the last Conv. ``init_gain``: Xavier-uniform weights
    with this gain; 0: torch's own initialisation.
    """
    widths = [channels_in, *[hidden] * hidden_layers, channels_out]
    subnet = nn.Sequential()  # a ReLU may work in place: no convolution keeps its output
    for given, out in pairwise(widths):
        subnet.extend((nn.Conv2d(given, out, kernel, padding=kernel // 2), nn.ReLU(inplace=True)))
    subnet.pop(-1)
    if init_gain:
        for conv in subnet[::2]:
            nn.init.xavier_uniform_(cast(Tensor, conv.weight), gain=init_gain)
    return subnet

"""Where a position is, as a condition of a flow (CFLOW-AD, arXiv 2107.12571, section 3.3)."""

import math

import torch
from torch import Tensor


def positional_encoding(channels: int, height: int, width: int) -> Tensor:
    """Make the 2-D sinusoidal encoding of CFLOW-AD's authors' code, (1, channels, H, W).

    The first half of the channels tells the column, the second the row, each by sines and
    cosines in turn, of wavelengths from 2π to 10,000·2π positions.

    Args:
        channels: a multiple of 4.
        height: H.
        width: W.

    >>> positional_encoding(4, height=1, width=2)[0, :2, 0, 0].tolist()  # sine, cosine of column 0
    [0.0, 1.0]
    """
    assert channels % 4 == 0, f"sines and cosines of two axes need a multiple of 4; got {channels}"
    half = channels // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))

    def axis(size: int) -> Tensor:
        angles = rates[:, None] * torch.arange(float(size))
        return torch.stack((angles.sin(), angles.cos()), dim=1).flatten(0, 1)

    columns = axis(width)[:, None, :].expand(-1, height, -1)
    rows = axis(height)[:, :, None].expand(-1, -1, width)
    return torch.cat((columns, rows))[None].contiguous(memory_format=torch.channels_last)

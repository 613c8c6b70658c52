"""A Gaussian blur of maps."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps (B, 1, H, W) by a Gaussian, reflected at the border, cut at 4 sigma."""
    if sigma == 0:
        return maps
    for sides in ((0, 1), (1, 0)):  # rows, then columns
        side = maps.shape[-1] if sides[1] else maps.shape[-2]
        radius = min(int(4 * sigma + 0.5), side - 1)
        x = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
        kernel = torch.exp(-0.5 * (x / sigma) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, *(len(x) if s else 1 for s in sides))
        down, across = (radius * s for s in sides)
        maps = F.conv2d(F.pad(maps, (across, across, down, down), mode="reflect"), kernel)
    return maps

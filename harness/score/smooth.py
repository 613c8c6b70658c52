"""A Gaussian blur of maps."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps (B, 1, H, W) by a Gaussian, reflected at the border, cut at 4 sigma."""
    if sigma == 0:
        return maps
    radius = min(int(4 * sigma + 0.5), maps.shape[-1] - 1)
    x = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    maps = F.conv2d(F.pad(maps, (radius, radius, 0, 0), mode="reflect"), kernel)
    return F.conv2d(F.pad(maps, (0, 0, radius, radius), mode="reflect"), kernel.mT)

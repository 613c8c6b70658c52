"""From energies of every tap to anomaly maps, without training.

The paper "upsamples the summed 2D likelihood map"; which map and how the taps are joined is
open: one implementation of each is named below.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exp-mean": lambda energy, log_det: -torch.exp(-energy),  # gathierry, anomalib
    "nll": lambda energy, log_det: energy,
    "nll-log-det": lambda energy, log_det: energy - log_det,  # RistoranteRist
    "likelihood": lambda energy, log_det: -torch.exp(log_det - energy),  # CFLOW-AD
}
JOINS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "sum": lambda maps: maps.sum(0),
    "max": lambda maps: maps.amax(0),
}


def anomaly_maps(
    energies: Sequence[tuple[Tensor, Tensor]],
    *,
    size: int,
    score_map: str,
    scale_aggregation: str,
    smoothing: float,
    align_corners: bool = False,
) -> Tensor:
    """Make anomaly maps, larger = more anomalous.

    Args:
        energies: per tap ``(energy, log_det)``, each (B, H, W).
        size: side of the input image, pixels.
        score_map: a key of :data:`MAPS`.
        scale_aggregation: how the taps' maps are joined, a key of :data:`JOINS`.
        align_corners: as torch's ``interpolate`` has it: lelexx and CFLOW-AD's code align.
        smoothing: standard deviation of a Gaussian on the map, pixels; 0: none.

    Returns:
        (B, size, size), of the energies' type. Memory: that of B maps a tap.
    """
    scales = [MAPS[score_map](e, j)[:, None] for e, j in energies]
    upsampled = torch.stack(
        [
            F.interpolate(s, (size, size), mode="bilinear", align_corners=align_corners)
            for s in scales
        ]
    )
    return gaussian(JOINS[scale_aggregation](upsampled), smoothing)[:, 0]


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

"""The scale and shift of every channel in a flow step: learnt, from data, or fixed."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ActNorm(nn.Module):
    """Scale and shift every channel, (x · scale + shift), from data (Glow, section 3.1).

    Call :meth:`initialise` with a batch before training; until then it is the identity.

    >>> norm = ActNorm(1)
    >>> norm.initialise(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    >>> scale, shift, _ = norm.coefficients()
    >>> scale.item(), shift.item()
    (1.0, -2.0)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Give scale, shift and log-scale, each (1, C, 1, 1)."""
        return torch.exp(self.log_scale), self.shift, self.log_scale

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Make the batch x (B, C, H, W) leave with mean 0 and deviation 1 in every channel."""
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
        # A channel that never varies in the batch (a dead ReLU) keeps a finite scale.
        self.log_scale.copy_(-torch.log(deviation.clamp_min(1e-3)))
        self.shift.copy_(-mean * torch.exp(self.log_scale))


class GlobalAffine(nn.Module):
    """Scale and shift every channel as FrEIA's AllInOneBlock does (SOFTPLUS).

    >>> GlobalAffine(2).coefficients()[0].flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        start = 2 * math.log(math.exp(5.0) - 1)  # the scale starts at 1
        self.global_scale = nn.Parameter(torch.full((1, channels, 1, 1), start))
        self.global_offset = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Give scale, shift and log-scale, each (1, C, 1, 1)."""
        scale = 0.1 * F.softplus(self.global_scale, beta=0.5)
        return scale, self.global_offset, torch.log(scale)


class FixedAffine(nn.Module):
    """Hold a flow step's affine, whose coefficients are computed once.

    >>> FixedAffine(GlobalAffine(2)).coefficients()[0].flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(self, affine: "Affine") -> None:
        super().__init__()
        scale, shift, log_scale = (c.detach() for c in affine.coefficients())
        self.fixed = scale, shift, log_scale

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Give scale, shift and log-scale, each (1, C, 1, 1)."""
        return self.fixed


Affine = ActNorm | GlobalAffine | FixedAffine
AFFINES: dict[str, type[ActNorm | GlobalAffine] | None] = {
    "none": None,
    "affine": GlobalAffine,
    "data": ActNorm,
}

"""The base distribution that a flow maps features to."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class StandardBase(nn.Module):
    """Take latents as they are: the base is the standard normal distribution."""

    def forward(self, z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Give z (B, C, H, W) and log_det (B, H, W) back."""
        return z, log_det


class LearnedBase(nn.Module):
    r"""Standardise latents by a mean and a deviation of every channel, which are learnt.

    AltUB (Kim et al. 2022, arXiv 2210.14913) observes that a flow maps good images to a normal
    distribution, but not to the standard one, and learns the base's parameters along:

    .. math:: -\log p = \tfrac12 \sum_c \frac{(z_c - \mu_c)^2}{\sigma_c^2}
              + \sum_c \log \sigma_c - \log \det J + \mathrm{const}

    It is written as one more affine of the chain, so that energies and log-determinants keep
    their meaning: the deviations' logarithms are part of the log-determinant. Which steps update
    it, and at what rate, is the training's (:meth:`FastFlow.parameter_groups`).

    Args:
        channels: of z.

    >>> base = LearnedBase(2)
    >>> _ = base.requires_grad_(False).mean.fill_(1.0), base.log_sigma.fill_(1.0)
    >>> z, log_det = base(torch.ones(1, 2, 1, 1), torch.zeros(1, 1, 1))
    >>> z.flatten().tolist(), log_det.item()
    ([0.0, 0.0], -2.0)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_sigma = nn.Parameter(torch.zeros(channels))

    def forward(self, z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise z (B, C, H, W), with its log-determinant per position, (B, H, W)."""
        mean, log_sigma = self.mean[:, None, None], self.log_sigma[:, None, None]
        return (z - mean) * torch.exp(-log_sigma), log_det - self.log_sigma.sum()


BASES: dict[str, Callable[[int], StandardBase | LearnedBase]] = {
    "standard": lambda channels: StandardBase(),
    "learned": LearnedBase,
}

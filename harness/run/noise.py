"""Noise on the features that a training sees."""

from collections.abc import Sequence

import torch
from torch import Tensor


class FeatureNoise:
    """Add Gaussian noise to features, as strong as a share of every tap's deviation.

    The deviation is that of all numbers of a tap in the batch. The draws have a generator of
    their own, on the processor: they change neither batches nor weights, and are the same on
    every device.

    Args:
        share: deviation of the noise as a share of the tap's; 0: the features as they are.
        seed: of the draws.

    >>> x = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    >>> FeatureNoise(0.0, seed=0)([x])[0] is x
    True
    >>> FeatureNoise(0.1, seed=0)([x])[0].shape
    torch.Size([2, 1, 1, 1])
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Disturb a batch, (B, C, H, W) per tap."""
        return [self._disturbed(x) for x in features] if self.share else list(features)

    def _disturbed(self, x: Tensor) -> Tensor:
        noise = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
        noise.normal_(generator=self.generator)
        return x + self.share * x.std(correction=0) * noise.to(x.device)

"""Norms of the features before the flow; the flow's likelihood is that of what leaves them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 1e-4  # of the largest variance: a direction that hardly varies is not blown up further


class LayerNorm(nn.LayerNorm):
    """Normalise as torch does, over (C, H, W), without a copy of channels-last features.

    >>> LayerNorm([4, 2, 2])(torch.ones(1, 4, 2, 2)).abs().max().item()
    0.0
    """

    def __init__(self, shape: list[int], *, elementwise_affine: bool = True) -> None:
        super().__init__(shape, elementwise_affine=elementwise_affine)
        for name, value in list(self.named_parameters()):  # laid out as the features are
            rows = value.detach().permute(1, 2, 0).contiguous()
            setattr(self, name, nn.Parameter(rows.permute(2, 0, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W), in its own memory layout."""
        if not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        c, h, w = self.normalized_shape
        weight, bias = (p if p is None else p.permute(1, 2, 0) for p in (self.weight, self.bias))
        y = F.layer_norm(x.permute(0, 2, 3, 1), [h, w, c], weight, bias, self.eps)
        return y.permute(0, 3, 1, 2)


class Surveyed(nn.Module):
    """Transform channels linearly, as the training images' channels ask for.

    :func:`survey` shows it all of them before training; until then it is the identity.

    Args:
        channels: of the features.
        correlated: whether the channels are made uncorrelated too (whitened), not only of mean 0
            and variance 1 each. It is the whitening that stays closest to the features (ZCA):
            the symmetric square root of the inverse covariance.

    >>> norm = Surveyed(1, correlated=False)
    >>> survey([norm], [[torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)]])
    >>> norm(torch.tensor([[[[5.0]]]])).item()
    3.0
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, channels: int, *, correlated: bool) -> None:
        super().__init__()
        self.correlated = correlated
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("matrix", torch.eye(channels))

    @property
    def bank_bytes(self) -> int:
        """Count the bytes of what it keeps of the training images."""
        return sum(b.numel() * b.element_size() for b in (self.mean, self.matrix))

    def settle(self, count: int, total: Tensor, products: Tensor) -> None:
        """Transform from now on as these sums over positions ask for.

        Args:
            count: of the positions.
            total: (C,), the sum of their features.
            products: (C, C), the sum of their outer products.
        """
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        if not self.correlated:
            covariance = covariance.diag().diag()
        variances, directions = torch.linalg.eigh(covariance)
        floored = variances.clamp_min(FLOOR * float(variances[-1])).clamp_min(1e-12)
        self.mean.copy_(mean)
        self.matrix.copy_((directions / floored.sqrt()) @ directions.T)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (B, C, H, W); in float32 also where the convolutions are not."""
        kind = "cpu" if x.is_meta else x.device.type  # autocast knows no meta device
        with torch.autocast(kind, enabled=False):
            bias = -(self.matrix @ self.mean)
            return F.conv2d(x, self.matrix[:, :, None, None], bias)


@torch.no_grad()
def survey(norms: Sequence[nn.Module], batches: Iterable[Sequence[Tensor]]) -> None:
    """Let those norms that are :class:`Surveyed` see all training images, in one pass.

    Mean and covariance are of all positions of all images, summed in float64.

    Args:
        norms: one a tap.
        batches: of features (B, C, H, W) per tap; not read where no norm asks for it.
    """
    asking = [(tap, norm) for tap, norm in enumerate(norms) if isinstance(norm, Surveyed)]
    sums: dict[int, list[Any]] = {}
    for batch in batches if asking else ():
        for tap, norm in asking:
            rows = batch[tap].permute(0, 2, 3, 1).reshape(-1, len(norm.mean)).double()
            held = sums.setdefault(tap, [0, 0.0, 0.0])
            for i, part in enumerate((len(rows), rows.sum(0), rows.T @ rows)):
                held[i] = held[i] + part
    for tap, norm in asking:
        norm.settle(*sums[tap])


NORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "none": lambda c, h, w: nn.Identity(),
    "layer": lambda c, h, w: LayerNorm([c, h, w], elementwise_affine=False),
    "layer-affine": lambda c, h, w: LayerNorm([c, h, w]),
    "batch": lambda c, h, w: nn.BatchNorm2d(c),
    "standard": lambda c, h, w: Surveyed(c, correlated=False),
    "whiten": lambda c, h, w: Surveyed(c, correlated=True),
}

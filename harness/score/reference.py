"""What the good images' values at a tap look like: the scale on which a test image is read.

The taps of a backbone have values of different size and spread, and a likelihood has no scale of
its own. What the training images' values are at the same tap gives one: how many deviations, which
share of them lies below, how rarely one is as large. Kept are not the values but tables of them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.methods.contract import Energies
from harness.score.smooth import gaussian

IMAGES = 256  # training images looked at, at most: more move a table's tail alone
SMOOTH = 1 / 16  # deviation of the Gaussian over positions, as a share of the tap's side
FLOOR = 0.1  # of the tap's deviation: a position that never varies keeps a finite scale
# The share of values above each number of a table: dense where a p-value is read, in the tail.
ABOVE = torch.cat(
    [
        torch.linspace(1.0, 0.02, 197, dtype=torch.float64),
        torch.logspace(math.log10(0.02), -7, 204, dtype=torch.float64)[1:],
        torch.zeros(1, dtype=torch.float64),
    ]
)

PARTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda energy, log_det: energy,
    lambda energy, log_det: energy - log_det,
)
POSITIONS: dict[str, Callable[[Tensor], Tensor]] = {  # moments by position (2, 2, h, w) →
    "global": lambda moments: moments.mean((2, 3), keepdim=True).expand_as(moments),
    "smoothed": lambda moments: torch.stack([_smooth(m) for m in moments]),
    "position": lambda moments: moments,
}


@dataclass(frozen=True)
class TapReference:
    """Hold tables of the values at one tap, of the energy and of energy − log-determinant.

    Attributes:
        count: values in a table: images times positions.
        moments: mean, and mean of the squares, at every position, (2, parts, h, w).
        tables: the value that a share :data:`ABOVE` of all values exceed, once standardised by
            the moments of every rule of :data:`POSITIONS`, (rules, parts, levels), ascending.

    >>> images = Energies([(torch.rand(8, 4, 4), torch.zeros(8, 4, 4))])
    >>> make_reference([images])[0].count
    128
    """

    count: int
    moments: Tensor
    tables: Tensor

    def standardise(self, values: Tensor, part: int, rule: str) -> Tensor:
        """Say by how many deviations values (B, h, w) lie above the mean."""
        mean, deviation = _spread(POSITIONS[rule](self.moments.double()))
        mean, deviation = (m[part].to(values) for m in (mean, deviation))
        return (values - mean) / deviation

    def read(self, values: Tensor, part: int, rule: str, scale: Tensor) -> Tensor:
        """Read values (B, h, w) off a table whose levels stand for the numbers ``scale``."""
        standard = self.standardise(values, part, rule).contiguous()
        table = self.tables[list(POSITIONS).index(rule), part].to(values)
        right = torch.searchsorted(table, standard, right=True)
        right = right.clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        weight = ((standard - low) / (high - low).clamp_min(1e-30)).clamp(0, 1)
        scale = scale.to(values)
        return torch.lerp(scale[right - 1], scale[right], weight)


Reference = Sequence[TapReference]  # one a tap


def make_reference(energies: Iterable[Energies]) -> Reference:
    """Make the tables of good images, given in parts; those of at most some hundred images.

    Raises:
        StopIteration: there are no images.
    """
    taps = Energies.join(list(energies)).taps
    return [_of_tap(torch.stack([part(e, j) for part in PARTS])) for e, j in taps]


def _of_tap(values: Tensor) -> TapReference:
    """Of the parts' values (parts, B, h, w)."""
    values = values.double()
    moments = torch.stack([values.mean(1), values.square().mean(1)])
    tables = []
    for rule in POSITIONS.values():
        mean, deviation = _spread(rule(moments))
        standard = (values - mean[:, None]) / deviation[:, None]
        ascending = standard.flatten(1).sort(1).values
        place = (1 - ABOVE) * (ascending.shape[1] - 1)
        low = place.floor().long()
        high = (low + 1).clamp_max(ascending.shape[1] - 1)
        tables.append(torch.lerp(ascending[:, low], ascending[:, high], place - low))
    return TapReference(values[0].numel(), moments.float(), torch.stack(tables).float())


def _spread(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (parts, h, w), of moments (2, parts, h, w)."""
    mean, square = moments
    whole_mean, whole_square = moments.mean((2, 3), keepdim=True)
    whole = (whole_square - whole_mean.square()).clamp_min(0).sqrt()
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return mean, torch.maximum(deviation, FLOOR * whole).clamp_min(1e-12)


def _smooth(moments: Tensor) -> Tensor:
    """Smooth moments (parts, h, w) over the positions."""
    sigma = SMOOTH * moments.shape[-1]
    return gaussian(moments[:, None], sigma)[:, 0] if min(moments.shape[1:]) > 1 else moments

"""What the good images' values at a tap look like: the scale on which a test image is read.

The taps of a backbone have values of different size and spread, and a likelihood has no scale of
its own. What the training images' values are at the same tap gives one: how many deviations, which
share of them lies below, how rarely one is as large. Kept are not the values but tables of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from harness.data.frame import Boxes
from harness.experiment.feature_spec import Size, shape_of
from harness.methods.contract import Energies
from harness.score.smooth import gaussian

IMAGES = 256  # training images looked at, at most: more move a table's tail alone
SMOOTH = 1 / 16  # deviation of the Gaussian over positions, as a share of the tap's shorter side
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
        mean, deviation = (m[part].to(values) for m in self.spreads[rule])
        return (values - mean) / deviation

    @cached_property
    def spreads(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Give mean and deviation, each (parts, h, w), by every rule of :data:`POSITIONS`."""
        return {name: _spread(rule(self.moments.double())) for name, rule in POSITIONS.items()}

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


def make_reference(energies: Iterable[Energies], boxes: Boxes = None, size: Size = 0) -> Reference:
    """Make the tables of good images, given in parts; those of at most some hundred images.

    Args:
        energies: what is said of them.
        boxes: where each input shows its image: no other position counts. None: everywhere.
        size: of the inputs that the boxes are in.

    Raises:
        StopIteration: there are no images.
    """
    taps = Energies.join(list(energies)).taps
    return [
        _of_tap(torch.stack([part(e, j) for part in PARTS]), _seen(boxes, shape_of(size), e.shape))
        for e, j in taps
    ]


def _seen(boxes: Boxes, frame: tuple[int, int], shape: Sequence[int]) -> Tensor | None:
    """Which positions of a tap (B, h, w) show their image; None: all."""
    if boxes is None:
        return None
    seen = torch.zeros(*shape, dtype=torch.bool)
    for one, box in zip(seen, boxes, strict=True):
        inside = box.positions(frame, (shape[1], shape[2]))
        one[inside.rows, inside.columns] = True
    return seen


def _of_tap(values: Tensor, seen: Tensor | None) -> TapReference:
    """Of the parts' values (parts, B, h, w), where they are seen (B, h, w)."""
    values = values.double()
    if seen is None:
        moments = torch.stack([values.mean(1), values.square().mean(1)])
    else:
        values = values.where(seen, 0.0)
        sums = torch.stack([values.sum(1), values.square().sum(1)])
        count = seen.sum(0)  # a position that no image shows has all others' moments
        whole = sums.sum((2, 3), keepdim=True) / count.sum()
        moments = torch.where(count > 0, sums / count.clamp_min(1), whole)
    tables = []
    for rule in POSITIONS.values():
        mean, deviation = _spread(rule(moments))
        standard = (values - mean[:, None]) / deviation[:, None]
        ascending = (standard.flatten(1) if seen is None else standard[:, seen]).sort(1).values
        place = (1 - ABOVE) * (ascending.shape[1] - 1)
        low = place.floor().long()
        high = (low + 1).clamp_max(ascending.shape[1] - 1)
        tables.append(torch.lerp(ascending[:, low], ascending[:, high], place - low))
    return TapReference(ascending.shape[1], moments.float(), torch.stack(tables).float())


def _spread(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (parts, h, w), of moments (2, parts, h, w)."""
    mean, square = moments
    whole_mean, whole_square = moments.mean((2, 3), keepdim=True)
    whole = (whole_square - whole_mean.square()).clamp_min(0).sqrt()
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return mean, torch.maximum(deviation, FLOOR * whole).clamp_min(1e-12)


def _smooth(moments: Tensor) -> Tensor:
    """Smooth moments (parts, h, w) over the positions."""
    sigma = SMOOTH * min(moments.shape[1:])
    return gaussian(moments[:, None], sigma)[:, 0] if min(moments.shape[1:]) > 1 else moments

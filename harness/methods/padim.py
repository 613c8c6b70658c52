"""PaDiM: a Gaussian at every position.

Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization, 2020 (arXiv 2011.08785).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.methods.contract import Arrays, Energies, Method

REGULARISER = 0.01  # epsilon of Eq. 1, on the covariance's diagonal
CHUNK = 2**28  # bytes of covariances worked on at a time


class PaDiM(Method):
    """Measure the Mahalanobis distance to the good features at the same position (Eq. 2).

    All taps are joined at the size of the finest (nearest neighbour), a random subset of the
    channels is kept, and every position gets their mean and covariance + 0.01·I (Eq. 1). Kept is
    the inverse of the covariance's Cholesky factor, which makes the distance a plain norm.

    The bank is positions x channels² float32: 5.0 GB for 550 channels at 64 x 64 positions.
    Fitting reads the features a few rows of positions at a time and holds, beside the bank, those
    rows of all images and a few times CHUNK bytes, in float64.

    Args:
        shapes: (C, H, W) per tap, fine to coarse.
        channels: size of the random subset (the paper: 100 for ResNet18, 550 for WRN50); all of
            them where there are fewer.
        generator: draws the subset.

    >>> model = PaDiM([(8, 2, 2)], channels=4)
    >>> model.fit([np.random.default_rng(0).normal(size=(9, 8, 2, 2))])
    >>> model.energies([torch.zeros(1, 8, 2, 2)]).taps[0][0].shape
    torch.Size([1, 2, 2])
    """

    mean: Tensor  # (positions, channels)
    whitening: Tensor  # (positions, channels, channels), lower triangular

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        *,
        channels: int = 100,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.size = tuple(shapes[0][1:])
        total = sum(c for c, _, _ in shapes)
        drawn = torch.randperm(total, generator=generator, device="cpu")[:channels].sort().values
        ends = np.cumsum([c for c, _, _ in shapes]).tolist()
        self.kept = [  # channels of each tap
            (drawn[(drawn >= end - c) & (drawn < end)] - (end - c)).tolist()
            for end, (c, _, _) in zip(ends, shapes, strict=True)
        ]
        self.register_buffer("mean", torch.empty(0, len(drawn)))
        self.register_buffer("whitening", torch.empty(0, len(drawn), len(drawn)))

    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """See :class:`Method`."""
        self.to(device)
        self._allocate()
        (height, width), channels = self.size, self.mean.shape[1]
        eye = torch.eye(channels, dtype=torch.float64, device=device)
        rows = self._rows_at_a_time()
        for first in range(0, height, rows):
            last = min(height, first + rows)
            x = self._rows(train, first, last).to(device).double()
            mean = x.mean(1, keepdim=True)
            x -= mean
            covariance = (x.mT @ x).div_(max(1, x.shape[1] - 1)).add_(eye, alpha=REGULARISER)
            factor = torch.linalg.cholesky(covariance)
            part = slice(first * width, last * width)
            self.mean[part] = mean[:, 0]
            self.whitening[part] = torch.linalg.solve_triangular(factor, eye, upper=False)

    def fit_bytes(self, images: int) -> int:
        """See :class:`Method`: rows of all images, in both precisions, and their covariances."""
        rows, channels = self._rows_at_a_time(), self.mean.shape[1]
        positions = rows * self.size[1]
        return positions * channels * (16 * images + 4 * 8 * channels)

    def _rows_at_a_time(self) -> int:
        height, width = self.size
        return min(height, max(1, CHUNK // (width * 8 * self.mean.shape[1] ** 2)))

    def fill(self, images: int) -> None:
        """See :class:`Method`."""
        self._allocate()

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """See :class:`Method`."""
        taps = [
            F.interpolate(x[:, kept].float(), self.size)  # nearest
            for x, kept in zip(features, self.kept, strict=True)
        ]
        x = torch.cat(taps, dim=1).flatten(2).permute(2, 0, 1) - self.mean[:, None]
        distances = (x @ self.whitening.mT).norm(dim=2)
        energy = distances.T.reshape(-1, *self.size)
        return Energies([(energy, torch.zeros_like(energy))])

    @property
    def bank_bytes(self) -> int:
        """Count the bytes of the Gaussians."""
        return self.mean.nbytes + self.whitening.nbytes

    def _allocate(self) -> None:
        positions, channels = self.size[0] * self.size[1], self.mean.shape[1]
        self.mean = self.mean.new_zeros(positions, channels)
        self.whitening = self.mean.new_zeros(positions, channels, channels)

    def _rows(self, train: Arrays, first: int, last: int) -> Tensor:
        """The joined features of all images at these rows, (positions, N, channels)."""
        height, width = self.size
        taps = []
        for array, kept in zip(train, self.kept, strict=True):
            column = torch.arange(array.shape[2], dtype=torch.float32).view(1, 1, -1, 1)
            rows = F.interpolate(column, (height, 1)).flatten()[first:last].long().numpy()
            read = array[:, :, rows[0] : rows[-1] + 1][:, kept][:, :, rows - rows[0]]
            x = torch.from_numpy(read.astype(np.float32))
            taps.append(F.interpolate(x, (len(rows), width)))
        return torch.cat(taps, dim=1).flatten(2).permute(2, 0, 1)

"""SPADE: the nearest good images, and the nearest features in them.

Cohen and Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020
(arXiv 2005.02357).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.methods.batches import batches
from harness.methods.contract import Arrays, Energies, Method
from harness.methods.memory.nearest import nearest

GALLERY = 8  # images compared with at a time


class SPADE(Method):
    """Search twice: for the nearest good images, then for every position in their features.

    An image's score is the mean squared distance of its globally pooled last tap to its K nearest
    good images (Eq. 2). A position's energy is the distance of its features at the taps before
    the last, joined at the size of the finest (bilinear), to the nearest of all positions of
    these K images (Eq. 3 with kappa = 1; its root, as public code has it). A single tap serves
    both searches. Nothing is drawn: every seed gives the same.

    The bank is the good images' features themselves, float32; scoring takes, beside it, the
    upsampled features of GALLERY images and one chunk of distances.

    Args:
        shapes: (C, H, W) per tap, fine to coarse.
        neighbours: K; all good images where there are fewer.

    >>> import numpy as np
    >>> model = SPADE([(8, 2, 2)], neighbours=1)
    >>> model.fit([np.zeros((2, 8, 2, 2), np.float32)])
    >>> model.energies([torch.zeros(1, 8, 2, 2)]).images.tolist()
    [0.0]
    """

    traceable = False  # every image has a gallery of its own
    pooled: Tensor  # (N, C)

    def __init__(self, shapes: Sequence[tuple[int, int, int]], *, neighbours: int = 50) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.size = tuple(shapes[0][1:])
        self.local = len(shapes[:-1]) or 1  # taps that give the pixels
        self.register_buffer("pooled", torch.empty(0, shapes[-1][0]))
        for i, shape in enumerate(shapes[: self.local]):
            self.register_buffer(f"tap{i}", torch.empty(0, *shape))

    @property
    def banks(self) -> list[Tensor]:
        """List the good images' features, (N, C, H, W) per tap that gives the pixels."""
        return [self.get_buffer(f"tap{i}") for i in range(self.local)]

    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """See :class:`Method`."""
        self.to(device)
        self._allocate(len(train[0]))
        for rows, features in batches(train, device=device):
            part = torch.from_numpy(rows).to(device)
            self.pooled[part] = features[-1].mean((2, 3))
            for bank, x in zip(self.banks, features, strict=False):
                bank[part] = x

    def fill(self, images: int) -> None:
        """See :class:`Method`."""
        self._allocate(images)

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """See :class:`Method`."""
        count = min(self.neighbours, len(self.pooled))
        distances, images = nearest(features[-1].float().mean((2, 3)), self.pooled, count)
        queries = self._positions(features[: self.local])
        energies = [self._energy(x, near) for x, near in zip(queries, images, strict=True)]
        energy = torch.stack(energies).view(-1, *self.size)
        return Energies([(energy, torch.zeros_like(energy))], distances.square().mean(1))

    @property
    def bank_bytes(self) -> int:
        """Count the bytes of the good images' features."""
        return sum(x.nbytes for x in (self.pooled, *self.banks))

    def _allocate(self, images: int) -> None:
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.new_zeros(images, *buffer.shape[1:]))

    def _positions(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (B, C, H, W) joined at the finest's size, (B, positions, channels)."""
        sized = (F.interpolate(x.float(), self.size, mode="bilinear") for x in taps)
        return torch.cat(list(sized), dim=1).flatten(2).mT

    def _energy(self, queries: Tensor, images: Tensor) -> Tensor:
        """Distances of the positions of an image to the nearest of these good images."""
        best = queries.new_full((len(queries),), torch.inf)
        for part in images.split(GALLERY):
            gallery = self._positions([bank[part] for bank in self.banks]).flatten(0, 1)
            best = torch.minimum(best, nearest(queries, gallery)[0][:, 0])
        return best

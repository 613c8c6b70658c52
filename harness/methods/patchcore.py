"""PatchCore: the distance to the nearest of a coreset of good patches.

Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv 2106.08265).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.methods.batches import batches
from harness.methods.contract import Arrays, Energies, Method
from harness.methods.memory.coreset import BLOCK, CANDIDATES, greedy_coreset
from harness.methods.memory.nearest import nearest

DISTORTION = 0.9  # epsilon of the Johnson-Lindenstrauss lemma, as in the authors' code


class PatchCore(Method):
    """Hold patches of the last two taps against a coreset of the good images' patches.

    A patch is the mean of its 3 x 3 neighbourhood at both taps (Eq. 1-3), the coarser upsampled
    to the finer and joined to it; the authors' own code also pools the channels to 1024. Of all N
    good patches the bank keeps a share by greedy k-centre selection (Algorithm 1), which looks at
    a random projection of them. A patch's energy is its distance to the bank, an image's score
    the largest of them, re-weighted by how common its neighbour is in the bank (Eq. 6, 7).

    Fitting holds the projection of all patches, 4·ln(N) / 0.162 numbers each (about 300), and
    the bank, but never all patches.

    Args:
        shapes: (C, H, W) per tap, fine to coarse; the last two are used, or the only one.
        coreset: share of the patches in the bank, in (0, 1].
        neighbours: b of Eq. 7; 1: no re-weighting.
        generator: draws the projection and the first pick.

    >>> model = PatchCore([(8, 4, 4)], coreset=0.25)
    >>> model.fit([np.zeros((2, 8, 4, 4), np.float32)])
    >>> len(model.bank)  # of 2 · 16 patches
    8
    """

    bank: Tensor

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        *,
        coreset: float = 0.1,
        neighbours: int = 9,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.coreset, self.neighbours = coreset, neighbours
        self.size = tuple(shapes[-2:][0][1:])
        self.seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device="cpu"))
        self.register_buffer("bank", torch.empty(0, sum(c for c, _, _ in shapes[-2:])))

    def patches(self, features: Sequence[Tensor]) -> Tensor:
        """Cut images (B, C, H, W) per tap into patches, (B, positions, channels)."""
        pooled = (F.avg_pool2d(x.float(), 3, stride=1, padding=1) for x in features[-2:])
        joined = [
            F.interpolate(x, self.size, mode="bilinear", align_corners=False) for x in pooled
        ]
        return torch.cat(joined, dim=1).flatten(2).mT

    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """See :class:`Method`; reads the features twice."""
        self.to(device)
        total, count = self._sizes(len(train[0]))
        random = np.random.RandomState(self.seed)
        projection = sparse_projection(total, self.bank.shape[1], random).to(device)
        small = projection.new_empty(total, projection.shape[1])
        for part, patches in self._parts(train, device):
            small[part] = patches @ projection
        chosen = greedy_coreset(small, count, start=int(random.randint(total)))
        self.bank = self.bank.new_empty(count, self.bank.shape[1])
        for part, patches in self._parts(train, device):
            here = (chosen >= part.start) & (chosen < part.stop)
            self.bank[here] = patches[chosen[here] - part.start]

    def _parts(self, train: Arrays, device: str) -> Iterator[tuple[slice, Tensor]]:
        """Which patches of all, and these, (patches, channels)."""
        positions = self.size[0] * self.size[1]
        for images, features in batches(train, device=device):
            part = slice(int(images[0]) * positions, (int(images[-1]) + 1) * positions)
            yield part, self.patches(features).flatten(0, 1)

    def fill(self, images: int) -> None:
        """See :class:`Method`."""
        _, count = self._sizes(images)
        self.bank = self.bank.new_zeros(count, self.bank.shape[1])

    def fit_bytes(self, images: int) -> int:
        """See :class:`Method`: the projection, and what the greedy search holds."""
        total, count = self._sizes(images)
        fewer = min(self.bank.shape[1], fewer_dimensions(total))
        search = 8 * fewer * count + 32 * total + 12 * fewer * min(total, CANDIDATES)
        return 4 * fewer * total + search + 8 * BLOCK * count

    def _sizes(self, images: int) -> tuple[int, int]:
        """Patches of this many images, and how many of them the bank keeps."""
        total = images * self.size[0] * self.size[1]
        return total, max(1, int(total * self.coreset))

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """See :class:`Method`."""
        patches = self.patches(features)
        found, where = nearest(patches.flatten(0, 1), self.bank)
        energies = found.view(patches.shape[0], -1)
        images, worst = energies.max(1)
        count = min(self.neighbours, len(self.bank))
        if count > 1:
            neighbour = self.bank[where.view_as(energies).gather(1, worst[:, None])[:, 0]]
            _, around = nearest(neighbour, self.bank, count)  # itself among them
            which = worst[:, None, None].expand(-1, -1, patches.shape[2])
            patch = patches.gather(1, which)
            distances = (patch - self.bank[around]).norm(dim=2)
            images = images * (1 - torch.exp(images - distances.logsumexp(1)))
        energy = energies.view(-1, *self.size)
        return Energies([(energy, torch.zeros_like(energy))], images)

    @property
    def bank_bytes(self) -> int:
        """Count the bytes of the coreset."""
        return self.bank.nbytes


def sparse_projection(total: int, channels: int, random: np.random.RandomState) -> Tensor:
    """Draw a sparse random projection (channels, fewer); all where the lemma asks for no fewer."""
    # Slow to import, and every worker imports this module.
    from sklearn.random_projection import SparseRandomProjection

    fewer = fewer_dimensions(total)
    if fewer >= channels:
        return torch.eye(channels)
    projection = SparseRandomProjection(fewer, random_state=random).fit(np.zeros((1, channels)))
    return torch.from_numpy(projection.components_.toarray().astype(np.float32).T)


def fewer_dimensions(total: int) -> int:
    """Count the dimensions that keep the distances of so many points (Johnson-Lindenstrauss).

    >>> fewer_dimensions(100_000)
    284
    """
    return max(1, int(4 * math.log(total) / (DISTORTION**2 / 2 - DISTORTION**3 / 3)))

"""The greedy coreset of PatchCore, exact and lazy (arXiv 2106.08265, Algorithm 1).

Farthest-point sampling picks, again and again, the point farthest from those already picked; done
plainly, it reads every feature at every pick. But the distance to the nearest pick only ever
shrinks, so an old one is an upper bound: only the points with the largest bounds need to be up to
date, and the best of them is the right pick as long as it exceeds all other bounds. What they
missed is made up for in matrix products, and many points are never looked at again.
"""

import torch
from torch import Tensor

CANDIDATES = 4096  # points kept up to date between two looks at all bounds
BLOCK = 512  # of them that make up for the picks they missed in one product
TIE = 1e-12  # squared distances closer than this share of the largest squared norm are equal


@torch.inference_mode()
def greedy_coreset(
    features: Tensor, picks: int, *, start: int = 0, candidates: int = CANDIDATES
) -> Tensor:
    """Pick the greedy k-centre coreset: indices, in the order of picking.

    Every pick is the point with the largest Euclidean distance to its nearest earlier pick, in
    float64; of equal ones the first.

    Memory beside the features: 8 d bytes a pick, 32 bytes a point, 12 d bytes a candidate, and
    BLOCK x picks distances of 8 bytes. There are more candidates where more points tie.

    Args:
        features: (n, d), on the device where to compute.
        picks: how many, 1 to n.
        start: the first pick.
        candidates: decides the speed, not the result.

    Returns:
        (picks,), int64.

    Raises:
        ValueError: a feature is not finite.
    """
    if not features.isfinite().all():
        raise ValueError("expected finite features; got some that are not")
    search = _Search(features, picks, start)
    count = candidates
    while search.picked < picks:
        count = candidates if search.advance(min(count, len(features))) else 2 * count
    return search.order


class _Search:
    """The picks so far, and for every point a bound on its squared distance to them."""

    def __init__(self, features: Tensor, picks: int, start: int) -> None:
        n, d = features.shape
        self.features, self.picked = features, 1
        self.mean = features.mean(0).double()  # around it products lose fewer digits
        everyone = torch.arange(n, device=features.device)
        self.norms = torch.cat([self.rows(i).square().sum(1) for i in everyone.split(BLOCK)])
        self.tie = TIE * float(self.norms.max())
        self.bounds = torch.full_like(self.norms, torch.inf)
        self.seen = torch.zeros_like(everyone)  # picks that a point's bound knows of
        self.order = everyone.new_full((picks,), start)
        self.centres = self.norms.new_empty(picks, d)
        self.centres[0] = self.rows(everyone[start])
        self.refresh(everyone)
        self.bounds[start] = -torch.inf

    def rows(self, index: Tensor) -> Tensor:
        return self.features[index].double() - self.mean

    def refresh(self, index: Tensor) -> bool:
        """Bring the bounds of these points up to date; False: they all were."""
        index = index[self.seen[index] < self.picked]
        if not len(index):
            return False
        index = index[self.seen[index].argsort()]
        for part in index.split(BLOCK):
            missed = slice(int(self.seen[part[0]]), self.picked)  # by the first, so by all
            norms = self.norms[self.order[missed]]
            nearest = torch.addmm(norms, self.rows(part), self.centres[missed].T, alpha=-2).amin(1)
            nearest = (nearest + self.norms[part]).clamp_min(0)
            self.bounds[part] = torch.minimum(self.bounds[part], nearest)
            self.seen[part] = self.picked
        return True

    def advance(self, count: int) -> bool:
        """Pick among the ``count`` points with the largest bounds; False: there are too few."""
        bounds, index = self.bounds.topk(count, sorted=False)
        rest = float(bounds.min()) if count < len(self.bounds) else -torch.inf
        late = self.refresh(index)
        index = index[self.bounds[index] > rest + self.tie].sort().values
        if not len(index):
            return late
        points, norms, bounds = self.rows(index), self.norms[index], self.bounds[index]
        positions = torch.arange(len(index), device=index.device)
        while self.picked < len(self.order):
            top = bounds.max()
            if top <= rest + self.tie:
                break
            best = positions[bounds >= top - self.tie][0]
            self.order[self.picked], self.centres[self.picked] = index[best], points[best]
            squared = torch.addmv(norms, points, points[best], alpha=-2) + norms[best]
            bounds = torch.minimum(bounds, squared.clamp_min(0))
            bounds[best] = -torch.inf
            self.picked += 1
        self.bounds[index], self.seen[index] = bounds, self.picked
        return True

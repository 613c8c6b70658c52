"""Nearest neighbours by brute force, on the CPU or a GPU, in bounded memory."""

import torch
from torch import Tensor

CHUNK = 2**24  # distances held at a time: 64 MiB


def nearest(queries: Tensor, bank: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Find Euclidean distances to the nearest points of the bank, ascending, and their indices.

    The neighbours are found by matrix products (|a|² + |b|² - 2ab), which lose digits close to
    zero; the distances returned are those of the differences.

    Args:
        queries: (n, d).
        bank: (m, d).
        count: neighbours a query, at most m.

    Returns:
        distances (n, count), and indices into the bank (n, count).
    """
    mean = bank.mean(0)  # around 0, products lose the fewest digits
    queries, bank = queries - mean, bank - mean
    norms = bank.square().sum(1)
    # A graph has no loop over a number of queries that it does not know: there they go together.
    whole = torch.compiler.is_compiling()
    parts = [queries] if whole else queries.split(max(1, CHUNK // len(bank)))
    found = [_nearest(part, bank, norms, count) for part in parts]
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


def _nearest(queries: Tensor, bank: Tensor, norms: Tensor, count: int) -> tuple[Tensor, Tensor]:
    squared = torch.addmm(norms, queries, bank.T, alpha=-2)  # less the query's own norm
    if count == 1:
        indices = squared.argmin(1, keepdim=True)
    else:
        indices = squared.topk(count, largest=False).indices
    distances = (queries[:, None] - bank[indices]).norm(dim=2)
    distances, order = distances.sort(dim=1)
    return distances, indices.gather(1, order)

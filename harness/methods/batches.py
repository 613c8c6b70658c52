"""Cached features, read in batches."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.features.passing import ahead
from harness.methods.contract import Arrays

BATCH = 16  # images read at a time where nothing asks for another number

Rows = NDArray[np.int64]  # which images


def batches(
    arrays: Arrays, rows: Rows | None = None, *, size: int = BATCH, device: str = "cpu"
) -> Iterator[tuple[Rows, list[Tensor]]]:
    """Yield which images, and their features (B, C, H, W) per tap, float32, channels-last.

    An accelerator does not wait for the next batch to be read.

    Args:
        arrays: features (N, C, H, W) per tap, perhaps memory-mapped.
        rows: the images, in this order; None: all.
        size: images of a batch; the last one may have fewer.
        device: where the features go.

    >>> arrays = [np.zeros((5, 2, 1, 1), np.float16)]
    >>> [(rows.tolist(), x.shape[0]) for rows, (x,) in batches(arrays, size=3)]
    [([0, 1, 2], 3), ([3, 4], 2)]
    """
    rows = np.arange(len(arrays[0])) if rows is None else rows
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]

    def read(part: Rows) -> tuple[Rows, list[Tensor]]:
        return part, read_batch(arrays, part, device)

    each = map if device == "cpu" else ahead  # the processor's cores are at work as it is
    return iter(each(read, parts))


def read_batch(arrays: Arrays, rows: Rows, device: str) -> list[Tensor]:
    """Read these images' features (B, C, H, W) per tap, float32, channels-last."""
    tensors = (torch.from_numpy(np.ascontiguousarray(a[rows], np.float32)) for a in arrays)
    return [t.to(device).contiguous(memory_format=torch.channels_last) for t in tensors]


def one_copy_each(
    augmented: Arrays, good: Arrays, seed: int
) -> tuple[Arrays, Callable[[Rows], Rows]]:
    """Say what an epoch reads, and which of its rows stand for images: a copy of each, drawn anew.

    The draws have a generator of their own, so that they change neither batches nor weights.

    Args:
        augmented: features of K copies of each image, (N·K, C, H, W) per tap, an image's in a
            row; empty: the images stand for themselves.
        good: features of the N images.
        seed: of the draws.

    >>> good, augmented = [np.zeros((2, 1, 1, 1))], [np.zeros((6, 1, 1, 1))]
    >>> _, drawn = one_copy_each(augmented, good, seed=0)
    >>> (drawn(np.array([1, 0])) // 3).tolist()
    [1, 0]
    """
    if not augmented:
        return good, lambda order: order
    each = len(augmented[0]) // len(good[0])
    generator = np.random.default_rng([seed, each])
    return augmented, lambda order: order * each + generator.integers(each, size=len(order))

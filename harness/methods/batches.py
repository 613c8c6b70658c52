"""Cached features, read in parts."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.methods.contract import Arrays

BATCH = 16  # images read at a time


def batches(arrays: Arrays, *, device: str) -> Iterator[tuple[slice, list[Tensor]]]:
    """Which images, and their features (B, C, H, W) per tap, float32, on the device."""
    for start in range(0, len(arrays[0]), BATCH):
        part = slice(start, min(start + BATCH, len(arrays[0])))
        yield part, [torch.from_numpy(np.array(a[part], np.float32)).to(device) for a in arrays]

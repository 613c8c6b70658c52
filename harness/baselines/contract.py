"""What a compared method is to the harness, FastFlow being one of them.

A method is built for the shapes at the taps, learns from the cached features of good images, and
scores features. It is *trained* by gradient in the shared training core (``losses``), or
*fitted* once (``fit``); nothing else about it is known outside its own file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Sequence[NDArray[np.floating]]  # features of N images, (N, C, H, W) per tap


@dataclass(frozen=True)
class Scores:
    """What a method says of B images.

    Attributes:
        taps: per map ``(energy, log_det)``, each (B, h, w), float32; larger energy = more
            anomalous. Empty: the method does not localise.
        images: the method's own image scores, (B,), float32; None: taken from the map.
    """

    taps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    images: Tensor | None = None


class Method(nn.Module):
    """The contract; a method overrides what it has."""

    trained = False  # by gradient; else fitted once

    def losses(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Losses of a batch, (B, C, H, W) per tap, to be minimised one after the other.

        The parameters are updated between two of them, so each is computed when it is asked for.
        """
        raise NotImplementedError

    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """Learn what is not learnt by gradient; for a trained method, after its training.

        Args:
            train: features of the good images, memory-mapped: read in parts.
            device: where to compute; the method's buffers end up there.
        """

    def fill(self, images: int) -> None:
        """Stand as if fitted on this many images, with arbitrary content.

        What it costs to score, in time, memory and arithmetic, is then known without any data;
        works on the meta device too.
        """

    @torch.inference_mode()
    def scores(self, features: Sequence[Tensor]) -> Scores:
        """Scores of a batch, features (B, C, H, W) per tap."""
        raise NotImplementedError

    @property
    def bank_bytes(self) -> int:
        """Bytes kept of the good images (a memory bank, Gaussians); 0 for parameters alone."""
        return 0

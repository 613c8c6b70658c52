"""What a method is to the harness: features in, energies out.

A method is built for the shapes at the taps, learns from the cached features of good images, and
scores features. It is *trained* by gradient in the shared training core (``losses``), or
*fitted* once (``fit``); nothing else about it is known outside its own file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Sequence[NDArray[np.floating]]  # features of N images, (N, C, H, W) per tap


@dataclass(frozen=True)
class Energies:
    """Hold what a method says of B images.

    Attributes:
        taps: per map ``(energy, log_det)``, each (B, h, w), float32; larger energy = more
            anomalous. Empty: the method does not localise.
        images: the method's own image scores, (B,), float32; None: taken from the map.

    >>> Energies([(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))]).isfinite()
    True
    """

    taps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    images: Tensor | None = None

    def __len__(self) -> int:
        """Count the images."""
        every = [e for e, _ in self.taps] + ([] if self.images is None else [self.images])
        return len(every[0]) if every else 0

    def rows(self, which: slice | list[int]) -> Self:
        """Take those of some of the images."""
        images = None if self.images is None else self.images[which]
        return type(self)([(e[which], j[which]) for e, j in self.taps], images)

    def cpu(self) -> Self:
        """Copy them to the CPU."""
        images = None if self.images is None else self.images.cpu()
        return type(self)([(e.cpu(), j.cpu()) for e, j in self.taps], images)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Join those of several batches."""
        taps = zip(*(p.taps for p in parts), strict=True)
        images = [p.images for p in parts if p.images is not None]
        return cls(
            [(torch.cat([e for e, _ in t]), torch.cat([j for _, j in t])) for t in taps],
            torch.cat(images) if images else None,
        )

    def equal(self, other: Self) -> bool:
        """Tell whether others are the same, bit for bit."""
        mine, theirs = (
            [t for tap in e.taps for t in tap] + ([] if e.images is None else [e.images])
            for e in (self, other)
        )
        return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))

    def isfinite(self) -> bool:
        """Tell whether every energy, log-determinant and image score is."""
        images = [] if self.images is None else [self.images]
        tensors = [t for tap in self.taps for t in tap] + images
        return all(bool(t.isfinite().all()) for t in tensors)


class Method(nn.Module):
    """Keep the contract of a method, which overrides what it has.

    Its constructor takes the shapes (C, H, W) at the taps, and its own fields of a variant by
    their names (see :class:`harness.experiment.choices.MethodEntry`).

    >>> Method().bank_bytes, Method().count_parameters()
    (0, {'flow': 0, 'norm': 0, 'frozen': 0})
    """

    trained = False  # by gradient; else fitted once
    # Its energies are one graph, whatever the number of images: of B it asks by .shape[0], as len
    # would fix it.
    traceable = True

    def survey(self, features: Iterable[Sequence[Tensor]]) -> None:
        """Before anything else, look at all training images, if it needs to.

        Args:
            features: batches of them, (B, C, H, W) per tap; read only as far as it is asked for.
        """

    def initialise(self, features: Sequence[Tensor]) -> None:
        """Before training, take from a first batch what is initialised from data."""

    def losses(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield losses of a batch, (B, C, H, W) per tap, to be minimised one after the other.

        The parameters are updated between two of them, so each is computed when it is asked for.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Give the parameters in groups as torch's optimisers take them.

        A group without ``lr`` learns at the training's rate; the schedule is every group's. One
        with ``alone_every`` n above 0 is updated alone in every n-th step, at its own rate, and
        with all others in the rest, at the training's.
        """
        return [{"params": list(self.parameters())}]

    def step_share(self, features: Sequence[Tensor]) -> float:
        """Tell what a training step looks at, as a share of what scoring these features does."""
        return 1.0

    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """Learn what is not learnt by gradient; for a trained method, after its training.

        Args:
            train: features of the good images, memory-mapped: read in parts.
            device: where to compute; the method's buffers end up there.
        """

    def fit_bytes(self, images: int) -> int:
        """Count the bytes that fitting on this many images holds beside the bank and a batch."""
        return 0

    def fill(self, images: int) -> None:
        """Stand as if fitted on this many images, with arbitrary content.

        What it costs to score, in time, memory and arithmetic, is then known without any data;
        works on the meta device too.
        """

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """Score a batch, features (B, C, H, W) per tap."""
        raise NotImplementedError

    @property
    def bank_bytes(self) -> int:
        """Count the bytes kept of the good images (a bank, Gaussians); 0 for parameters alone."""
        return 0

    def before_flow(self) -> nn.Module:
        """Give what is trained before the flow, which the counts show apart."""
        return nn.Identity()

    def count_parameters(self) -> dict[str, int]:
        """Count parameters by kind; the paper's "A.d. params" are ``flow`` and ``norm``.

        A memory bank is none of them: see :attr:`bank_bytes`.

        Returns:
            ``flow`` and ``norm`` (before the flow): trainable. ``frozen``: the permutations'
            indices, drawn once.
        """
        norm = count_trainable(self.before_flow())
        frozen = sum(getattr(m, "frozen", 0) for m in self.modules())
        return {"flow": count_trainable(self) - norm, "norm": norm, "frozen": frozen}


def count_trainable(module: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)

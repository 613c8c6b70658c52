"""FastFlow: one 2-D flow per tap of a frozen backbone (arXiv 2111.07677, section 3).

The likelihood is that of the (normalised) features; the norm before the flow is part of the
feature extraction, so its Jacobian is not counted, as in every reproduction.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.methods.contract import Energies, Method
from harness.methods.flow.affine import ActNorm
from harness.methods.flow.base import BASES
from harness.methods.flow.compiled import can_run_compiled, run_chain_compiled
from harness.methods.flow.position import positional_encoding
from harness.methods.flow.step import FlowStep, make_flow, run_chain
from harness.methods.norms import NORMS, Surveyed, survey

LOSSES: dict[str, Callable[[Tensor, int], Tensor]] = {  # of a tap's nll, and its dimensions
    "sum": lambda nll, dims: nll,  # gathierry
    "mean": lambda nll, dims: nll / dims,  # lelexx
}


class FastFlow(Method):
    """Send the features of every tap through a norm and a flow of its own.

    Args:
        shapes: (C, H, W) at each tap.
        norm: before the flow: ``none``, ``layer`` (over C, H, W, without affine),
            ``layer-affine`` (gathierry's reproduction), ``batch``; ``standard`` and ``whiten``
            (channels of the training images: each standardised; uncorrelated too).
        loss: the reduction of :meth:`nll` that :meth:`losses` gives.
        base: of every flow: the ``standard`` normal distribution, or one with a mean and a
            deviation of every channel, ``learned`` at a rate of ``base_learning_rate``.
        base_learning_rate: see there.
        base_every: n lets every n-th step update a learned base alone, at its rate, and all
            others with the flow, at the training's (AltUB); 0: always with the flow, at its own.
        position_channels: of a sinusoidal code of the position, which every subnet sees beside
            the features, as in CFLOW-AD; a multiple of 4; 0: none.
        flow: the keywords of :func:`harness.methods.flow.step.make_flow`.

    >>> model = FastFlow([(4, 8, 8)], norm="layer", flow_steps=2, kernels=(3, 1))
    >>> model.energies([torch.zeros(1, 4, 8, 8)]).taps[0][0].shape
    torch.Size([1, 8, 8])
    """

    trained = True

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        *,
        norm: str,
        loss: str = "sum",
        base: str = "standard",
        base_learning_rate: float = 0.05,
        base_every: int = 0,
        position_channels: int = 0,
        **flow: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.loss = loss
        self.of_base = {"lr": base_learning_rate, "alone_every": base_every}
        self.norms = nn.ModuleList(NORMS[norm](*shape) for shape in shapes)
        self.flows = nn.ModuleList(
            make_flow(*shape, condition=position_channels, **flow) for shape in shapes
        )
        for i, (_, *size) in enumerate(shapes if position_channels else ()):
            code = positional_encoding(position_channels, *size)
            self.register_buffer(f"position_{i}", code, persistent=False)
        self.bases = nn.ModuleList(BASES[base](shape[0]) for shape in shapes)

    def forward(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Give ``(z, log_det)`` of every tap: (B, C, H, W), and per position (B, H, W).

        With a learned base z is standardised by it, and log_det has its deviations.
        """
        taps = zip(self.norms, self.flows, self.bases, features, strict=True)
        return [
            base(*_run(cast(Iterable[FlowStep], flow), norm(x), self._position(i, x)))
            for i, (norm, flow, base, x) in enumerate(taps)
        ]

    def nll(self, features: Sequence[Tensor], *, reduction: str) -> Tensor:
        """Compute the negative log-likelihood of every image, (B,), in nats.

        The constant ½·log(2π) per dimension is left out, as in the reproductions.

        Args:
            features: (B, C, H, W) per tap.
            reduction: ``sum`` over dimensions and taps (gathierry), or ``mean`` over the
                dimensions of each tap, summed over taps (lelexx).
        """
        total = torch.zeros((), device=features[0].device)
        for z, log_det in self(features):
            nll = (_HalfSquares.apply(z.float()) - log_det.float()).sum(dim=(1, 2))
            total = total + LOSSES[reduction](nll, math.prod(z.shape[1:]))
        return total

    def losses(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the mean negative log-likelihood of the batch, alone."""
        yield self.nll(features, reduction=self.loss).mean()

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """Give per tap the energy ½·mean_c z², and log_det / C, each (B, H, W), float32."""
        return Energies(
            [
                (_HalfSquares.apply(z.float()) / z.shape[1], log_det.float() / z.shape[1])
                for z, log_det in self(features)
            ]
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See :class:`Method`: a learned base has a rate of its own, and perhaps steps."""
        if not (own := list(self.bases.parameters())):
            return super().parameter_groups()
        of_base = set(map(id, own))
        others = [p for p in self.parameters() if id(p) not in of_base]
        return [{"params": others}, {"params": own, **self.of_base}]

    def before_flow(self) -> nn.Module:
        """See :class:`Method`."""
        return self.norms

    def survey(self, features: Iterable[Sequence[Tensor]]) -> None:
        """See :class:`Method`: for the norms that are made of all training images."""
        survey(list(self.norms), features)

    @property
    def bank_bytes(self) -> int:
        """See :class:`Method`."""
        return sum(norm.bank_bytes for norm in self.norms if isinstance(norm, Surveyed))

    @torch.no_grad()
    def initialise(self, features: Sequence[Tensor]) -> None:
        """Initialise data-dependent ActNorms from a batch, step after step."""
        if not any(isinstance(m, ActNorm) for m in self.modules()):
            return
        for i, (norm, flow, feature) in enumerate(
            zip(self.norms, self.flows, features, strict=True)
        ):
            x, position = norm(feature), self._position(i, feature)
            for step in cast(Iterable[FlowStep], flow):
                x = step.initialise(x, position)

    def _position(self, tap: int, x: Tensor) -> Tensor | None:
        """The code of a tap's positions for a batch x, (B, P, H, W), if there is one."""
        code = dict(self.named_buffers(recurse=False)).get(f"position_{tap}")
        return None if code is None else code.to(x.dtype).expand(x.shape[0], -1, -1, -1)


class _HalfSquares(torch.autograd.Function):
    """½·sum_c z², (B, H, W), of z (B, C, H, W), without a tensor of squares."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(z)
        norm: Tensor = torch.linalg.vector_norm(z, dim=1)
        return 0.5 * norm.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        (z,) = ctx.saved_tensors
        return grad[:, None] * cast(Tensor, z)


def _run(flow: Iterable[FlowStep], x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """The chain with its log-determinant per position, compiled where that can be."""
    compiled = can_run_compiled(flow, x)
    return run_chain_compiled(flow, x, c) if compiled else run_chain(flow, x, c)

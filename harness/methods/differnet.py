"""DifferNet: a flow on pooled features of three sizes (Rudolph et al. 2021, arXiv 2008.12577).

An image is seen at sizes S, S/2 and S/4 and turned several ways; the pooled features of the three
sizes, one vector per turned copy, go through one flow, and the image's score is the mean of z²
over its copies. It does not localise. Settings are those of the authors' code
(marco-rudolph/differnet): 8 two-sided coupling blocks, arctan clamp 3 (Eq. 2), fully connected
subnets with three hidden layers of 2048.

Deviations: the copies are turned by fixed, evenly spaced angles, so that they can be cached (the
authors draw an angle anew every time), and made smaller with antialiasing. The permutations are
drawn by the run's generator and come after each block, not before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from harness.methods.contract import Energies, Method
from harness.methods.flow.step import FlowStep, make_flow, run_chain


class DifferNet(Method):
    """Run one flow on the coarsest tap's pooled features.

    Args:
        shapes: (3C, V, 1) at each tap, V turned copies; the last tap is used, as in the paper.
        flow_steps: coupling blocks.
        hidden_channels: width of the subnets' three hidden layers.
        clamp_value: bound of the log-scale, in the form 0.636·c·arctan(./c).
        views_per_step: copies of an image in an optimiser step; all where there are fewer.
        generator: draws the permutations and the copies; None: torch's default.

    >>> model = DifferNet([(6, 4, 1)], flow_steps=1, hidden_channels=8)
    >>> model.energies([torch.zeros(2, 6, 4, 1)]).images.shape
    torch.Size([2])
    """

    trained = True

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        *,
        flow_steps: int = 8,
        hidden_channels: int = 2048,
        clamp_value: float = 3.0,
        views_per_step: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.views_per_step, self.generator = views_per_step, generator
        # A copy is a position to the flow, which with 1×1 kernels sees each alone.
        self.flow = make_flow(
            shapes[-1][0], 1, 1, flow_steps=flow_steps, kernels=(1,), coupling="two-sided",
            actnorm="none", clamp="atan-unit", clamp_value=clamp_value, subnet_scale=1.0,
            hidden_channels=hidden_channels, hidden_layers=3, generator=generator,
        )  # fmt: skip

    def step_share(self, features: Sequence[Tensor]) -> float:
        """See :class:`Method`: the copies that a step draws."""
        return min(1.0, self.views_per_step / features[-1].shape[2])

    def losses(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield one loss, of some copies of every image: the mean of Eq. 4, over C.

        Of held-out images all copies count, and nothing is drawn.
        """
        x = features[-1]
        images, channels, views, _ = x.shape
        if self.training:
            drawn = torch.rand(images, views, generator=self.generator, device="cpu")
            chosen = drawn.argsort(1)[:, : self.views_per_step].to(x.device)
            x = x.gather(2, chosen[:, None, :, None].expand(-1, channels, -1, -1))
        z, log_det = self._latent(x)
        yield (0.5 * z.float().square().sum(1) - log_det.float()).mean() / channels

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """Score images alone: the mean of z² over the copies and channels."""
        z, _ = self._latent(features[-1])
        return Energies(images=z.float().square().mean((1, 2, 3)))

    def _latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return run_chain(cast(Iterable[FlowStep], self.flow), x)

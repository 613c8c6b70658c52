"""CFLOW-AD: conditional flows on single feature vectors (Gudovskiy et al. 2022, arXiv 2107.12571).

One flow per tap maps the feature vector of one position to a Gaussian, given where the position
is. Settings are those of the authors' code (gudovskiy/cflow-ad): 8 coupling blocks of FrEIA's
AllInOneBlock, clamp 1.9, 128 channels of encoding, 256 vectors an optimiser step; the taps'
likelihoods are upsampled and summed, without smoothing, and an image scores its map's maximum.

Deviations: the permutations are hard, as in anomalib (the authors' code draws rotations; as many
parameters are trained). The authors divide the likelihood by its maximum over the *test* set;
here it is the maximum over the good training images.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.methods.batches import batches
from harness.methods.contract import Arrays, Energies, Method
from harness.methods.flow.position import positional_encoding
from harness.methods.flow.step import FlowStep, make_flow, run_chain


class CFLOW(Method):
    """Run a conditional flow for every tap; scored with the rule ``likelihood``, taps summed.

    Args:
        shapes: (C, H, W) at each tap.
        flow_steps: coupling blocks a flow.
        clamp_value: bound of the log-scale, in the form c·tanh.
        condition: channels of the positional encoding; a multiple of 4.
        fibers: feature vectors an optimiser step.
        generator: draws the permutations and the order of the vectors; None: torch's default.

    >>> model = CFLOW([(8, 4, 4)], flow_steps=1, condition=8)
    >>> model.energies([torch.zeros(2, 8, 4, 4)]).taps[0][0].shape
    torch.Size([2, 4, 4])
    """

    trained = True
    largest: Tensor

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        *,
        flow_steps: int = 8,
        clamp_value: float = 1.9,
        condition: int = 128,
        fibers: int = 256,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.fibers, self.generator = fibers, generator
        self.flows = nn.ModuleList(
            make_flow(
                channels, 1, 1, flow_steps=flow_steps, kernels=(1,), condition=condition,
                hidden_ratio=2.0, clamp="tanh", clamp_value=clamp_value, generator=generator,
            )
            for channels, _, _ in shapes
        )  # fmt: skip
        for i, (_, height, width) in enumerate(shapes):
            code = positional_encoding(condition, height, width)
            self.register_buffer(f"encoding_{i}", code, persistent=False)
        self.register_buffer("largest", torch.zeros(len(shapes)))

    def losses(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Mean of -log sigmoid(log p / C) (the authors' code) over random vectors of a tap.

        All positions of the batch in random order, ``fibers`` at a time; what does not fill a
        last chunk is left out, as in the authors' code.
        """
        for (flow, code), x in zip(self._taps(), features, strict=True):
            positions = code[0].flatten(1).T
            vectors = x.permute(0, 2, 3, 1).flatten(0, 2)
            order = torch.arange(len(vectors))
            if self.training:  # held-out images draw nothing
                order = order[torch.randperm(len(order), generator=self.generator, device="cpu")]
            whole = max(1, len(order) // self.fibers) * self.fibers
            for rows in order[:whole].to(x.device).split(self.fibers):
                given = _row(positions[rows % len(positions)])
                energy, log_det = _per_channel(*run_chain(flow, _row(vectors[rows]), given))
                log_p = log_det - energy - 0.5 * math.log(2 * math.pi)
                yield -F.logsigmoid(log_p).mean()

    @torch.inference_mode()
    def fit(self, train: Arrays, *, device: str = "cpu") -> None:
        """Find the largest likelihood of a good position, tap by tap, once the flows are trained.

        The taps' likelihoods are summed: this says how much each weighs.
        """
        self.to(device).eval()
        self.largest.zero_()
        tops = []
        for _, batch in batches(train, device=device):
            tops.append(torch.stack([(j - e).amax() for e, j in self.energies(batch).taps]))
        self.largest.copy_(torch.stack(tops).amax(0))

    @torch.inference_mode()
    def energies(self, features: Sequence[Tensor]) -> Energies:
        """Energy ½·mean_c z², and log_det / C less the tap's largest log-likelihood."""
        taps = []
        for (flow, code), largest, x in zip(self._taps(), self.largest, features, strict=True):
            given = code.expand(x.shape[0], -1, -1, -1)
            energy, log_det = _per_channel(*run_chain(flow, x, given))
            taps.append((energy, log_det - largest))
        return Energies(taps=taps)

    def _taps(self) -> Iterator[tuple[Iterable[FlowStep], Tensor]]:
        for i, flow in enumerate(self.flows):
            yield cast(Iterable[FlowStep], flow), self.get_buffer(f"encoding_{i}")


def _row(vectors: Tensor) -> Tensor:
    """Vectors (N, C) as one image (1, C, 1, N): a 1×1 convolution is then one product."""
    return vectors.T[None, :, None]


def _per_channel(z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    """½·mean_c z² and log_det / C, each (B, H, W), float32."""
    return 0.5 * z.float().square().mean(1), log_det.float() / z.shape[1]

"""One 2-D normalizing flow: the FastFlow step and a FrEIA chain of them.

Source: FastFlow (arXiv 2111.07677), section 3.2, Eq. (3) and Fig. 2. Notation: x1, x2 are the
two halves of the channels, s and t the log-scale and shift that a subnet predicts for one half
from the other, J the log-determinant of the Jacobian, c a condition that the subnets see too.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import InvertibleModule
from torch import Tensor, nn

from harness.methods.flow.affine import AFFINES, ActNorm, Affine
from harness.methods.flow.subnet import make_subnet

CLAMPS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda a, c: a,
    "tanh": lambda a, c: c * torch.tanh(a),  # FrEIA 0.2's AllInOneBlock
    "tanh-unit": lambda a, c: c * torch.tanh(a / c),  # FrEIA since 2023: slope 1 at 0
    "atan": lambda a, c: c * 0.636 * torch.atan(a),  # FrEIA's GLOWCouplingBlock
    "atan-unit": lambda a, c: c * 0.636 * torch.atan(a / c),  # the same before 0.2; DifferNet
    "sigmoid": lambda a, c: c * (2 * torch.sigmoid(a) - 1),
}


class _Permute(torch.autograd.Function):
    """``x[:, index]``, whose gradient is a gather by the inverse: exact and deterministic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(index, inverse)
        return x.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        index, inverse = ctx.saved_tensors
        return _Permute.apply(grad, inverse, index), None, None


PERMUTATIONS: dict[str, Callable[[int, torch.Generator | None], Tensor]] = {
    "none": lambda channels, generator: torch.arange(channels),
    "random": lambda channels, generator: torch.randperm(channels, generator=generator),
    "reverse": lambda channels, generator: torch.arange(channels).flip(0),
}
COUPLINGS = {"one-sided": 1, "two-sided": 2}  # halves that a step transforms
COUPLING_FUNCTIONS = {"affine": 2, "additive": 1}  # numbers that a subnet predicts per channel


class FlowStep(InvertibleModule):
    r"""Take one flow step: coupling, per-channel affine, fixed channel permutation.

    .. math:: y_2 = x_2 \odot \exp(s(x_1)) + t(x_1), \quad y_1 = x_1

    An additive coupling has s = 0: it keeps the volume, and its subnet predicts t alone
    (NICE, arXiv 1410.8516; for the detection of anomalies arXiv 2510.09452).

    A two-sided step transforms the first half from the second before that, with a subnet of
    its own. With ``actnorm="data"`` the affine and the permutation come before the coupling
    (paper Fig. 2); otherwise after it, as in FrEIA's AllInOneBlock. Nothing else depends on
    ``coupling``.

    Args:
        dims_in: ``[(C, H, W)]``, FrEIA's convention; C of at least 2.
        dims_c: ``[(P, H, W)]``, the condition's, if the step has one.
        kernel: the subnets' kernel, odd.
        hidden_ratio: hidden channels as a share of the subnet's input channels.
        hidden_channels: hidden channels; takes the place of the ratio.
        hidden_layers: see :func:`make_subnet`.
        coupling: ``one-sided`` or ``two-sided``.
        coupling_function: ``affine`` or ``additive``, for which the clamp means nothing.
        permutation: ``none``, ``random`` (drawn from ``generator``) or ``reverse``.
        actnorm: ``none``, ``affine`` (learned) or ``data`` (initialised from a batch).
        clamp: how s is bounded, a key of :data:`CLAMPS`.
        clamp_value: the bound of abs(s).
        subnet_scale: factor on the subnet's output (0.1 in AllInOneBlock, 1 in GLOW).
        init_gain: see :func:`make_subnet`.
        subnet_norm: see ``norm`` there.
        zero_last: see :func:`make_subnet`.
        generator: draws the permutation; None: torch's default generator.

    >>> step = FlowStep([(4, 8, 8)])
    >>> x = torch.randn(1, 4, 8, 8)
    >>> y, log_det = step.transform(x)
    >>> torch.allclose(step.transform(y, rev=True)[0], x, atol=1e-5)
    True
    """

    perm: Tensor
    perm_inverse: Tensor

    def __init__(
        self,
        dims_in: Sequence[tuple[int, ...]],
        dims_c: Sequence[tuple[int, ...]] = (),
        *,
        kernel: int = 3,
        hidden_ratio: float = 1.0,
        hidden_channels: int | None = None,
        hidden_layers: int = 1,
        coupling: str = "one-sided",
        coupling_function: str = "affine",
        permutation: str = "random",
        actnorm: str = "affine",
        clamp: str = "tanh",
        clamp_value: float = 2.0,
        subnet_scale: float = 0.1,
        init_gain: float = 0.0,
        subnet_norm: str = "none",
        zero_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(dims_in, dims_c)
        channels = dims_in[0][0]
        assert channels >= 2, f"a coupling needs at least 2 channels; got {channels}"
        assert clamp in CLAMPS, clamp
        self.halves = (channels - channels // 2, channels // 2)
        self.clamp, self.clamp_value, self.subnet_scale = clamp, clamp_value, subnet_scale
        self.affine_first = actnorm == "data"
        self.predicted = COUPLING_FUNCTIONS[coupling_function]

        def subnet(given: int, changed: int) -> nn.Sequential:
            given += sum(c[0] for c in dims_c)
            hidden = hidden_channels or max(1, int(hidden_ratio * given))
            return make_subnet(
                given, self.predicted * changed, kernel=kernel, hidden=hidden,
                hidden_layers=hidden_layers, init_gain=init_gain, norm=subnet_norm,
                zero_last=zero_last,
            )  # fmt: skip

        first, second = self.halves
        self.subnet = subnet(first, second)
        self.subnet_back: nn.Module | None = None
        if COUPLINGS[coupling] == 2:
            # Drawn apart, so that a seed's other weights are those of the one-sided flow.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**62, (), device="cpu")))
                self.subnet_back = subnet(second, first)
        affine = AFFINES[actnorm]
        self.affine: Affine | None = affine(channels) if affine else None
        perm = PERMUTATIONS[permutation](channels, generator)
        self.permutes = permutation != "none"
        self.frozen = len(perm) if self.permutes else 0
        self.register_buffer("perm", perm)
        self.register_buffer("perm_inverse", torch.argsort(perm))

    def forward(
        self,
        x_or_z: Iterable[Tensor],
        c: Iterable[Tensor] | None = None,
        rev: bool = False,  # noqa: FBT001, FBT002 -- FrEIA's signature
        jac: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[tuple[Tensor], Tensor]:
        """Keep FrEIA's contract: ``((y,), log_det)`` with y (B, C, H, W) and log_det (B,)."""
        (x,) = x_or_z
        y, log_det = self.transform(x, *(c or ()), rev=rev)
        return (y,), log_det.sum(dim=(1, 2))

    def transform(
        self, x: Tensor, c: Tensor | None = None, *, rev: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Take the step, with its log-determinant per position.

        Args:
            x: (B, C, H, W).
            c: the condition, (B, P, H, W).
            rev: the inverse direction.

        Returns:
            y (B, C, H, W), and (B, H, W) whose sum over the positions is the log-determinant.
        """
        parts = [self._coupling, self.affine_permute]
        if self.affine_first != rev:
            parts.reverse()
        log_det: Tensor | float = 0.0
        for part in parts:
            x, j = part(x, c, rev=rev)
            log_det = log_det + j
        return x, cast(Tensor, log_det)

    @torch.no_grad()
    def initialise(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Initialise a data-dependent affine from the batch x; returns the step's output."""
        if isinstance(self.affine, ActNorm):
            self.affine.initialise(x)
        return self.transform(x, c)[0]

    def _couple(
        self, subnet: nn.Module, given: Tensor, changed: Tensor, c: Tensor | None, *, rev: bool
    ) -> tuple[Tensor, Tensor]:
        a = subnet(given if c is None else torch.cat((given, c), dim=1)) * self.subnet_scale
        if self.predicted == 1:
            unchanged = changed.new_zeros(changed.shape[0], *changed.shape[2:])
            return (changed - a if rev else changed + a), unchanged
        s, t = a.split(changed.shape[1], dim=1)
        s = CLAMPS[self.clamp](s, self.clamp_value)
        if rev:
            return (changed - t) * torch.exp(-s), -s.sum(1)
        return changed * torch.exp(s) + t, s.sum(1)

    def _coupling(self, x: Tensor, c: Tensor | None, *, rev: bool) -> tuple[Tensor, Tensor]:
        x1, x2 = x.split(self.halves, dim=1)
        back = self.subnet_back
        if back is None:
            x2, j = self._couple(self.subnet, x1, x2, c, rev=rev)
        elif rev:
            x2, j2 = self._couple(self.subnet, x1, x2, c, rev=True)
            x1, j1 = self._couple(back, x2, x1, c, rev=True)
            j = j1 + j2
        else:
            x1, j1 = self._couple(back, x2, x1, c, rev=False)
            x2, j2 = self._couple(self.subnet, x1, x2, c, rev=False)
            j = j1 + j2
        return torch.cat((x1, x2), dim=1), j

    def affine_permute(
        self, x: Tensor, c: Tensor | None = None, *, rev: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Apply affine and permutation, with their log-determinant (B, H, W)."""
        if rev and self.permutes:
            x = cast(Tensor, _Permute.apply(x, self.perm_inverse, self.perm))
        j = x.new_zeros(1, 1, 1)
        if self.affine is not None:
            scale, shift, log_scale = self.affine.coefficients()
            x = (x - shift) / scale if rev else x * scale + shift
            j = (-log_scale if rev else log_scale).sum(1)
        if not rev and self.permutes:
            x = cast(Tensor, _Permute.apply(x, self.perm, self.perm_inverse))
        return x, j.expand(x.shape[0], x.shape[2], x.shape[3])

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Give the shape, which does not change."""
        return input_dims


def make_flow(
    channels: int,
    height: int,
    width: int,
    *,
    flow_steps: int,
    kernels: Sequence[int],
    condition: int = 0,
    **step: Any,  # noqa: ANN401 -- FlowStep's own keywords; an unknown one is its TypeError
) -> SequenceINN:
    """Make a FrEIA chain of flow steps with cycled kernels: ``(3, 1)`` alternates 3×3 and 1×1.

    ``condition``: channels of the condition, given to every step; 0: none.
    """
    flow = SequenceINN(channels, height, width)
    if condition:
        step |= {"cond": 0, "cond_shape": (condition, height, width)}
    for i in range(flow_steps):
        flow.append(FlowStep, kernel=kernels[i % len(kernels)], **step)
    return flow


def run_chain(
    flow: Iterable[FlowStep], x: Tensor, c: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run a chain with its log-determinant per position, which FrEIA's own forward sums up.

    Args:
        flow: of :class:`FlowStep`.
        x: (B, C, H, W).
        c: the condition, (B, P, H, W).

    Returns:
        z (B, C, H, W), and the log-determinant (B, H, W).
    """
    log_det = x.new_zeros(x.shape[0], *x.shape[2:])
    for step in flow:
        x, j = step.transform(x, c)
        log_det = log_det + j
    return x, log_det

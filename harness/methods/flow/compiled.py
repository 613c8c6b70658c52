r"""The elementwise work of a coupling in one pass over memory, forward and backward.

Between two convolutions a flow scales, shifts, clamps, exponentiates, joins and permutes; pass
by pass through memory that takes longer than the convolutions. With subnet output
:math:`a = (a_s, a_t)` and its gain g this module computes, for channels-last tensors,

.. math:: s = \mathrm{clamp}(g\,a_s), \quad v = x_2 \odot e^s + g\,a_t, \quad
          y = P\,(\gamma \odot (x_1, v) + \delta)

with the per-channel affine (γ, δ) and the permutation P that follow the coupling, and hands the
next subnet its half of y. The code is coupling.cpp, compiled once for this machine by its own
C++ compiler; without one, everything runs by the plain steps of step.py. The two differ by
rounding: float32 energies by at most 1e-5.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.files import cache_folder, scratch
from harness.methods.flow.affine import ActNorm, FixedAffine, GlobalAffine
from harness.methods.flow.step import FlowStep

SOURCE = Path(__file__).with_name("coupling.cpp")
FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno",
    "-fno-trapping-math", "-fopenmp", "-std=c++17", "-shared", "-fPIC",
)  # fmt: skip
SUFFIXES = {
    (torch.float32, torch.float32): "float32",
    (torch.float32, torch.bfloat16): "bfloat16",
    (torch.float64, torch.float64): "float64",
}  # of the flow and of its subnets → suffix in coupling.cpp
# Clamp → its number in coupling.cpp, which has these alone.
CODES = {"none": 0, "tanh": 1, "tanh-unit": 2, "atan": 3, "atan-unit": 4, "sigmoid": 5}


class _Stage(ctypes.Structure):
    """What a pass is told beside its tensors; the same layout in coupling.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (
            "rows", "channels", "start", "width", "given_start", "given_width", "clamp", "threads",
        )),
        ("bound", ctypes.c_double), ("gain", ctypes.c_double),
        ("perm", ctypes.c_void_p), ("inverse", ctypes.c_void_p),
    )  # fmt: skip


_Told = tuple[_Stage, tuple[Tensor, Tensor]]  # with what it points to, kept alive


@dataclass(frozen=True)
class Coupling:
    """Describe one coupling of a chain and what follows it up to the next.

    Attributes:
        step: whose clamp and gain are used.
        subnet: predicts a from the given half.
        given: first channel and number of channels that the subnet sees.
        changed: the same of the channels that change.
        after: the step whose affine and permutation follow; None: neither.
    """

    step: FlowStep
    subnet: nn.Module
    given: tuple[int, int]
    changed: tuple[int, int]
    after: FlowStep | None


def couplings(steps: Iterable[FlowStep]) -> Iterator[Coupling]:
    """Yield the chain's couplings in order, without an affine before the first."""
    steps = list(steps)
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        first, second = step.halves
        low, high = (0, first), (first, second)
        if step.subnet_back is not None:
            yield Coupling(step, step.subnet_back, given=high, changed=low, after=None)
        after = following if step.affine_first else step
        yield Coupling(step, step.subnet, given=low, changed=high, after=after)


def can_run_compiled(steps: Iterable[FlowStep], x: Tensor) -> bool:
    """Tell whether the compiled pass takes x (B, C, H, W) through these steps.

    It does by number type and device, where there is a compiler, and only through the steps that
    it was written for: a subclass, another clamp or an additive coupling is for the plain steps.
    There is no least size: measured from 256 numbers up, it was never slower than plain steps.
    Nor does it where torch writes down a graph, which cannot see into it.
    """
    if torch.compiler.is_compiling():
        return False
    fits = x.device.type == "cpu" and (x.dtype, _subnet_dtype(x)) in SUFFIXES
    return fits and library() is not None and all(map(_is_known, steps))


def _is_known(step: FlowStep) -> bool:
    affine = step.affine is None or type(step.affine) in (ActNorm, GlobalAffine, FixedAffine)
    coupling = step.predicted == 2 and step.clamp in CODES  # log-scale and shift of a channel
    return type(step) is FlowStep and coupling and affine


def run_chain_compiled(
    steps: Iterable[FlowStep], x: Tensor, c: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the chain z = f(x), (B, C, H, W), with its log-determinant per position, (B, H, W).

    Every subnet sees the condition c, (B, P, H, W), beside its half, if there is one.
    """
    chain = list(couplings(steps))
    log_det = x.new_zeros(x.shape[0], *x.shape[2:])
    if chain[0].step.affine_first:
        x, j = chain[0].step.affine_permute(x)
        log_det = log_det + j
    original, x = x, x.contiguous(memory_format=torch.channels_last)
    start, width = chain[0].given
    given: Tensor | None = x.narrow(1, start, width).to(_subnet_dtype(x))
    given = cast(Tensor, given).contiguous(memory_format=torch.channels_last)
    for coupling, following in zip(chain, [*chain[1:], None], strict=True):
        a = _subnet(coupling.subnet, cast(Tensor, given), c)
        scale, shift, log_scale = _affine(coupling.after, x)
        passed = following.given if following else (0, 0)
        reuse = not torch.is_grad_enabled() and x is not original
        if torch.is_grad_enabled():
            x, given, j = _Pass.apply(x, a, scale, shift, coupling, passed)
        else:
            x, given, j = _forward(x, a, scale, shift, _stage(x, coupling, passed), reuse=reuse)
        log_det = log_det + j + log_scale
    return x, log_det


def _affine(step: FlowStep | None, x: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """Scale and shift, (C,) each, and the log-determinant of the scale at a position."""
    if step is None or step.affine is None:
        return x.new_ones(x.shape[1]), x.new_zeros(x.shape[1]), 0.0
    scale, shift, log_scale = step.affine.coefficients()
    return scale.flatten(), shift.flatten(), log_scale.sum()


def _subnet(subnet: nn.Module, given: Tensor, c: Tensor | None) -> Tensor:
    if c is not None:
        given = torch.cat((given, c.to(given.dtype)), dim=1)
    return cast(Tensor, subnet(given)).contiguous(memory_format=torch.channels_last)


def _subnet_dtype(x: Tensor) -> torch.dtype:
    enabled = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if enabled else x.dtype


class _Pass(torch.autograd.Function):
    """(x, a) → (y, the next subnet's half of y, log-determinant per position)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        a: Tensor,
        scale: Tensor,
        shift: Tensor,
        coupling: Coupling,
        passed: tuple[int, int],
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        ctx.stage = _stage(x, coupling, passed)
        ctx.save_for_backward(x, a, scale)
        ctx.set_materialize_grads(False)
        return _forward(x, a, scale, shift, ctx.stage, reuse=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, a, scale = ctx.saved_tensors
        dy, dgiven, dlog_det = grads
        dy = torch.zeros_like(x) if dy is None else _dense(dy)
        dgiven = None if dgiven is None else _dense(dgiven)
        dlog_det = x.new_zeros(len(x), *x.shape[2:]) if dlog_det is None else dlog_det.contiguous()
        dx, da = torch.empty_like(x), torch.empty_like(a)
        dscale, dshift = torch.empty_like(scale), torch.empty_like(scale)
        outputs = (dx, da, dscale, dshift)
        _call(
            "backward",
            SUFFIXES[x.dtype, a.dtype],
            ctx.stage,
            x,
            a,
            scale,
            dy,
            dgiven,
            dlog_det,
            *outputs,
        )
        return dx, da, dscale, dshift, None, None


def _forward(
    x: Tensor, a: Tensor, scale: Tensor, shift: Tensor, stage: _Told, *, reuse: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Y in x's own memory where that may be reused, the next subnet's half, the log-det."""
    batch, _, *size = x.shape
    y = x if reuse else torch.empty_like(x)
    given = None
    if width := stage[0].given_width:
        layout = torch.channels_last
        given = torch.empty((batch, width, *size), dtype=a.dtype, memory_format=layout)
    log_det = x.new_empty(batch, *size)
    name = SUFFIXES[x.dtype, a.dtype]
    _call("forward", name, stage, x, a, scale.contiguous(), shift, y, given, log_det)
    return y, given, log_det


def _stage(x: Tensor, coupling: Coupling, passed: tuple[int, int]) -> _Told:
    step, after = coupling.step, coupling.after
    channels = x.shape[1]
    if after is None:
        perm = inverse = torch.arange(channels)
    else:
        perm, inverse = after.perm, after.perm_inverse
    stage = _Stage(
        x.numel() // channels, channels, *coupling.changed, *passed,
        CODES[step.clamp], torch.get_num_threads(),
        step.clamp_value, step.subnet_scale, perm.data_ptr(), inverse.data_ptr(),
    )  # fmt: skip
    return stage, (perm, inverse)


def _call(direction: str, name: str, stage: _Told, *tensors: Tensor | None) -> None:
    pointers = (None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors)
    if getattr(library(), f"{direction}_{name}")(ctypes.byref(stage[0]), *pointers):
        raise ValueError(f"clamp number {stage[0].clamp}: expected one of coupling.cpp's")


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def library() -> ctypes.CDLL | None:
    """Give the compiled passes; None where :func:`why_not` says why there are none."""
    found = _library()
    return None if isinstance(found, str) else found


def why_not() -> str:
    """Say why there are no compiled passes on this machine; empty where there are."""
    found = _library()
    return found if isinstance(found, str) else ""


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled passes, loaded; or why there are none."""
    if os.environ.get("HARNESS_NATIVE") == "0":
        return "HARNESS_NATIVE is 0"
    if not (compiler := _compiler()):
        return f"no C++ compiler (CXX, or c++): found no program {os.environ.get('CXX') or 'c++'}"
    source = SOURCE.read_bytes()
    facts = repr((FLAGS, compiler, platform.machine(), _processor(), torch.__version__))
    digest = hashlib.sha256(source + facts.encode()).hexdigest()[:16]
    path = cache_folder() / f"coupling-{digest}.so"
    try:
        if not path.is_file():
            with scratch(path.parent) as folder:
                made = folder / path.name
                subprocess.run(
                    [*compiler, *FLAGS, str(SOURCE), "-o", str(made)],
                    check=True, capture_output=True, timeout=300,
                )  # fmt: skip
                made.replace(path)  # whole or not at all, also beside other processes
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        first = next((line for line in said if "error" in line), said[0])
        return f"{' '.join(compiler)} (CXX, or c++) failed: {first}"
    except subprocess.TimeoutExpired:
        return f"{' '.join(compiler)} (CXX, or c++) took more than 300 s"
    except OSError as error:
        return f"cannot be kept in {path.parent} (XDG_CACHE_HOME, or HOME): {error}"


def _compiler() -> list[str]:
    """The C++ compiler with its arguments, as in ``CXX="ccache g++"``; empty where none is."""
    given = os.environ.get("CXX") or "c++"
    if program := shutil.which(given):  # its path may hold a space
        return [program]
    try:
        program, *arguments = shlex.split(given)
    except ValueError:  # nothing but spaces, or a quote that is not closed
        return []
    found = shutil.which(program)
    return [found, *arguments] if found else []


def _processor() -> str:
    """What -march=native depends on, so that machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")

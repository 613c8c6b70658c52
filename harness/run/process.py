"""What a process that runs variants is set to, and the memory that it takes."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.utils.deterministic
from torch import nn

MALLOPT = {-4: 0, -1: -1, -8: 1}  # glibc's M_MMAP_MAX, M_TRIM_THRESHOLD: never; M_ARENA_MAX


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates next.

    glibc hands every large tensor back to the system when it is freed, and a training step that
    asks for it anew has it zeroed page by page: a tenth of the step's time.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        for option, value in MALLOPT.items():
            ctypes.CDLL(None).mallopt(option, value)


def give_back_memory() -> None:
    """Give back what :func:`keep_memory` kept, and what torch keeps of an accelerator.

    What runs next may need far less, or need it in another process.
    """
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def be_deterministic() -> None:
    """Let torch take deterministic algorithms alone."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may vary
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # By default that also fills every new tensor with NaN: a tenth of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_arithmetic(*, tf32: bool) -> None:
    """Let float32 be float32 on an accelerator too; or TF32, where that is asked for.

    Torch's own default is TF32 for convolutions and float32 for matrix products: TF32 keeps 10 of
    the 23 bits behind the point. The processor knows no TF32.
    """
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32


@contextmanager
def arithmetic_inside(*, tf32: bool) -> Iterator[None]:
    """Take :func:`set_arithmetic` back at the end."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    set_arithmetic(tf32=tf32)
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def generators_of(module: nn.Module) -> list[torch.Generator]:
    """List the generators that a module and its parts keep, each once."""
    held = (g for m in module.modules() for g in vars(m).values())
    return list({id(g): g for g in held if isinstance(g, torch.Generator)}.values())


@contextmanager
def draws_apart(module: nn.Module, *, seed: int, device: str) -> Iterator[None]:
    """Let what is drawn inside depend on the seed alone, and leave every generator as it was.

    Those are torch's own, of the processor and the device, and those that the module keeps.
    """
    own = generators_of(module)
    states = [g.get_state() for g in own]
    try:
        with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
            torch.manual_seed(seed)
            for generator in own:
                generator.manual_seed(seed)
            yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)


def reset_peak_memory(device: str) -> None:
    """Count :func:`peak_memory` from now on, of a GPU that is the current one from now on.

    On the processor, what the allocator keeps of a worker's earlier runs counts again.
    """
    if device.startswith("cuda"):
        torch.cuda.init()  # a device by its number does not do it here
        if torch.device(device).index is not None:  # else what names none would be on the first
            torch.cuda.set_device(device)
        torch.cuda.empty_cache()  # of the run before; the one beside may need it
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory(device: str) -> int:
    """Count the most bytes held: of the accelerator where there is one, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(x.split()[1] for x in lines if x.startswith("VmHWM"))) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

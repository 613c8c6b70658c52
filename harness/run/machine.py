"""The machine: its cores and devices, and what a record says of it."""

import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import torch

import harness
from harness.errors import InputError
from harness.experiment.measured import Environment, Grown
from harness.experiment.settings import Settings
from harness.methods.flow import compiled

CGROUPS = {  # controllers → where they are, limit and use, in both versions of control groups
    "": (".", "memory.max", "memory.current"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
LIBRARIES = ("torch", "timm", "FrEIA", "numpy", "scikit-learn", "pillow")


def cores() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_device(name: str) -> str:
    """Resolve ``auto`` to a device of this machine, and check any other name.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()  # of `meta`, which holds no numbers, an error too
        if name != "cpu" and torch.device(name).type == "cpu":
            raise RuntimeError("there is one processor; cpu names it")  # torch takes cpu:99
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise InputError(
            f"--device: expected auto, cpu or a device of this machine; got {name} ({reason})"
        ) from None
    return name


def settle(settings: Settings) -> Settings:
    """Resolve the settings' devices, and see that they have the arithmetic that is asked for.

    Raises:
        InputError: there is no such device here, or TF32 is asked of one without it; of several,
            one is no GPU or named twice.
    """
    devices = [torch_device(name.strip()) for name in settings.devices]
    if 1 < len(devices) != len({d for d in devices if d.startswith("cuda:")}):
        raise InputError(
            "--device: expected one device, or several GPUs, each once, by their numbers, as in "
            f"cuda:0,cuda:1; got {settings.device}"
        )
    for device in devices:
        if settings.tf32 and not has_tf32(device):
            raise InputError(
                f"--tf32: expected an NVIDIA GPU of compute capability 8.0 or more; got {device} "
                f"({device_name(device)}); leave --tf32 out"
            )
    return replace(settings, device=",".join(devices))


def has_tf32(device: str) -> bool:
    """Tell whether a device can compute in TF32."""
    nvidia = device.startswith("cuda") and torch.version.cuda is not None
    return nvidia and torch.cuda.get_device_capability(device) >= (8, 0)


def arithmetic(device: str) -> str:
    """Name what this process computes in on a device, where a variant says float32.

    >>> arithmetic("cpu")
    'cpu float32'
    """
    kind = torch.device(device).type
    allowed = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return f"{kind} tf32" if kind == "cuda" and allowed else f"{kind} float32"


def runs_at_a_time(settings: Settings) -> int:
    """Count the runs that go side by side: one a core, at most 8; one on each accelerator."""
    first, *more = settings.devices
    return settings.jobs or (min(cores(), 8) if torch_device(first) == "cpu" else 1 + len(more))


def available_memory() -> int:
    """Count the bytes that may be taken now: of the machine, and within this process's group."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = [pages]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        kib = next(x.split()[1] for x in lines if x.startswith("MemAvailable"))
        found.append(1024 * int(kib))
    return min(found + group_memory())


def group_memory(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """List what is left of each limit of memory that binds this process: a job's, a container's.

    A batch system's limit is of a group far below the root, a container's of what it sees as root.

    Args:
        groups: where Linux lists the process's groups.
        root: where all groups are.
    """
    found: list[int] = []
    with suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in CGROUPS:
                continue
            below, limit, used = CGROUPS[controllers]
            own = PurePosixPath(path.removeprefix("/"))
            for group in (own, *own.parents):
                with suppress(OSError, ValueError):  # "max": no limit; or not to be seen from here
                    most, now = ((root / below / group / n).read_text() for n in (limit, used))
                    found.append(max(0, int(most) - int(now)))
    return found


def environment(device: str, threads: int, grown: Sequence[Grown] = ()) -> Environment:
    """Describe what a run runs on: versions, device, commit.

    Args:
        device: as in torch.
        threads: of the processor.
        grown: when they became how many, where they did.
    """
    return Environment(
        harness=harness.__version__,
        commit=git_commit(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        versions={name: version(name) for name in LIBRARIES},
        device=device,
        device_name=device_name(device),
        threads=max([threads, *(step[-1] for step in grown)]),
        grown=list(grown),
        compiled=runs_compiled(device),
        arithmetic=arithmetic(device),
    )


def runs_compiled(device: str) -> bool:
    """Tell whether flow steps run by the compiled pass there, where they can."""
    return torch.device(device).type == "cpu" and compiled.library() is not None


def device_name(device: str) -> str:
    """Find the accelerator's or processor's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")


@cache
def git_commit() -> str | None:
    """Find the commit that the harness runs from, with ``+`` where it was changed."""
    root = Path(harness.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *words: str) -> str:
    own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # a hook's repository
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, env=own
    )
    return done.stdout.strip()

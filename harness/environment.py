"""What a run ran on: versions, device, commit."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import harness
from harness import native

LIBRARIES = ("torch", "timm", "FrEIA", "numpy", "scikit-learn", "pillow")


def environment(device: str, threads: int) -> dict[str, Any]:
    """The block ``environment`` of a record."""
    return {
        "harness": harness.__version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in LIBRARIES},
        "device": device,
        "device_name": device_name(device),
        "threads": threads,
        "compiled": native.library() is not None,
    }


def device_name(device: str) -> str:
    """The accelerator's or processor's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")


@cache
def git_commit() -> str | None:
    """The commit of the checkout that the harness runs from, with ``+`` where it was changed."""
    root = Path(harness.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

"""The kernel that executes notebooks: this Python, whatever kernels and settings there are."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import Unicode

import harness
from harness.files import cache_folder


def own_kernel(folder: Path) -> type[AsyncKernelManager]:
    """Make the manager of a kernel of the Python that runs now, with this harness.

    Kernels named ``python3`` may be another Python's, and a person's settings of Jupyter,
    IPython and matplotlib are for working by hand; a report depends on neither.

    Args:
        folder: where the kernel keeps its files while it runs.
    """

    class OwnKernel(AsyncKernelManager):
        connection_file = Unicode(str(folder / "kernel.json"))

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                display_name="Python 3",
                language="python",
                env={name: value.replace("$", "$$") for name, value in _environment(folder)},
                metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
            )

    return OwnKernel


def _environment(folder: Path) -> list[tuple[str, str]]:
    """What is set for the kernel, beside this process's own variables."""
    # It imports the harness that runs now, installed or not, and works in another folder.
    before = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    paths = [Path(harness.__file__).parents[1], *(Path(p).absolute() for p in before)]
    return [
        ("PYTHONPATH", os.pathsep.join(dict.fromkeys(map(str, paths)))),
        ("PYTHONSTARTUP", ""),
        ("PYTHONUTF8", "1"),
        ("IPYTHONDIR", str(folder)),
        ("MPLBACKEND", "agg"),
        ("MPLCONFIGDIR", str(_for_matplotlib(folder))),
        ("MATPLOTLIBRC", os.devnull),
    ]


def _for_matplotlib(otherwise: Path) -> Path:
    """A folder for its list of fonts, kept where that can be: it takes seconds to make."""
    kept = cache_folder() / "matplotlib"
    with suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    return kept if os.access(kept, os.W_OK | os.X_OK) else otherwise

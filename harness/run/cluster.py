"""A Ray cluster: how it is reached or started, and what of it a run is given.

Ray is imported when a cluster is wanted, never before: it is an extra, and slow to import.
"""

import atexit
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.run.machine import cores, settle

ANSWER = 10.0  # seconds in which a cluster's address has to answer
STORE = 128 * 2**20  # bytes of Ray's store of objects where a cluster is started here
LONGEST = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # where Ray's sockets may be where TMPDIR is too long


@dataclass(frozen=True)
class Share:
    """Say what of a cluster one run is given.

    Attributes:
        threads: processors.
        gpus: of an accelerator, 1 or a fraction; 0 on a processor.
        runs: that go at a time.
        memory: bytes of the largest node.

    >>> share_of([{"CPU": 4, "memory": 100}, {"CPU": 2, "memory": 100}], jobs=3, device="cpu")
    Share(threads=2, gpus=0.0, runs=3, memory=100)
    """

    threads: int
    gpus: float
    runs: int
    memory: int


def share_of(nodes: Sequence[Mapping[str, float]], *, jobs: int, device: str) -> Share:
    """Share a cluster out among runs.

    Args:
        nodes: what each has of ``CPU``, ``GPU`` and ``memory`` (bytes).
        jobs: runs at a time; 0: one a processor, or one an accelerator.
        device: where they run.

    Raises:
        RunFailed: no node has any of what is needed.
    """
    kind = "CPU" if device == "cpu" else "GPU"
    able = [n for n in nodes if n.get(kind, 0) >= 1 and n.get("CPU", 0) >= 1]
    if not able:
        raise RunFailed(f"--executor ray: expected a node with a {kind}; the cluster has none")
    memory = int(max(n.get("memory", 0) for n in able))
    cpus = [int(n["CPU"]) for n in able]
    if kind == "CPU":
        wanted, each = min(jobs or sum(cpus), sum(cpus)), 0
        most = min(sum(cpus) // wanted, *cpus)
        slots = cpus
    else:
        gpus = [int(n["GPU"]) for n in able]
        each = max(1, math.ceil(jobs / sum(gpus)))
        slots = [each * n for n in gpus]
        wanted = min(jobs or sum(slots), sum(slots))
        most = max(1, min(c // n for c, n in zip(cpus, slots, strict=True)))
    # A run is on one node, so threads that divide the whole may leave some of each unused.
    for threads in range(most, 0, -1):
        runs = sum(min(n, c // threads) for n, c in zip(slots, cpus, strict=True))
        if runs >= wanted or threads == 1:
            break
    return Share(threads, math.floor(1e4 / each) / 1e4 if each else 0.0, min(runs, wanted), memory)


def connected(settings: Settings) -> Any:  # noqa: ANN401 - Ray is untyped
    """Give the module ``ray``, connected: to an address, to RAY_ADDRESS, or to what is started.

    What is started here has as many processors as this process may use, and ends with it.

    Raises:
        InputError: Ray is not installed, the address does not answer, or it cannot be started.
    """
    address = settings.ray_address or os.environ.get("RAY_ADDRESS", "")
    address = "" if address == "local" else address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray = import_module("ray")
    except ImportError:
        raise InputError(
            "--executor ray: expected Ray; found none; pip install 'fastflow-harness[ray]'"
        ) from None
    if ray.is_initialized():
        return ray
    if address:
        _see_that_it_answers(address)
        given: dict[str, Any] = {"address": address}
    else:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as other workers of this machine
        given = {"address": "local", "num_cpus": max(cores(), settings.jobs), **_own_session(ray)}
    heard = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    _silence(ray)
    try:
        ray.init(**given, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # Ray raises many kinds; all mean the same here
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"--executor ray: expected a cluster at {address}, and a node of it on this machine "
            f"(`ray start --address={address}`); got: {reason}"
            if address
            else f"--executor ray: expected to start Ray on this machine; got: {reason}"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in heard.items():  # Ray has put its own in their place
                signal.signal(number, handler)
    return ray


def device_there(
    ray: Any,  # noqa: ANN401
    settings: Settings,
    nodes: Sequence[Mapping[str, float]],
) -> Settings:
    """Resolve the settings' device on a node.

    Args:
        ray: the module, connected.
        settings: ``auto`` is an accelerator where a node has one.
        nodes: as of :func:`share_of`.

    Raises:
        InputError: there is no such device there.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if any(n.get("GPU", 0) >= 1 for n in nodes) else "cpu"
    if device not in ("cpu", "cuda"):
        raise InputError(
            "--device: expected auto, cpu or cuda with --executor ray, which chooses among a "
            f"node's; got {device}"
        )
    try:
        share_of(nodes, jobs=settings.jobs, device=device)
    except RunFailed as error:
        raise InputError(str(error)) from None
    settings = replace(settings, device=device)
    if device == "cpu":
        return settle(settings)
    ask = ray.remote(max_calls=1)(_usable).options(num_cpus=1, num_gpus=1, max_retries=3)
    if fault := ray.get(ask.remote(settings)):
        raise InputError(f"{fault} (said by a node of the cluster)")
    return settings


def _usable(settings: Settings) -> str:
    """What is wrong with the settings' device on this node; nothing: all is well."""
    try:
        settle(settings)
    except InputError as error:
        return str(error)
    return ""


def why(error: Exception) -> str:
    r"""Say in a line why a task of Ray's failed: of its many lines, the last.

    >>> why(RuntimeError("Traceback:\n ...\nKeyError: 'a'"))
    "KeyError: 'a'"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "No module named 'harness'" in str(error):
        return "a node has no fastflow-harness; install the same version on every node"
    return lines[-1][:300] if lines else type(error).__name__


def _see_that_it_answers(address: str) -> None:
    """Ask an address before Ray does, which would ask for minutes."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if "://" in address or not colon or not port.isdecimal():
        raise InputError(
            f"--ray-address: expected HOST:PORT, as `ray start --head` prints it; got {address}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"--ray-address: expected a Ray cluster at {address}; it does not answer ({error}); "
            "start one there: ray start --head"
        ) from None


def _own_session(ray: Any) -> dict[str, Any]:  # noqa: ANN401
    """Where Ray, started here, keeps sockets and logs: a folder that goes with it."""
    usual = tempfile.gettempdir()
    short = (d for d in (usual, *SHORT) if len(os.fsencode(f"{d}/ray-12345678")) <= LONGEST)
    parent = next((d for d in short if Path(d).is_dir()), usual)
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent)

    def end() -> None:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return {"_temp_dir": folder, "include_dashboard": False, "object_store_memory": STORE}


def _silence(ray: Any) -> None:  # noqa: ANN401
    """Keep Ray from printing pages about each worker that dies: the harness says it in a line."""
    worker = sys.modules.get(f"{ray.__name__}._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        vars(worker)["print_to_stdstream"] = lambda *_, **__: None  # no option does it

"""What every part shares: medians with ranges, fits, child processes, the environment.

Imports no torch: a child's peak memory would start at what its parent holds.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self

from harness.errors import InputError, unknown
from harness.files import matching

ROOT = Path(__file__).parents[1]
BACKBONE = "resnet18.tv_in1k"
SAMPLE_SECONDS = 1.0  # between two looks at the memory of a child and its children
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line gives to every part.

    Attributes:
        data: a category's folder in the MVTec AD layout.
        weights: a folder with the backbone's weights; None: random ones, and said so.
        epochs: of every training of the sweep, which is measured with each of these numbers.
        rounds: turns of every side; 0: the part's own number.
        work: a folder for what can be thrown away.
        extra: what one side of a part is told.
    """

    data: Path
    work: Path
    weights: Path | None = None
    device: str = "cpu"
    epochs: tuple[int, ...] = (2,)
    rounds: int = 0
    quick: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def turns(self, usual: int) -> int:
        """Rounds: as asked for, else one where it has to be quick, else the usual number."""
        return self.rounds or (1 if self.quick else usual)

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return 64 if self.quick else 256

    def dumps(self) -> str:
        """The options as a word for a child's command line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> Self:
        """The inverse of :meth:`dumps`."""
        given = json.loads(text)
        paths = {k: Path(given[k]) for k in ("data", "work", "weights") if given[k] is not None}
        return cls(**{**given, **paths, "epochs": tuple(given["epochs"])})


@dataclass
class Part:
    """What a part found: its protocol in words, tables, and the ratios that were asked for."""

    protocol: list[str] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    claims: list[Row] = field(default_factory=list)

    def claim(
        self,
        text: str,
        got: Mapping[str, float],
        needed: float,
        *,
        sense: str = "at least",
        unit: str = "×",
    ) -> None:
        """Note a figure that was asked for, and whether it is reached."""
        reached = got["value"] >= needed if sense == "at least" else got["value"] <= needed
        self.claims.append(
            {"claim": text, **got, "needed": needed, "sense": sense, "unit": unit}
            | {"reached": bool(reached)}
        )


def cores() -> int:
    """The processors this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def has_peer() -> bool:
    """Whether anomalib can be imported; without it a part measures our side alone."""
    from importlib.util import find_spec

    return find_spec("anomalib") is not None


# --- numbers ------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least and most of the rounds."""
    numbers = {"median": median(values), "min": min(values), "max": max(values)}
    return {k: _short(v, digits) for k, v in numbers.items()} | {"rounds": len(values)}


def columns(values: Sequence[float], unit: str) -> Row:
    """The spread as cells of a table: ``median s``, ``min s``, ``max s`` and ``rounds``."""
    return {k if k == "rounds" else f"{k} {unit}": v for k, v in spread(values).items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times as long the slow side takes: of the medians, and its range over rounds.

    Rounds are paired: what slows the machine in a round slows both sides of it.
    """
    rounds = [a / b for a, b in zip(slow, fast, strict=True)]
    numbers = {"value": median(slow) / median(fast), "low": min(rounds), "high": max(rounds)}
    return {k: _short(v, 4) for k, v in numbers.items()}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of y = c·x^p by least squares on logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 12)
    2.0
    """
    u, v = [math.log(a) for a in x], [math.log(b) for b in y]
    mu, mv = fmean(u), fmean(v)
    above = sum((a - mu) * (b - mv) for a, b in zip(u, v, strict=True))
    return above / sum((a - mu) ** 2 for a in u)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


# --- child processes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """A finished child process: what it returned, its wall time, its memory and processor time.

    ``peak_process`` is ru_maxrss: the most that any single process held. ``peak_tree`` is the
    most that the child and all its children held together, each shared page counted once
    (proportional set size, sampled); 0 where the system does not tell. ``busy`` is the processor
    time of all of them, sampled too: what a process used after the last look is not in it.
    """

    result: Any
    seconds: float
    peak_process: int
    peak_tree: int
    busy: float = 0.0

    def memory(self) -> Row:
        """Both peaks, in MiB, as cells of a table."""
        return {
            "peak of all processes, MiB": round(self.peak_tree / 2**20) or None,
            "peak of one process, MiB": round(self.peak_process / 2**20),
        }


def in_child(
    options: Options,
    module: str,
    function: str,
    *,
    watch: bool = False,
    loud: bool = False,
    **extra: Any,
) -> Child:
    """Call ``benchmarks.module.function(options)`` in a fresh process.

    Args:
        options: handed over, with ``extra`` added to its own.
        module: of this package.
        function: takes the options and returns what JSON can hold, or a dataclass of it.
        watch: sample the memory of the whole tree of processes.
        loud: show what it prints; what it writes to stderr is kept for the error alone.
        extra: what only this call is told.

    Raises:
        InputError: it failed; the last line that it printed says why.
    """
    options = replace(options, extra={**options.extra, **extra})
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        out, log = Path(folder) / "result.json", Path(folder) / "log"
        start = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                child_words(options, module, function, str(out)),
                stdout=None if loud else file, stderr=file, env=child_environment(options),
            )  # fmt: skip
            tree = _Tree(process.pid) if watch else None
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or not out.is_file():
            raise child_failed(module, function, process.returncode, log)
        unit = 1 if sys.platform == "darwin" else 1024
        peak = tree.stop() if tree else 0
        busy = sum(tree.busy.values()) if tree else 0.0
        return Child(json.loads(out.read_text()), seconds, usage.ru_maxrss * unit, peak, busy)


def child_words(options: Options, module: str, function: str, *more: str) -> list[str]:
    """The command line of a child."""
    words = [sys.executable, "-m", "benchmarks.child", module, function, options.dumps()]
    return [*words, *more]


def child_environment(options: Options) -> dict[str, str]:
    """Ours, with the threads that torch takes by default and the way to this package.

    Where the interpreter keeps no bytecode, it does here, so that no side compiles its imports.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cores()))
    path = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    usual = dict(os.environ)
    if usual.pop("PYTHONDONTWRITEBYTECODE", None):
        usual.setdefault("PYTHONPYCACHEPREFIX", str((options.work / "bytecode").resolve()))
    return {**usual, **threads, "PYTHONPATH": os.pathsep.join(path)}


def child_failed(module: str, function: str, code: int, log: Path) -> InputError:
    """Why a child ended, by the last line of what it wrote to stderr."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return InputError(f"{module}.{function}: ended with {code}: {lines[-1]}")


class _Tree(threading.Thread):
    """Samples the memory and processor time of a process and its descendants until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()
        self.busy: dict[int, float] = {}  # seconds by process
        self.start()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            there = _descendants(self.pid)
            self.peak = max(self.peak, sum(_proportional(p) for p in there))
            self.busy |= {p: _busy(p) for p in there}

    def stop(self) -> int:
        """The peak, bytes."""
        self.ended.set()
        self.join()
        return self.peak


def _descendants(pid: int) -> list[int]:
    children = []
    for task in matching(Path("/proc"), f"{pid}/task/*/children"):
        with suppress(OSError):  # it ended meanwhile
            children += [int(word) for word in task.read_text().split()]
    return [pid, *(p for child in children for p in _descendants(child))]


def _busy(pid: int) -> float:
    """Processor time that a process has used, seconds; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _proportional(pid: int) -> int:
    """Proportional set size, bytes; 0 for a process that is gone or a system without it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:")), 0) * 1024


# --- where and on what --------------------------------------------------------------------------


def environment(options: Options) -> Row:
    """Machine, versions and data, as they stand in the result."""
    from importlib.metadata import PackageNotFoundError, version

    import msgspec

    from harness.run import machine as ours

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "absent"

    libraries = (*ours.LIBRARIES, "anomalib", "lightning", "torchmetrics")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **msgspec.to_builtins(ours.environment(options.device, cores())),
        "versions": {name: installed(name) for name in libraries},
        "cores": cores(),
        "processor": ours.device_name("cpu"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "data": f"{options.data.parent.name}/{options.data.name}",
        "weights": BACKBONE if options.weights else "random",
        "quick": options.quick,
    }


def find_category(
    data: Path | None, category: str | None, work: Path, *, quick: bool = False
) -> Path:
    """The folder of one category in the MVTec AD layout.

    Args:
        data: the folder of categories; None: images of the embedded data set.
        category: its name; None: the first one.
        work: where the embedded data set is written.
        quick: in place of it, a few images of noise.

    Raises:
        InputError: there is none, or not this one.
    """
    if data is None and quick:
        data = work / "quick"
        write_noise(data / "noise", 8, 64)
    elif data is None:
        from harness.data.embedded.surfaces import write_surfaces

        data = write_surfaces(work)
    if not data.is_dir():
        raise InputError(f"--data: expected a folder of categories; got {data}")
    has = sorted(p.name for p in data.iterdir() if (p / "train" / "good").is_dir())
    if not has:
        raise InputError(
            f"--data: expected <category>/train/good below {data}; got none; "
            "name a folder in the MVTec AD layout"
        )
    if category is not None and category not in has:
        raise unknown("category", category, has)
    return (data / (category or has[0])).resolve()


def write_noise(folder: Path, images: int, size: int) -> None:
    """A category in the MVTec AD layout: noise, and in the defective images a white square."""
    import numpy as np
    from PIL import Image

    def save(path: Path, pixels: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=0)

    rng = np.random.default_rng(0)
    plan = [("train/good", images), ("test/good", 4), ("test/square", 4)]
    for kind, count in plan:
        for i in range(count):
            pixels = rng.integers(90, 130, (size, size, 3), dtype=np.uint8)
            if kind.endswith("square"):
                mask = np.zeros((size, size), np.uint8)
                mask[size // 4 : size // 2, size // 4 : size // 2] = 255
                pixels[mask > 0] = 255
                save(folder / "ground_truth" / "square" / f"{i:03}_mask.png", mask)
            save(folder / kind / f"{i:03}.png", pixels)

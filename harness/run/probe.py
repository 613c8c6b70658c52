"""How much of a GPU's memory a run takes: as recorded, or as one training step of it took.

A step is forward, backward and optimiser, with a batch scored after it; of a method that is
fitted, a fit of one batch, taken as many times as :mod:`harness.run.memory` counts more for all
images. It runs in a process of its own, as a worker does, so that what a process takes of the GPU
before its first tensor is measured with it. What was found is kept in the results' cache.
"""

import gc
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from harness.errors import RunFailed
from harness.experiment.choices import METHODS
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.files import write_whole
from harness.methods.batches import batches
from harness.run.averaging import WeightAverage
from harness.run.forking import apart
from harness.run.machine import device_name
from harness.run.memory import fit_memory, recorded_peaks, study_memory
from harness.run.model import make_model
from harness.run.plan import Plan
from harness.run.process import (
    be_deterministic,
    give_back_memory,
    peak_memory,
    reset_peak_memory,
    set_arithmetic,
)
from harness.run.train import ready, step
from harness.run.watch import energies_of

TRIES = 3  # of a step, while others take or give back memory of the GPU beside it
STILL = 2**20  # bytes that they may take or give back meanwhile

Wanted = tuple[Variant, int]  # a training, and its images: of a batch, or all where it is fitted
Run = tuple[Variant, str, int]  # of a variant, on a category, with so many training images


class Probed(msgspec.Struct, kw_only=True):
    """Hold what steps took on GPUs, in bytes, by what was tried on which.

    >>> Probed().steps
    {}
    """

    schema: Literal[1] = 1
    process: dict[str, int] = {}  # of a GPU before the first tensor
    steps: dict[str, int] = {}


def plan_memory(
    plan: Plan,
    cells: Iterable[Cell],
    records: Iterable[Record],
    settings: Settings,
    *,
    probing: bool = True,
) -> tuple[dict[str, int], str]:
    """Find what each variant's largest run takes: of its GPU, or of this machine's memory.

    See :func:`gpu_memory` and :func:`harness.run.memory.study_memory`.
    """
    if not settings.devices[0].startswith("cuda"):
        device = settings.devices[0]
        return study_memory(cells, plan.sizes, records, device=device, tiles=plan.tiles), ""
    pairs = dict.fromkeys((c.variant, c.category) for c in cells)
    runs = [(v, name, plan.images_of(v, name)[0]) for v, name in pairs]
    return gpu_memory(runs, records, settings, probing=probing)


def gpu_memory(
    runs: Iterable[Run], records: Iterable[Record], settings: Settings, *, probing: bool = True
) -> tuple[dict[str, int], str]:
    """Find the bytes of a GPU that each variant's largest run takes, its process among them.

    Args:
        runs: those that are to be run.
        records: of the results' folder; those of an equal training on such a GPU say what it took.
        settings: their first device is probed, and named in what is kept in their cache.
        probing: whether what is not known is tried; else it counts as all that the GPU has.

    Returns:
        variant's digest → bytes, and what is said of it in a line, or nothing.
    """
    device = settings.devices[0]
    on = f"{device_name(device)}, cuda {'tf32' if settings.tf32 else 'float32'}"
    peaks = recorded_peaks(
        r for r in records if f"{r.environment.device_name}, {r.environment.arithmetic}" == on
    )
    file = settings.cache / "gpu-memory.json"
    known = _read(file)
    named = {run: _wanted(run) for run in runs}
    missing = {
        f"{_key(wanted)}, {on}": wanted
        for (variant, category, _), wanted in named.items()
        if (variant.training.digest, category) not in peaks
    }
    missing = {key: wanted for key, wanted in missing.items() if key not in known.steps}
    said = ""
    if probing and named and (missing or on not in known.process):
        tried = missing or dict.fromkeys(["again"], next(iter(named.values())))
        said = _probe(known, tried, on, settings)
        with suppress(OSError, RunFailed):  # it is found anew then
            write_whole(file, msgspec.json.encode(known).decode())
    most = torch.cuda.mem_get_info(device)[1]
    found: dict[str, int] = {}
    for (variant, category, _), wanted in named.items():
        peak = peaks.get((variant.training.digest, category))
        peak = peak or known.steps.get(f"{_key(wanted)}, {on}")
        need = min(most, peak + known.process[on]) if peak and on in known.process else most
        found[variant.digest] = max(need, found.get(variant.digest, 0))
    return found, said


def _probe(known: Probed, tried: dict[str, Wanted], on: str, settings: Settings) -> str:
    """Add to what is known; say so."""
    device, largest = settings.devices[0], 0
    what = f"{device}: one training step of {len(tried)} variants tried for its memory"
    for _ in range(TRIES):
        give_back_memory()
        free = torch.cuda.mem_get_info(device)[0]
        took = apart(try_steps, list(tried.values()), device, settings.tf32)
        if took is None:
            return f"{what}: its process died, so one run at a time goes there"
        left, steps = took
        largest = max(largest, free - left)
        if abs(torch.cuda.mem_get_info(device)[0] - free) < STILL:
            largest = free - left
            break
    # Where others never were still, the most that it can be: fewer runs fit, and none fails.
    known.process[on] = max(0, largest)
    known.steps |= {key: n for key, n in zip(tried, steps, strict=True) if n and key != "again"}
    failed = sum(n == 0 for n in steps)
    return f"{what}" + (f"; {failed} failed, and count as all of it" if failed else "")


def try_steps(wanted: Sequence[Wanted], device: str, tf32: bool) -> tuple[int, list[int]]:  # noqa: FBT001
    """Take a step of each, in this process.

    Returns:
        The bytes of the device that are free afterwards, with what this process takes of it before
        its tensors, and the bytes that each step took; 0: it failed.
    """
    be_deterministic()
    set_arithmetic(tf32=tf32)
    steps = []
    for variant, images in wanted:
        gc.collect()
        try:
            reset_peak_memory(device)
            steps.append(_step(variant, images, device))
        except Exception:  # it would fail in its run too, and is named there
            steps.append(0)
    gc.collect()
    give_back_memory()
    left = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return left, steps


def _step(variant: Variant, images: int, device: str) -> int:
    """Bytes that the device's allocator held at most."""
    shapes = Extractor.on_meta(variant.feature_spec).shapes
    batch = min(variant.batch_size, images)
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal((batch, *shape), np.float32) for shape in shapes]
    model = make_model(variant, shapes, 0).to(device).to(memory_format=torch.channels_last)
    more = 1.0
    if model.trained:
        optimiser, *_ = ready(model, drawn, np.arange(batch), batch, variant, device)
        _average = WeightAverage(model, optimiser, variant.ema)
        for _, features in batches(drawn, size=batch, device=device):
            step(model.train(), optimiser, features, variant)
    else:
        more = fit_memory(variant, shapes, images) / fit_memory(variant, shapes, batch)
        model.fit(drawn, device=device)
    energies_of(model.eval(), drawn, variant, device)
    return int(more * peak_memory(device))


def _wanted(run: Run) -> Wanted:
    variant, _, images = run
    trained = METHODS[variant.method].trained
    return variant.training, min(variant.batch_size, images) if trained else images


def _key(wanted: Wanted) -> str:
    variant, images = wanted
    return f"{variant.digest}, {images} images"


def _read(file: Path) -> Probed:
    """What is kept there; a damaged file, or one of another version, is as good as none."""
    with suppress(OSError, msgspec.MsgspecError, ValueError):
        return msgspec.json.decode(file.read_bytes(), type=Probed)
    return Probed()

"""How much memory a run takes, counted before it starts; and how many fit side by side.

Counted on the meta device, part by part: a worker's process, what training or fitting holds, and
what scoring holds at its bound. Where a record says what the same training took, that counts.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from errno import ENOMEM
from typing import Any

import torch
from torch import Tensor

from harness.experiment.choices import METHODS
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.features.views import Shapes
from harness.methods.contract import Method
from harness.run import energies
from harness.run.forking import room_for
from harness.run.machine import available_memory, runs_at_a_time, torch_device
from harness.run.model import make_model
from harness.run.plan import NONE, Tiles
from harness.score import ranking, rule

PROCESS = 440 * 2**20  # anonymous memory of a worker that has imported all and done nothing
DEFECTIVE = 0.03  # share of the test images' pixels that scoring is reckoned with
FLOAT = 4
# How a GPU's libraries, and torch and C++ on the processor, say that memory ran out.
GPU_OUT = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
OUT = (*GPU_OUT, "can't allocate memory", "bad_alloc")
SIDE_BY_SIDE = 4  # runs on a GPU at most, unless more are asked for: they share what computes
_COUNTED: dict[Hashable, tuple[int, int]] = {}
MARGIN = 0.1  # share of a GPU's free memory that is left alone: it is in pieces, and others ask


def run_memory(variant: Variant, train: int, test: int) -> dict[str, int]:
    """Count the bytes that one run holds at most, part by part.

    Args:
        variant: what is run.
        train: training images.
        test: test images.

    Returns:
        ``process``: before it does anything; ``model``: parameters, with gradients and the
        optimiser's two moments where they are trained, and the bank; ``features``: of a batch;
        ``step``: what a training step saves for its backward pass, or fitting holds beside the
        bank; ``scoring``: its bound; ``all``: their sum, but for the smaller of ``step`` and
        ``scoring``, which follow each other.

    >>> parts = run_memory(Variant(image_size=64, flow_steps=1), 100, 50)
    >>> parts["all"] == sum(parts.values()) - parts["all"] - min(parts["step"], parts["scoring"])
    True
    """
    shapes = Extractor.on_meta(variant.feature_spec).shapes
    batch = min(variant.batch_size, train)
    in_bank = 0 if METHODS[variant.method].trained else train  # what is trained does not grow
    model, step = _training(variant.training, shapes, in_bank, batch)
    parts = {
        "process": PROCESS,
        "model": model,
        "features": 2 * batch * FLOAT * sum(c * h * w for c, h, w in shapes),  # as read, and laid
        "step": step,  # out anew
        "scoring": scoring_memory(variant, shapes, test),
    }
    return {**parts, "all": sum(parts.values()) - min(parts["step"], parts["scoring"])}


def scoring_memory(variant: Variant, shapes: Shapes, images: int) -> int:
    """Bound the bytes that scoring holds: they grow with the defective pixels alone, but for bits.

    Args:
        variant: its image size counts.
        shapes: (C, H, W) at the taps.
        images: to score; DEFECTIVE of their pixels are taken to be.
    """
    each = math.prod(variant.shape)
    pixels = images * each
    kept = 16 * DEFECTIVE * pixels + pixels / 8 + FLOAT * min(ranking.BATCH, pixels)
    maps = min(images, rule.CHUNK) * each * FLOAT * (2 * len(shapes) + 3)
    read = 2 * min(images, energies.CHUNK) * 2 * FLOAT * sum(h * w for _, h, w in shapes)
    return int(kept + maps + read)


def study_memory(
    cells: Iterable[Cell],
    sizes: Mapping[str, tuple[int, int]],
    records: Iterable[Record] = (),
    *,
    device: str = "cpu",
    tiles: Tiles = NONE,
) -> dict[str, int]:
    """Count the bytes of the largest of many runs, by variant's digest.

    Args:
        cells: the runs.
        sizes: images of every category, (train, test).
        records: of this machine's folder; those of an equal training on the same data say what
            it took.
        device: where it is run.
        tiles: of recipes that cut the photos; see :class:`harness.run.plan.Plan`.
    """
    measured = recorded_peaks(r for r in records if r.environment.device == device)
    found: dict[str, int] = {}
    for variant, category in dict.fromkeys((c.variant, c.category) for c in cells):
        known = measured.get((variant.training.digest, category))
        images = tiles.get((variant.feature_spec, category), sizes[category])
        bytes_ = known or run_memory(variant, *images)["all"]
        found[variant.digest] = max(bytes_, found.get(variant.digest, 0))
    return found


def fit_memory(variant: Variant, shapes: Shapes, images: int) -> int:
    """Count the bytes of a memory bank and of fitting it on so many images."""
    return sum(_training(variant, shapes, images, 0))


def recorded_peaks(records: Iterable[Record]) -> dict[tuple[str, str], int]:
    """Give the most bytes that runs of a training on a category took, by its digest and name."""
    peaks: dict[tuple[str, str], int] = {}
    for r in records:
        if peak := r.measured.peak_memory_bytes:
            key = (r.training_digest, r.category)
            peaks[key] = max(peak, peaks.get(key, 0))
    return peaks


def fitting_runs(settings: Settings, need: int) -> tuple[int, str]:
    """Count the runs that go side by side, and say what there is to say about their number.

    Args:
        settings: ``jobs`` runs where it is given; else no more than fit into the memory that is
            available now: of each GPU, where there are any, whose runs are not held in this
            machine's. Never more than the limit of open files has room for.
        need: bytes of the largest run.

    Returns:
        How many over all devices, and a warning or how many go side by side on a GPU, or nothing.
    """
    runs, remark = _fitting_memory(settings, need)
    if (fit := room_for(runs)) == runs:
        return runs, remark
    most, remark = _fitting_memory(replace(settings, jobs=fit), need)
    few = (
        f"{most} run{'s' * (most > 1)} at a time, not {runs}: the limit of open files has room "
        f"for no more; raise it, as by `ulimit -n {1024 * math.ceil(runs / 256)}`"
    )
    return most, "\n".join(filter(None, (few, remark)))


def _fitting_memory(settings: Settings, need: int) -> tuple[int, str]:
    """The same, but for open files."""
    devices, asked = settings.devices, runs_at_a_time(settings)
    on_gpus = devices[0].startswith("cuda")
    if not on_gpus and torch_device(devices[0]) != "cpu":
        return asked, ""
    free = min(map(free_memory, devices))
    fit = max(1, free // max(1, need)) * len(devices)
    where = f" of {settings.device}" if on_gpus else ""
    if settings.jobs and asked > fit:
        most = math.ceil(asked / len(devices)) * need
        return asked, (
            f"warning: --jobs {asked} takes up to {most / 2**30:.1f} GiB of memory{where}, and "
            f"{free / 2**30:.1f} GiB are available; {fit} fit"
        )
    if settings.jobs or not on_gpus:
        return min(asked, fit), ""
    runs = min(fit, SIDE_BY_SIDE * len(devices))
    if runs == len(devices):
        return runs, ""
    return runs, (
        f"{runs} runs at a time on {settings.device}: one takes up to {need / 2**30:.1f} GiB, "
        f"{free / 2**30:.1f} GiB are free" + " on each" * (len(devices) > 1)
    )


def free_memory(device: str) -> int:
    """Count the bytes that may be taken now; of a GPU's, a share is left alone."""
    if not device.startswith("cuda"):
        return available_memory()
    return int((1 - MARGIN) * torch.cuda.mem_get_info(device)[0])


def what_fits(
    variant: Variant, train: int, test: int, parallel: int, *, device: str = "cpu", need: int = 0
) -> str:
    """Say how much memory a run takes that did not get it, how much is left, and what to try.

    Args:
        variant: what was run.
        train: training images.
        test: test images.
        parallel: runs that went side by side.
        device: whose memory it is.
        need: bytes that it takes; 0: as counted.
    """
    need = need or run_memory(variant, train, test)["all"]
    free = free_memory(device)
    fit = min(parallel - 1, free // need)
    smaller = "a smaller batch_size or image_size"
    of = "" if device == "cpu" else f" of {device}"
    return (
        f"a run takes about {need / 2**30:.1f} GiB{of}, {free / 2**30:.1f} GiB are available now; "
        "try " + (f"--jobs {fit}" if fit > 0 else smaller)
    )


def out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out, of the processor or of an accelerator.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("a size of 3"))
    (True, False)
    >>> out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    True
    """
    known = (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, known) or getattr(error, "errno", None) == ENOMEM:
        return True
    return any(said in str(error) for said in OUT)


def _training(variant: Variant, shapes: Shapes, images: int, batch: int) -> tuple[int, int]:
    """Bytes of the model with all that lasts, and of what a step or a fit holds for a time.

    Counted once for all variants whose model is built alike: they may differ in `epochs`, say.
    """
    model = (variant.method, bool(variant.ema), *variant.arguments.items())
    if (known := (model, shapes, images, batch)) not in _COUNTED:
        _COUNTED[known] = _count_training(variant, shapes, images, batch)
    return _COUNTED[known]


def _count_training(variant: Variant, shapes: Shapes, images: int, batch: int) -> tuple[int, int]:
    with torch.device("meta"):
        model = make_model(variant, shapes, 0)
        model.fill(images)
        features = [torch.empty(batch, *shape) for shape in shapes]
    parameters = sum(p.nbytes for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    if not METHODS[variant.method].trained:
        return parameters + buffers, model.fit_bytes(images)
    copies = 5 if variant.ema else 4  # weights, gradients, Adam's two moments, their average
    return copies * parameters + buffers, saved_bytes(model, features)


def saved_bytes(model: Method, features: list[Tensor]) -> int:
    """Count what the first loss saves for its backward pass, beside parameters and features.

    Args:
        model: on the meta device.
        features: (B, C, H, W) per tap, there too.
    """
    lasting = [*model.parameters(), *model.buffers(), *features]
    known = {t.untyped_storage()._cdata for t in lasting}
    saved: dict[int, Tensor] = {}  # held, so that no storage's number is given twice

    def pack(tensor: Tensor) -> Tensor:
        if (number := tensor.untyped_storage()._cdata) not in known:
            saved[number] = tensor
        return tensor

    model.train()
    hooks: Any = torch.autograd.graph.saved_tensors_hooks
    with hooks(pack, lambda tensor: tensor):
        next(model.losses(features))
    return sum(t.untyped_storage().nbytes() for t in saved.values())

"""How long a plan takes, from costs measured on this machine, and how much disk and memory."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from harness.data.synthetic import DEFECTIVE_COPIES
from harness.errors import warn
from harness.experiment.choices import METHODS
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.features.cache import entry_bytes
from harness.features.views import Shapes
from harness.run.machine import (
    arithmetic,
    available_memory,
    cores,
    device_name,
    runs_at_a_time,
    settle,
    torch_device,
)
from harness.run.measure import Cost, flow_macs, kept_images, measure, synchronise
from harness.run.memory import fitting_runs
from harness.run.model import check_batches, make_model
from harness.run.plan import Plan, images_to_pass
from harness.run.probe import plan_memory
from harness.run.process import set_arithmetic
from harness.run.schedule import evaluations_of

THIS = "this machine"
RECORD_BYTES = 20_000  # a record and its gallery's overhead
PROBE = Variant(flow_steps=2, image_size=128, kernels=(3, 1))
PROBE_SHAPES: Shapes = ((64, 32, 32), (128, 16, 16))
PROBE_IMAGES, PROBE_ROUNDS = 8, 5


@dataclass(frozen=True)
class Rates:
    """Hold seconds per multiply-accumulate, and where they come from.

    Attributes:
        train: of one run's flow, forward and backward, with a run's share of the threads.
        infer: of backbone and flow, forward, with all threads.
        source: of what they are measured.
        device: on which kind, as torch names it: ``cpu`` or ``cuda``.
        name: of the processor or accelerator.
        threads: of a run.
        cores: of the processor.

    >>> Rates(train=1e-10, infer=1e-11, source="a stopwatch").threads
    1
    """

    train: float
    infer: float
    source: str
    device: str = "cpu"
    name: str = ""
    threads: int = 1
    cores: int = 1


@dataclass(frozen=True)
class Counted:
    """Hold what a part of a plan takes on one machine, piece by piece.

    Attributes:
        trainings: one cell of each → its seconds, on a run's share of the machine.
        results: the same cell → bytes of its energies and of all records that share them.
        passes: (recipe of features, category) → seconds of all images, on the whole machine.
        features: the same → bytes in the cache.
        shapes: recipe → (C, H, W) of its features at the taps.
        at_most: whether early stopping may end sooner.
    """

    trainings: Mapping[Cell, float]
    results: Mapping[Cell, int]
    passes: Mapping[tuple[FeatureSpec, str], float]
    features: Mapping[tuple[FeatureSpec, str], int]
    shapes: Mapping[FeatureSpec, Shapes]
    at_most: bool


def estimate(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Estimate what is left of a plan.

    Returns:
        ``train_seconds`` (with ``parallel`` runs at a time), ``backbone_seconds`` (as if nothing
        were cached), ``cache_bytes`` (the features of all categories; the cache holds at most
        its limit), ``results_bytes`` (energies and records), ``memory_bytes`` (of the largest
        run; ``memory_by_variant``: by digest; ``memory_available``: now), ``warning`` (where
        ``--jobs`` runs do not fit into it), ``at_most`` (whether early stopping may end sooner),
        ``parallel``, ``rates``.
    """
    missing, settings = plan.missing(), settle(settings)
    for cell in missing:
        check_batches(cell.variant, plan.images_of(cell.variant, cell.category)[0])
    records = list(read_records(settings.results, damaged=warn))
    memory, _ = plan_memory(plan, missing, records, settings, probing=False)
    parallel, warning = fitting_runs(settings, max(memory.values(), default=0))
    rates = measured_rates(records, settings)
    found = count(plan, missing, replace(rates, threads=max(1, cores() // parallel)))
    return {
        "train_seconds": sum(found.trainings.values()) / parallel,
        "backbone_seconds": sum(found.passes.values()),
        "cache_bytes": sum(found.features.values()),
        "results_bytes": sum(found.results.values()),
        "memory_bytes": max(memory.values(), default=0),
        "memory_by_variant": memory,
        "memory_available": available_memory(),
        "warning": warning,
        "at_most": found.at_most,
        "parallel": parallel,
        "rates": rates.source,
    }


def count(plan: Plan, cells: Sequence[Cell], rates: Rates) -> Counted:
    """Count what some cells of a plan take, training by training and pass by pass.

    Args:
        plan: which knows the images.
        cells: those that are run.
        rates: by which multiply-accumulates become seconds.
    """
    kept = kept_images([*plan.sizes.values(), *plan.tiles.values()])
    costs = {v: measure(v, kept) for v in dict.fromkeys(c.variant.training for c in cells)}
    trainings: dict[Cell, float] = {}
    results: dict[Cell, int] = {}
    first: dict[tuple[Variant, str, int], Cell] = {}
    found: dict[tuple[Variant, str], tuple[float, int]] = {}  # whatever the seed
    for cell in cells:
        which = (cell.variant.training, cell.category)
        if which not in found:
            found[which] = _one_training(plan, cell, costs[which[0]], rates)
        if (key := (*which, cell.seed)) not in first:
            first[key] = cell
            trainings[cell], results[cell] = found[which]
        results[first[key]] += RECORD_BYTES
    shapes = {v.feature_spec: cost.shapes for v, cost in costs.items()}
    backbones = {v.feature_spec: cost.macs.backbone for v, cost in costs.items()}
    images = images_to_pass(cells, plan.sizes, plan.tiles)
    return Counted(
        trainings,
        results,
        passes={w: backbones[w[0]] * count * rates.infer for w, count in images.items()},
        features={w: entry_bytes(shapes[w[0]], n, w[0].dtype) for w, n in images.items()},
        shapes=shapes,
        at_most=any(v.patience for v in costs),
    )


def _one_training(plan: Plan, cell: Cell, cost: Cost, rates: Rates) -> tuple[float, int]:
    """One training's seconds, and what its energies take on the disk."""
    variant = cell.variant
    images, test = plan.images_of(variant, cell.category)
    test *= 1 + variant.feature_spec.turned
    evaluations = 1
    if METHODS[variant.method].trained:
        seconds = cost.training_work(variant, images) * rates.train
        evaluations = evaluations_of(variant, images)
    else:  # fitted: what scoring takes; the fit itself is not known
        seconds = cost.macs.flow * test * rates.infer * rates.cores / rates.threads
    held = round(variant.holdout * images) if DEFECTIVE_COPIES[variant.validation] else 0
    scored = test + 2 * held  # each with its copy
    return seconds, 8 * evaluations * scored * sum(h * w for _, h, w in cost.shapes)


def measured_rates(records: Iterable[Record], settings: Settings) -> Rates:
    """Take the rates of this device's records; without any, those of a probe of seconds."""
    device = torch_device(settings.devices[0])
    set_arithmetic(tf32=settings.tf32)
    name, computed = device_name(device), arithmetic(device)
    own = [
        r
        for r in records
        if r.environment.device_name == name and r.environment.arithmetic in ("", computed)
    ]
    found = recorded_rates(own, f"of {THIS}")
    return found or _probe(device, max(1, cores() // runs_at_a_time(settings)))


def recorded_rates(records: Iterable[Record], where: str) -> Rates | None:
    """Take the median rates of records of one device; None where they tell of none.

    Args:
        records: all of the same device.
        where: what to call it.
    """
    train, infer, threads, of = [], [], [1], [1]
    told = None
    for r in records:
        if r.smoke:
            continue
        speed = r.measured.speed
        if speed.fps:
            turns = max(1, r.variant.get("test_turns", 0))  # absent from older records
            infer.append(1 / (speed.fps * turns * (r.macs.flow + r.macs.backbone)))
            of.append(speed.threads or 1)
        if r.measured.fit_seconds and r.loss and not r.variant.get("tile_size"):  # trained, whole
            work = r.macs.training * r.data.train * len(r.loss)
            train.append(r.measured.fit_seconds / work)
            threads.append(r.environment.threads)
            told = r.environment
    if told is None or not infer:
        return None
    source = f"{len(train)} recorded runs {where}"
    kind = told.device.partition(":")[0]
    shares = round(median(threads[1:])), max(of)
    return Rates(median(train), median(infer), source, kind, told.device_name, *shares)


def _probe(device: str, threads: int) -> Rates:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model = make_model(PROBE, PROBE_SHAPES, 0).to(device).to(memory_format=torch.channels_last)
    with torch.device("meta"):
        empty = [torch.empty(PROBE_IMAGES, *shape) for shape in PROBE_SHAPES]
        work = flow_macs(make_model(PROBE, PROBE_SHAPES, 0), empty)
    features = [torch.randn(PROBE_IMAGES, *s, device=device) for s in PROBE_SHAPES]
    features = [f.contiguous(memory_format=torch.channels_last) for f in features]
    train = _seconds(lambda: next(model.losses(features)).backward(), device)
    torch.set_num_threads(cores())
    infer = _seconds(lambda: model.energies(features), device)
    torch.set_num_threads(before)
    return Rates(
        train / work,
        infer / work,
        f"a probe of {THIS} (nothing is recorded yet)",
        torch.device(device).type,
        device_name(device),
        threads,
        cores(),
    )


def _seconds(work: Any, device: str) -> float:  # noqa: ANN401
    times = []
    for _ in range(PROBE_ROUNDS):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)  # what the machine can do, whatever else it is doing

"""How long a plan takes, from costs measured on this machine, and how much disk and memory."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from harness.data.synthetic import DEFECTIVE_COPIES
from harness.errors import warn
from harness.experiment.choices import METHODS
from harness.experiment.record import Record, read_records
from harness.experiment.settings import Settings
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
from harness.run.measure import flow_macs, measure, synchronise
from harness.run.memory import fitting_runs
from harness.run.model import check_batches, make_model
from harness.run.plan import Plan, images_to_pass
from harness.run.probe import plan_memory
from harness.run.process import set_arithmetic
from harness.run.schedule import epochs_of, evaluations_of

RECORD_BYTES = 20_000  # a record and its gallery's overhead
PROBE = Variant(flow_steps=2, image_size=128, kernels=(3, 1))
PROBE_SHAPES: Shapes = ((64, 32, 32), (128, 16, 16))
PROBE_IMAGES, PROBE_ROUNDS = 8, 5


@dataclass(frozen=True)
class Rates:
    """Hold seconds per multiply-accumulate, and where they come from.

    ``train``: of one run's flow, forward and backward, with a run's share of the threads.
    ``infer``: of backbone and flow, forward, with all threads.

    >>> Rates(train=1e-10, infer=1e-11, source="a stopwatch").source
    'a stopwatch'
    """

    train: float
    infer: float
    source: str


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
    kept = max((plan.images_of(c.variant, c.category)[0] for c in missing), default=0)
    costs = {v: measure(v, kept) for v in dict.fromkeys(c.variant for c in missing)}
    rates = measured_rates(records, settings)
    train = 0.0
    results = len(missing) * RECORD_BYTES
    for variant, category, _ in _trainings(missing):
        images, test = plan.images_of(variant, category)
        test *= 1 + variant.feature_spec.turned
        macs, shapes = costs[variant].macs, costs[variant].shapes
        epochs = epochs_of(variant, images) if METHODS[variant.method].trained else 1
        if METHODS[variant.method].trained:
            train += macs.training * images * epochs * rates.train
        else:  # fitted: what scoring takes; the fit itself is not known
            train += macs.flow * test * rates.infer * cores() / parallel
        evaluations = evaluations_of(variant, images) if METHODS[variant.method].trained else 1
        held = round(variant.holdout * images) if DEFECTIVE_COPIES[variant.validation] else 0
        scored = test + 2 * held  # each with its copy
        results += 8 * evaluations * scored * sum(h * w for _, h, w in shapes)
    backbone, cache = 0.0, 0
    counts = images_to_pass(missing, plan.sizes, plan.tiles)
    for variant, category in _passes(missing):
        images = counts[variant.feature_spec, category]
        backbone += costs[variant].macs.backbone * images * rates.infer
        cache += entry_bytes(costs[variant].shapes, images, variant.feature_dtype)
    return {
        "train_seconds": train / parallel,
        "backbone_seconds": backbone,
        "cache_bytes": cache,
        "results_bytes": results,
        "memory_bytes": max(memory.values(), default=0),
        "memory_by_variant": memory,
        "memory_available": available_memory(),
        "warning": warning,
        "at_most": any(v.patience for v in costs),  # they may stop early
        "parallel": parallel,
        "rates": rates.source,
    }


def measured_rates(records: Iterable[Record], settings: Settings) -> Rates:
    """Take the rates of this device's records; without any, those of a probe of seconds."""
    device = torch_device(settings.devices[0])
    set_arithmetic(tf32=settings.tf32)
    name, computed = device_name(device), arithmetic(device)
    train, infer = [], []
    for r in records:
        if r.environment.device_name != name or r.smoke:
            continue
        if r.environment.arithmetic not in ("", computed):
            continue
        if fps := r.measured.speed.fps:
            turns = max(1, r.variant.get("test_turns", 0))  # absent from older records
            infer.append(1 / (fps * turns * (r.macs.flow + r.macs.backbone)))
        if r.measured.fit_seconds and r.loss and not r.variant.get("tile_size"):  # trained, whole
            work = r.macs.training * r.data.train * len(r.loss)
            train.append(r.measured.fit_seconds / work)
    if train and infer:
        return Rates(median(train), median(infer), f"{len(train)} recorded runs of this machine")
    return _probe(device, max(1, cores() // runs_at_a_time(settings)))


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
    return Rates(train / work, infer / work, "a probe of this machine (nothing is recorded yet)")


def _seconds(work: Any, device: str) -> float:  # noqa: ANN401
    times = []
    for _ in range(PROBE_ROUNDS):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)  # what the machine can do, whatever else it is doing


def _trainings(cells: Sequence[Cell]) -> list[Cell]:
    """One cell of each training: scoring variants share theirs."""
    trainings = {(c.variant.training, c.category, c.seed): c for c in cells}
    return list(trainings.values())


def _passes(cells: Sequence[Cell]) -> list[tuple[Variant, str]]:
    """One variant of each backbone that a category's images pass."""
    found = {(c.variant.feature_spec, c.category): (c.variant, c.category) for c in cells}
    return list(found.values())

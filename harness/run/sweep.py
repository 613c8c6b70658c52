"""A study's grid: what is recorded, what is missing, and running what is missing."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from harness.data.datasets import Category
from harness.detect.inference import fold_batch_norms
from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.record import read_record, write_failure
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone, load_backbone
from harness.features.cache import FeatureCache, FeatureKey, entry_bytes, shapes_of
from harness.files import remove_leftovers
from harness.methods.contract import Method
from harness.run.executors import prepare
from harness.run.executors.local import run_all
from harness.run.job import Job, score
from harness.run.machine import cores, runs_at_a_time, torch_device
from harness.run.measure import count_macs, count_parameters, look, measure_speed
from harness.run.model import make_model
from harness.run.plan import Plan
from harness.run.train import precision

SPEED_BATCH = 8
KEPT = 400  # training images in a bank whose speed is measured
Say = Callable[[str], object]


@dataclass
class Outcome:
    """What a start of a study did."""

    recorded: int = 0
    already: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # which run, why
    passes: int = 0
    reused: int = 0


def run_study(plan: Plan, settings: Settings, say: Say = print) -> Outcome:
    """Run what is missing; failed runs leave a note and the grid goes on."""
    missing = plan.missing()
    outcome = Outcome(already=len(plan.cells) - len(missing))
    say(_headline(plan, len(missing)))
    remove_leftovers(settings.results)
    if not missing:
        return outcome
    if not settings.speed:  # else a speed would be measured beside it
        prepare()
    backbones = _load_backbones(missing, settings)
    _same_weights(plan, backbones)
    cost = _cost(plan, missing, backbones, settings, say)
    prepare()
    cache = FeatureCache(settings.cache / "features", settings.cache_limit)
    for names in _fitting(plan, missing, backbones, cache.limit):
        cells = [c for c in missing if c.category in names]
        keys = _features(plan, cells, backbones, cache, settings)
        jobs = [
            Job(
                cell.variant, cell.seed, plan.categories[cell.category], cache.folder,
                keys[cell.variant.features, cell.category],
                backbones[cell.variant.features].shapes,
                backbones[cell.variant.features].weights, cost[cell.variant.digest],
                settings.results, torch_device(settings.device),
                max(1, cores() // runs_at_a_time(settings)),
            )
            for cell in cells
        ]  # fmt: skip
        _train(jobs, plan, settings, outcome)
    outcome.passes, outcome.reused = cache.passes, cache.reused
    say(
        f"backbone passes: {cache.passes} images passed, each once per backbone; "
        f"{cache.reused} taken from the cache; {outcome.recorded} runs shared them"
    )
    return outcome


Spec = tuple[Any, ...]  # Variant.features
Shapes = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Loaded:
    backbone: Backbone
    folded: Backbone  # the same features but for rounding, sooner
    weights: dict[str, str]
    shapes: Shapes


def _load_backbones(cells: Iterable[Cell], settings: Settings) -> dict[Spec, _Loaded]:
    loaded = {}
    for variant in dict.fromkeys(c.variant for c in cells):
        if variant.features not in loaded:
            backbone, weights = load_backbone(
                variant.backbone, taps=variant.taps, image_size=variant.image_size,
                weights=variant.weights, folder=settings.weights,
            )  # fmt: skip
            shapes = tuple(shapes_of(backbone, variant.views))
            folded = fold_batch_norms(backbone).to(memory_format=torch.channels_last)
            loaded[variant.features] = _Loaded(backbone, folded, weights, shapes)
    return loaded


def _same_weights(plan: Plan, backbones: dict[Spec, _Loaded]) -> None:
    """A study's records of one backbone are all of one weights file."""
    for cell in plan.cells:
        path = plan.place(cell).record
        if cell.variant.features in backbones and path.is_file():
            there, now = read_record(path)["weights"], backbones[cell.variant.features].weights
            if there["sha256"] != now["sha256"]:
                raise InputError(
                    f"{path}: recorded with other weights of {cell.variant.backbone} (SHA-256 "
                    f"{there['sha256'][:12]}…; now {now['sha256'][:12]}…); expected the same; "
                    "use another --results"
                )


def _cost(
    plan: Plan,
    cells: Sequence[Cell],
    backbones: dict[Spec, _Loaded],
    settings: Settings,
    say: Say,
) -> dict[str, dict[str, Any]]:
    """Digest → parameters, MACs and speed of every variant.

    A method that keeps training images keeps here as many as the largest category has, and at
    most KEPT: all banks are in memory at once. A record says how many.
    """
    variants = list(dict.fromkeys(c.variant for c in cells))
    kept = min(KEPT, max(train for train, _ in plan.sizes.values()))
    cost: dict[str, dict[str, Any]] = {}
    for v in variants:
        with torch.device("meta"):
            model, twin = _model(v, backbones, kept), backbones[v.features].backbone.twin()
        cost[v.digest] = {
            "parameters": count_parameters(model, twin),
            "macs": count_macs(model, twin, views=v.views),
            "speed": {},
        }
    if settings.speed:
        say(f"measuring the speed of {len(variants)} variants, image to map, side by side")
        speeds = _speeds(variants, backbones, torch_device(settings.device), kept)
        for v in variants:
            cost[v.digest]["speed"] = speeds[v.digest]
    return cost


def _speeds(
    variants: Sequence[Variant], backbones: dict[Spec, _Loaded], device: str, kept: int
) -> dict[Any, dict[str, Any]]:
    """Digest → latency and FPS; the variants take turns, and each backbone on its own too."""
    paths: dict[Any, Callable[[Tensor], object]] = {}
    images: dict[Any, Tensor] = {}
    for v in variants:
        network = backbones[v.features].folded.to(device)
        model = _model(v, backbones, kept).eval().to(device)
        paths[v.digest] = _path(v, network, model, device)
        paths[v.features] = network  # on its own
        size = v.image_size
        images[v.digest] = torch.zeros(SPEED_BATCH, 3, size, size, device=device)
        images[v.features] = images[v.digest]
    torch.set_num_threads(cores())
    with torch.inference_mode():
        speeds = measure_speed(paths, images, device=device)
    for v in variants:  # what the flow and the map add to the backbone (the paper's "A.d. time")
        whole, alone = (speeds[key]["latency_ms"] for key in (v.digest, v.features))
        speeds[v.digest]["additional_ms"] = round(float(whole) - float(alone), 4)
        if not METHODS[v.method].trained:
            speeds[v.digest]["images_kept"] = kept
    return speeds


def _model(variant: Variant, backbones: dict[Spec, _Loaded], kept: int) -> Method:
    model = make_model(variant, backbones[variant.features].shapes, 0)
    model.fill(kept)
    return model


def _path(
    variant: Variant, backbone: Backbone, model: Method, device: str
) -> Callable[[Tensor], object]:
    model.to(memory_format=torch.channels_last)

    def path(images: Tensor) -> object:
        features = look(backbone, images, variant.views)
        with precision(variant, device):
            scores = model.energies(features)
        return score(variant, scores)

    return path


def _fitting(
    plan: Plan, cells: Sequence[Cell], backbones: dict[Spec, _Loaded], limit: int
) -> Iterator[list[str]]:
    """Categories in groups whose features fit into the cache together; one at the least."""
    specs = {c.variant.features: c.variant.feature_dtype for c in cells}
    group: list[str] = []
    total = 0
    for name in dict.fromkeys(c.category for c in cells):
        counts = plan.categories[name].counts()
        images = counts["train"] + counts["test"]
        size = sum(entry_bytes(backbones[s].shapes, images, dtype) for s, dtype in specs.items())
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group


def _features(
    plan: Plan,
    cells: Sequence[Cell],
    backbones: dict[Spec, _Loaded],
    cache: FeatureCache,
    settings: Settings,
) -> dict[tuple[Spec, str], FeatureKey]:
    """Pass every image that is not cached through its backbone, once."""
    wanted = dict.fromkeys((c.variant.features, c.category) for c in cells)
    keys = {
        (spec, name): _key(spec, backbones[spec], plan.categories[name]) for spec, name in wanted
    }
    total = sum(sum(plan.categories[n].counts()[k] for k in ("train", "test")) for _, n in wanted)
    cache.evict(keep=[k.digest for k in keys.values()])
    with _bar(total, "features", " images") as bar:
        for (spec, name), key in keys.items():
            bar.set_postfix_str(f"{name} × {key.backbone}")
            backbone, category = backbones[spec].folded, plan.categories[name]
            cache.ensure(
                key, backbone, category, device=torch_device(settings.device), progress=bar.update
            )
    cache.evict(keep=[k.digest for k in keys.values()])
    return keys


def _key(spec: Spec, loaded: _Loaded, category: Category) -> FeatureKey:
    name, weights, image_size, taps, dtype, resize, views = spec
    return FeatureKey(
        name, loaded.weights["sha256"], weights, taps, image_size, loaded.backbone.mean,
        loaded.backbone.std, dtype, category.dataset, category.name, category.digest, resize,
        views,
    )  # fmt: skip


def _train(jobs: Sequence[Job], plan: Plan, settings: Settings, outcome: Outcome) -> None:
    """Run the jobs; the bar counts multiply-accumulates, so that its time left is fair."""
    tasks: dict[Path, list[Job]] = {}  # jobs that differ in scoring alone are trained once
    for job in jobs:
        tasks.setdefault(job.training_place.raw, []).append(job)
    work = {raw: _epoch_work(task[0]) for raw, task in tasks.items()}
    left = {raw: task[0].variant.epochs for raw, task in tasks.items()}
    labels = plan.study.labels()
    ended = 0
    with _bar(sum(work[r] * left[r] for r in tasks), f"training 0/{len(jobs)} runs", "") as bar:
        for event in run_all(list(tasks.values()), parallel=runs_at_a_time(settings)):
            job, raw = event.job, event.job.training_place.raw
            name = f"{job.category.name}, {labels[job.variant.digest]}, seed {job.seed}"
            if event.kind == "epoch":
                epochs = f"epoch {event.epoch}/{job.variant.epochs}"
                bar.set_postfix_str(f"{name}, {epochs}", refresh=False)
                bar.update(work[raw])
                left[raw] -= 1
                continue
            ended += 1
            bar.set_description(f"training {ended}/{len(jobs)} runs")
            bar.update(work[raw] * left[raw])  # what was taken up, or failed early
            left[raw] = 0
            if event.kind == "done":
                outcome.recorded += 1
                continue
            outcome.failed.append((name, event.reason))
            write_failure(job.place, event.reason, traceback=event.traceback)


def _epoch_work(job: Job) -> int:
    macs = job.cost["macs"]
    return int(macs.get("step", macs["flow"])) * len(job.category.train)


def _bar(total: int, what: str, unit: str) -> "tqdm[Any]":
    shown = "{n_fmt}/{total_fmt}" if unit else "{percentage:.0f}%"
    return tqdm(
        total=total, desc=what, unit=unit,
        bar_format=f"{{desc}} |{{bar:20}}| {shown}{unit}, {{elapsed}}, "
        "{remaining} left{postfix}",
        # A log file gets a line now and then instead of a moving bar.
        mininterval=0.2 if os.isatty(2) else 15,
    )  # fmt: skip


def _headline(plan: Plan, missing: int) -> str:
    study = plan.study
    layouts = {c.layout for c in plan.categories.values()} - {plan.dataset}
    layout = "".join(f" (read as {name})" for name in layouts)
    return (
        f"{study.name}: {study.asks}\n"
        f"{len(study.variants)} variants × {len(plan.categories)} categories of "
        f"{plan.dataset}{layout} × "
        f"{len(study.seeds)} seeds = {len(plan.cells)} runs; "
        f"{len(plan.cells) - missing} recorded, {missing} to run"
    )

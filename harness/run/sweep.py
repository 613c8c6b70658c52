"""Running what is missing of a study: features once, then every training, cell by cell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from harness.claims import RESULTS, Claims
from harness.data.tiles import tiled
from harness.errors import InputError, RunFailed
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.settings import Settings
from harness.experiment.store import read_at, read_record, read_records, read_sound
from harness.experiment.study import Cell
from harness.features.cache import FeatureCache, making
from harness.features.defective import ensure_all
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.heartbeat import Holder
from harness.progress import progress
from harness.run.executors.contract import Executor, executor_elsewhere, open_executor
from harness.run.job import Job
from harness.run.kept import is_kept
from harness.run.machine import arithmetic, cores, settle, torch_device
from harness.run.measure import Cost, kept_images, measure, measure_speeds
from harness.run.memory import fitting_runs, study_memory
from harness.run.model import check_batches
from harness.run.order import in_groups
from harness.run.outcome import Outcome
from harness.run.plan import Plan, defective_wanted, images_to_pass
from harness.run.probe import plan_memory
from harness.run.process import give_back_memory, set_arithmetic
from harness.run.shards import part_of
from harness.run.share import name_of, train_shared

Say = Callable[[str], object]
Extractors = Mapping[FeatureSpec, Extractor]


def run_study(
    plan: Plan, settings: Settings, say: Say = print, *, executor: Executor | None = None
) -> Outcome:
    """Run what is missing; failed runs leave a note and the rest goes on.

    Other starts may do the same in the same folder: what one has claimed no other does, and what
    a dead one held is taken over (docs/reliability.md).

    Args:
        plan: the study's cells.
        settings: where and how they are run.
        say: is given a line for each step.
        executor: who runs the trainings; None: the one that the settings name.

    Raises:
        InputError: weights that cannot be had, or others than those of the records.
    """
    plan = part_of(plan, settings.shard)
    missing = plan.missing(kept=settings.keep)
    outcome = Outcome(already=len(plan.cells) - len(missing))
    say(_headline(plan, len(missing)))
    for cell in missing:
        check_batches(cell.variant, plan.images_of(cell.variant, cell.category)[0])
    claims = Claims(settings.results, RESULTS)
    claims.signs.say(
        study=plan.study.name, shard=plan.shard, runs=len(missing), doing="getting ready"
    )
    if missing:
        with claims:
            _run(plan, missing, settings, say, executor, claims, outcome)
    else:
        for left_in in (claims, _cache(settings).claims):
            with suppress(OSError, RunFailed, InputError):  # nothing need be written
                left_in.clean()
    say(outcome.line)
    return outcome


def _run(
    plan: Plan,
    missing: Sequence[Cell],
    settings: Settings,
    say: Say,
    executor: Executor | None,
    claims: Claims,
    outcome: Outcome,
) -> None:
    there = executor_elsewhere(settings)
    settings = there.settle(settings) if there else settle(settings)
    set_arithmetic(tf32=settings.tf32)  # of features and speeds, which are made here
    memory = _memory(plan, missing, settings, say, elsewhere=there is not None)
    settings = _without_speed(settings, say) if there else _fitting_jobs(settings, memory, say)
    executor = executor or there or open_executor(settings)
    settings = replace(settings, device=settings.devices[0])  # of features, speeds and costs
    if not settings.speed:  # else a speed would be measured beside it
        executor.prepare()
    extractors = _load_extractors(missing, settings)
    _same_weights(plan, extractors)
    costs = _costs(plan, missing, extractors, settings, say)
    executor.prepare()
    _set_aside(plan, missing, claims, say)
    cache = _cache(settings)
    cache.claims.signs.say(study=plan.study.name)
    with cache.claims:
        shapes = {spec: extractor.shapes for spec, extractor in extractors.items()}
        for names in in_groups(plan, missing, shapes, cache.limit):
            cells = [c for c in missing if c.category in names]
            keys = _keys(plan, cells, extractors, settings)
            with cache.claims.using({k.digest for k in keys.values()}):
                if there is None:
                    claims.signs.say(doing="making features")
                    _features(plan, cells, keys, extractors, cache, settings)
                give_back_memory()  # of speeds and features; a worker may need it
                jobs = [
                    _job(c, plan, extractors, keys, costs, memory, cache, settings) for c in cells
                ]
                claims.signs.say(doing="training")
                train_shared(jobs, plan, executor, claims, outcome, say)
    if there:
        say(there.where)
    made = there or cache
    outcome.passes, outcome.reused = made.passes, made.reused
    say(
        f"backbone passes: {made.passes} images passed, each once per backbone; "
        f"{made.reused} taken from the cache; {outcome.recorded} runs shared them"
    )


def _cache(settings: Settings) -> FeatureCache:
    return FeatureCache(settings.cache / "features", settings.cache_limit)


def _fitting_jobs(settings: Settings, memory: Mapping[str, int], say: Say) -> Settings:
    """Settle how many runs go side by side on this machine."""
    parallel, remark = fitting_runs(settings, max(memory.values()))
    if remark:
        say(remark)
    return replace(settings, jobs=parallel)


def _without_speed(settings: Settings, say: Say) -> Settings:
    """Leave speeds unmeasured where this machine has no such device as those that run."""
    try:
        torch_device(settings.device)
    except InputError:
        if settings.speed:
            say(f"speeds are not measured: this machine has no {settings.device}, its nodes do")
        return replace(settings, speed=False)
    return settings


def _memory(
    plan: Plan, cells: Sequence[Cell], settings: Settings, say: Say, *, elsewhere: bool
) -> dict[str, int]:
    """Digest → bytes of a variant's largest run, counted, or measured: of the GPU where it is."""
    records = read_records(plan.results, damaged=lambda error: None)
    if elsewhere:  # where this machine cannot try anything
        return study_memory(cells, plan.sizes, records, device=settings.device, tiles=plan.tiles)
    memory, said = plan_memory(plan, cells, records, settings)
    if said:
        say(said)
    return memory


def _set_aside(plan: Plan, missing: Sequence[Cell], claims: Claims, say: Say) -> None:
    """Keep the records of fewer images under another name: their runs are run again.

    Another start may have done so, and have recorded some of them by now. What is damaged, which
    has been said, is removed.
    """
    for cell in plan.damaged:
        place = plan.place(cell)
        for _ in claims.each([f"aside {place.record.relative_to(plan.results)}"], _ignore):
            if place.record.is_file() and read_sound(place, damaged=_ignore) is None:
                place.record.unlink(missing_ok=True)
    for place in map(plan.place, missing):
        if place.is_recorded(kept=True) and not is_kept(place.weights):
            place.weights.unlink(missing_ok=True)
    for cell in plan.grown:
        place, category = plan.place(cell), plan.categories[cell.category]
        for _ in claims.each([f"aside {place.record.relative_to(plan.results)}"], _ignore):
            if place.record.is_file() and (was := read_at(place).data.digest) != category.digest:
                place.record.replace(place.before(was))
    if plan.grown:
        say(
            f"{len(plan.grown)} runs were recorded on fewer images: they are run again, and the "
            f"records kept; `harness images`, with these options and --common {plan.results}, "
            "compares them on the images common to both"
        )


def _load_extractors(cells: Iterable[Cell], settings: Settings) -> dict[FeatureSpec, Extractor]:
    loaded = {}
    for spec in dict.fromkeys(c.variant.feature_spec for c in cells):
        _ = Extractor.on_meta(spec).shapes  # what cannot be is found before any weights are read
        loaded[spec] = Extractor.load(spec, settings.weights)
    return loaded


def _same_weights(plan: Plan, extractors: Extractors) -> None:
    """A study's records of one backbone are all of one weights file."""
    for cell in plan.study.cells(tuple(plan.sizes)):  # of all shards
        path, extractor = plan.place(cell).record, extractors.get(cell.variant.feature_spec)
        if extractor and path.is_file() and cell not in plan.damaged:
            there, now = read_record(path).weights.sha256, extractor.weights["sha256"]
            if there != now:
                raise InputError(
                    f"{path}: recorded with other weights of {cell.variant.backbone} (SHA-256 "
                    f"{there[:12]}…; now {now[:12]}…); expected the same; use another --results"
                )


def _costs(
    plan: Plan, cells: Sequence[Cell], extractors: Extractors, settings: Settings, say: Say
) -> dict[str, Cost]:
    """Digest → parameters, MACs and speed of every variant.

    A method that keeps training images keeps here as many as the largest category has, and at
    most KEPT: all banks are in memory at once. A record says how many.
    """
    variants = list(dict.fromkeys(c.variant for c in cells))
    kept = kept_images([*plan.sizes.values(), *plan.tiles.values()])
    costs = {v.digest: measure(v, kept) for v in variants}
    if not settings.speed:
        return costs
    say(f"measuring the speed of {len(variants)} variants, image to map, side by side")
    speeds = measure_speeds(variants, extractors, kept=kept, device=settings.device)
    return {digest: replace(cost, speed=speeds[digest]) for digest, cost in costs.items()}


def _ignore(*_: object) -> None:
    pass


def _keys(
    plan: Plan, cells: Sequence[Cell], extractors: Extractors, settings: Settings
) -> dict[tuple[FeatureSpec, str], FeatureKey]:
    """Which entries of the cache the cells need."""
    computed = arithmetic(settings.device)
    return {
        (spec, name): FeatureKey.of(extractors[spec], plan.categories[name], computed)
        for spec, name in defective_wanted(cells)
    }


def _features(
    plan: Plan,
    cells: Sequence[Cell],
    keys: Mapping[tuple[FeatureSpec, str], FeatureKey],
    extractors: Extractors,
    cache: FeatureCache,
    settings: Settings,
) -> None:
    """Pass every image that is not cached through its backbone, once over all starts."""
    cache.evict()
    wanted = defective_wanted(cells)
    entries: dict[str, list[tuple[FeatureSpec, str]]] = {}
    for which, key in keys.items():
        entries.setdefault(making(key.digest), []).append(which)
    total = sum(images_to_pass(cells, plan.sizes, plan.tiles).values())
    with progress("features", total, unit="images") as bar:

        def waiting(work: str, holder: Holder | None) -> None:
            bar.note(f"{entries[work][0][1]}: waiting for {name_of(holder)}, which makes them")

        for work in cache.claims.each(entries, waiting):
            for spec, name in entries[work]:
                bar.note(f"{name} × {spec.backbone}")
                key, device = keys[spec, name], settings.device
                shown = tiled(plan.categories[name], spec)
                ensure_all(
                    *(cache, key, wanted[spec, name], extractors[spec], shown),
                    device=device,
                    progress=bar.advance,
                )
    cache.evict()


def _job(
    cell: Cell,
    plan: Plan,
    extractors: Extractors,
    keys: Mapping[tuple[FeatureSpec, str], FeatureKey],
    costs: Mapping[str, Cost],
    memory: Mapping[str, int],
    cache: FeatureCache,
    settings: Settings,
) -> Job:
    spec, category = cell.variant.feature_spec, plan.categories[cell.category]
    return Job(
        variant=cell.variant,
        seed=cell.seed,
        category=category,
        cache=cache.folder,
        key=keys[spec, cell.category],
        shapes=extractors[spec].shapes,
        weights=extractors[spec].weights,
        cost=costs[cell.variant.digest],
        results=settings.results,
        device=settings.device,
        tf32=settings.tf32,
        threads=max(1, cores() // max(1, settings.jobs)),
        parallel=settings.jobs,
        memory=memory[cell.variant.digest],
        keep=settings.keep,
        checkpoint_minutes=settings.checkpoint_minutes,
    )


def _headline(plan: Plan, missing: int) -> str:
    study = plan.study
    layouts = {c.layout for c in plan.categories.values()} - {plan.dataset}
    which = f", shard {plan.shard}:" if plan.shard else " ="
    layout = "".join(f" (read as {name})" for name in layouts)
    lacks = f"; {plan.lacks}" if plan.absent else ""
    return (
        f"{study.name}: {study.asks}\n"
        f"{len(study.variants)} variants × {len(plan.categories)} categories of "
        f"{plan.dataset}{layout} × "
        f"{len(study.seeds)} seeds{which} {len(plan.cells)} runs; "
        f"{len(plan.cells) - missing} recorded, {missing} to run{lacks}"
    )

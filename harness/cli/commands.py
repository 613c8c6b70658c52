"""What the commands do. Heavy imports happen inside the commands that need them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.experiment.variant import parse
from harness.studies import STUDIES, get_study

EMBEDDED = "surfaces"

if TYPE_CHECKING:
    from harness.experiment.settings import Settings
    from harness.report.selection import Selection
    from harness.run.plan import Plan


def _assignments(option: str, texts: Sequence[str]) -> dict[str, Any]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{option}: expected FIELD=VALUE; got '{text}'")
        if option == "--where" and name in pairs:  # of --set the last one counts
            raise InputError(f"{option}: expected every field once; got {name} twice")
        if name == "smoke":
            raise InputError(f"{option}: smoke is not a setting; expected --smoke")
        pairs[name] = parse(name, value)
    return pairs


def _study_options(options: argparse.Namespace) -> dict[str, Any]:
    """The keywords of :func:`get_study` that the command line gives."""
    changed = _assignments("--set", options.set)
    if options.epochs is not None:
        changed["epochs"] = options.epochs
    if options.random_weights:
        changed["weights"] = "random"
    return {
        "variants": options.variant,
        "where": _assignments("--where", options.where),
        "set": changed,
        "seeds": options.seed,
        "smoke": options.smoke,
    }


def _settings(options: argparse.Namespace) -> "Settings":
    from harness.experiment.settings import Settings

    if options.jobs < 0:
        raise InputError(f"--jobs: expected a number of at least 1; got {options.jobs}")
    if not 0 < options.cache_limit < 2**40:
        raise InputError(f"--cache-limit: expected more than 0 GB; got {options.cache_limit}")
    if options.results.exists() and not options.results.is_dir():
        raise InputError(f"--results: expected a folder; got the file {options.results}")
    return Settings(
        results=options.results, data=options.data, weights=options.weights,
        categories=tuple(options.category), device=options.device, jobs=options.jobs,
        dataset=options.dataset, cache_limit=int(options.cache_limit * 2**30),
        speed=not options.no_speed,
    )  # fmt: skip


def _print_json(value: object) -> int:
    print(json.dumps(value, indent=1))
    return 0


def list_(options: argparse.Namespace) -> int:
    """Print the studies and their questions, or a study's variants."""
    if options.study:
        study = get_study(options.study)
        if options.json:
            return _print_json({name: v.changes() for v, name in study.named.items()})
        for variant, name in study.named.items():
            print(f"{variant.digest}  {name}")
        return 0
    if options.json:
        return _print_json({name: _about(study) for name, study in STUDIES.items()})
    for study in STUDIES.values():
        print(f"{study.name}  ({len(study.variants)} variants, {len(study.seeds)} seeds)")
        print(f"  {study.asks}")
        if study.mirrors:
            print(f"  mirrors: {study.mirrors}")
    return 0


def _about(study: Study) -> dict[str, Any]:
    return {
        "asks": study.asks,
        "mirrors": study.mirrors,
        "dataset": study.dataset,
        "seeds": study.seeds,
        "variants": study.labels(),
    }


def plan(options: argparse.Namespace) -> int:
    """Print a study's runs, and which of them are recorded."""
    from harness.run.estimate import estimate

    plan, settings = _planned(options), _settings(options)
    study = plan.study
    missing = set(plan.missing())
    rows = [
        {
            "variant": study.labels()[c.variant.digest],
            "digest": c.variant.digest,
            "category": c.category,
            "seed": c.seed,
            "recorded": c not in missing,
        }
        for c in plan.cells
    ]
    if options.json:
        about = {**_about(study), "categories": list(plan.sizes), "runs": rows}
        return _print_json({**about, "estimate": estimate(plan, settings)})
    base = study.variants[0].changes()
    print(f"{study.name}: {study.asks}")
    print("base: " + ", ".join(f"{k}={show(v)}" for k, v in base.items()))
    for row in rows:
        state = "recorded" if row["recorded"] else "to run"
        print(f"  {row['digest']}  {row['category']}  seed {row['seed']}  {state}", end="  ")
        print(row["variant"])
    print(f"{len(rows)} runs, {len(missing)} to run")
    if missing:
        print(_estimate_text(estimate(plan, settings)))
    return 0


def _estimate_text(cost: dict[str, Any]) -> str:
    about = "at most" if cost["at_most"] else "about"
    return (
        f"{about} {_hours(cost['train_seconds'])} of training, {cost['parallel']} runs at a time, "
        f"after {_hours(cost['backbone_seconds'])} of backbone; "
        f"{cost['results_bytes'] / 2**30:.2f} GiB of results, "
        f"{cost['cache_bytes'] / 2**30:.2f} GiB of features (--cache-limit bounds them)\n"
        f"rates from {cost['rates']}"
    )


def _hours(seconds: float) -> str:
    amount, unit = (seconds, "s") if seconds < 90 else (seconds / 60, "min")
    if seconds >= 5400:
        amount, unit = seconds / 3600, "h"
    return f"{float(f'{amount:.2g}'):g} {unit}"  # an estimate is good for two digits


def run(options: argparse.Namespace) -> int:
    """Run what is missing of a study and print its table; 1 if some run failed."""
    from harness.report.selection import Selection
    from harness.run.plan import make_plan
    from harness.run.sweep import run_study

    study = get_study(options.study, **_study_options(options))
    settings = _settings(options)
    plan = make_plan(study, settings)
    say = (lambda text: print(text, file=sys.stderr)) if options.json else print
    outcome = run_study(plan, settings, say)
    for name, reason in outcome.failed:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    selection = Selection(study, plan.results, plan.dataset, tuple(plan.categories))
    _print_table(selection, as_json=options.json)
    if options.report:
        _write_report(options, plan.dataset, list(plan.categories))
    return 1 if outcome.failed else 0


def _print_table(selection: "Selection", *, as_json: bool) -> None:
    from harness.report import tables

    frame = tables.runs(selection)
    if as_json:
        print(frame.to_json(orient="records", indent=1))
    else:
        summary = tables.summary(frame, selection.study)
        print(tables.as_text(summary, selection.runs_of_a_variant))


def report(options: argparse.Namespace) -> int:
    """Execute a study's notebook on what is recorded; without a study, every notebook."""
    if options.study:
        plan = _planned(options)
        _write_report(options, plan.dataset, list(plan.sizes))
        return 0
    from harness.report.pages import PAGES, write_page

    for name in (EMBEDDED, *_recorded(options.results)):
        options.study = name
        plan = _planned(options)
        _write_report(options, plan.dataset, list(plan.sizes))
    for name in PAGES:
        print(f"report: {write_page(name, options.results)}")
    return 0


def _recorded(results: Path) -> list[str]:
    """The paper's tables, and the other studies with a record."""
    from harness.experiment.record import read_records
    from harness.report.pages import NOTEBOOKS

    digests = {r.digest for r in read_records(results)}
    return [
        name
        for name, study in STUDIES.items()
        if name in NOTEBOOKS or (name != EMBEDDED and digests & set(study.labels()))
    ]


def _planned(options: argparse.Namespace) -> "Plan":
    """A study as asked for, with its cells; without data, by the published categories."""
    from harness.run.plan import make_plan, plan_without_data

    study = get_study(options.study, **_study_options(options))
    settings = _settings(options)
    embedded = (settings.dataset or study.dataset) == EMBEDDED
    make = make_plan if embedded or settings.data else plan_without_data
    return make(study, settings)


def _write_report(options: argparse.Namespace, dataset: str, categories: list[str]) -> None:
    from harness.report.pages import write_qualitative, write_report

    chosen = {**_study_options(options), "dataset": dataset, "categories": categories}
    pages = [write_report(options.study, options.results, chosen)]
    if options.study == EMBEDDED:
        pages.append(write_qualitative(options.study, options.results, chosen))
    for page in pages:
        print(f"report: {page}", file=sys.stderr if options.json else sys.stdout)


def cache(options: argparse.Namespace) -> int:
    """Show or clear the feature cache."""
    from harness.features.cache import FeatureCache

    cache = FeatureCache(options.results / "cache" / "features")
    entries = [
        {"entry": folder.name, "bytes": size, **meta["key"], "images": meta["images"]}
        for folder, meta, size in cache.entries()
    ]
    if options.clear:
        freed = cache.clear()
        print(f"cleared {len(entries)} entries, {freed / 2**20:.1f} MiB")
        return 0
    if options.json:
        return _print_json(entries)
    for e in entries:
        print(
            f"{e['entry']}  {e['bytes'] / 2**20:8.1f} MiB  {e['images']:4} images  "
            f"{e['dataset']}/{e['category']}  {e['backbone']} @ {e['image_size']}"
        )
    total = sum(e["bytes"] for e in entries)
    print(f"{len(entries)} entries, {total / 2**20:.1f} MiB below {cache.folder}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Print what this machine, the data and the weights give."""
    from harness.cli.doctor import examine

    report = examine(
        data=options.data, dataset=options.dataset, weights=options.weights,
        results=options.results,
    )  # fmt: skip
    if options.json:
        return _print_json(report)
    for section, facts in report.items():
        print(section)
        for name, value in facts.items():
            print(f"  {name:40} {value}")
    return 0

"""The command ``harness``. Heavy imports happen inside the commands that need them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import InputError
from harness.studies import STUDIES, get_study
from harness.study import Study
from harness.variant import parse, show

if TYPE_CHECKING:
    from harness.plan import Settings

ABOUT = """\
FastFlow ablations that can be reproduced.

A study asks one question. It lists variants of FastFlow, and runs each on every category with
every seed; a run leaves a record, a report is made from the records alone. What is recorded is
never trained again, so any command can be stopped (Ctrl-C) and started again.
"""
EXAMPLES = """\
examples:
  harness list                                       the studies and their questions
  harness run surfaces --report                      the embedded study: no download needed
  harness run kernels --data MVTEC --weights DIR --category bottle --epochs 20
  harness run kernels --data MVTEC --where kernels=3 --set norm=none
  harness run kernels --data MVTEC --smoke           everything once, in a minute

exit codes: 0 all recorded, 1 some run failed, 2 bad usage or input, 130 stopped by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except InputError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"harness: {error.filename}: expected to be allowed to write it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("harness: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `harness list | head`
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "harness", description=ABOUT, epilog=EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=harness.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Any, says: str, *groups: Any) -> None:  # noqa: ANN401
        sub = commands.add_parser(name, help=says, description=says, formatter_class=raw)
        sub.set_defaults(command=command)
        for group in groups:
            group(sub)

    add("list", _list, "the studies and their questions", _add_json)
    add("plan", _plan, "what a study would run, and what is recorded", *_STUDY)
    add("run", _run, "run what is missing of a study, and print its table", *_STUDY, _add_report)
    add("report", _report, "execute a study's notebook on what is recorded", *_STUDY)
    add("cache", _cache, "show or clear the feature cache", _add_results, _add_clear, _add_json)
    add("doctor", _doctor, "what this machine, data and weights give", *_DOCTOR)
    return parser


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help=f"one of: {', '.join(STUDIES)}")
    group = parser.add_argument_group("which runs")
    group.add_argument("--category", action="append", default=[], metavar="NAME")
    group.add_argument("--seed", action="append", type=int, default=[], metavar="N")
    group.add_argument(
        "--where", action="append", default=[], metavar="FIELD=VALUE",
        help="only the study's variants with this value, as in kernels=3,1",
    )  # fmt: skip
    group.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="change a field in every variant: other runs, other records",
    )  # fmt: skip
    group.add_argument("--epochs", type=int, metavar="N", help="the same as --set epochs=N")
    group.add_argument(
        "--random-weights", action="store_true",
        help="a backbone without trained weights; marked in every record",
    )  # fmt: skip
    group.add_argument(
        "--smoke", action="store_true",
        help="the smoke twin: one epoch, category and seed on a few images; never a result",
    )  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how they run")
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    group.add_argument(
        "--jobs", type=int, default=0, metavar="N",
        help="runs at a time; default: one a core, at most 8; one on a GPU",
    )  # fmt: skip
    group.add_argument(
        "--cache-limit", type=float, default=20, metavar="GB",
        help="size of the feature cache (default 20)",
    )  # fmt: skip


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder in MVTec AD's layout")
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="a folder of <backbone>.safetensors or .pth"
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_clear(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove all cached features")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", action="store_true", help="then write the report")


_STUDY = (_add_study, _add_data, _add_results, _add_machine, _add_json)
_DOCTOR = (_add_data, _add_results, _add_json)


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
        "where": _assignments("--where", options.where),
        "set": changed,
        "seeds": options.seed,
        "smoke": options.smoke,
    }


def _settings(options: argparse.Namespace) -> "Settings":
    from harness.plan import Settings

    if options.jobs < 0:
        raise InputError(f"--jobs: expected a number of at least 1; got {options.jobs}")
    if not 0 < options.cache_limit < 2**40:
        raise InputError(f"--cache-limit: expected more than 0 GB; got {options.cache_limit}")
    if options.results.exists() and not options.results.is_dir():
        raise InputError(f"--results: expected a folder; got the file {options.results}")
    return Settings(
        results=options.results, data=options.data, weights=options.weights,
        categories=tuple(options.category), device=options.device, jobs=options.jobs,
        cache_limit=int(options.cache_limit * 2**30),
    )  # fmt: skip


def _print_json(value: object) -> int:
    print(json.dumps(value, indent=1))
    return 0


def _list(options: argparse.Namespace) -> int:
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


def _plan(options: argparse.Namespace) -> int:
    from harness.plan import make_plan

    study = get_study(options.study, **_study_options(options))
    plan = make_plan(study, _settings(options))
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
        return _print_json({**_about(study), "categories": list(plan.categories), "runs": rows})
    base = study.variants[0].changes()
    print(f"{study.name}: {study.asks}")
    print("base: " + ", ".join(f"{k}={show(v)}" for k, v in base.items()))
    for row in rows:
        state = "recorded" if row["recorded"] else "to run"
        print(f"  {row['digest']}  {row['category']}  seed {row['seed']}  {state}", end="  ")
        print(row["variant"])
    print(f"{len(rows)} runs, {len(missing)} to run")
    return 0


def _run(options: argparse.Namespace) -> int:
    from harness.grid import run_study
    from harness.plan import make_plan

    study = get_study(options.study, **_study_options(options))
    settings = _settings(options)
    plan = make_plan(study, settings)
    say = (lambda text: print(text, file=sys.stderr)) if options.json else print
    outcome = run_study(plan, settings, say)
    for name, reason in outcome.failed:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    _print_table(study, plan.results, plan.dataset, list(plan.categories), as_json=options.json)
    if options.report:
        _write_report(options, plan.dataset, list(plan.categories))
    return 1 if outcome.failed else 0


def _print_table(
    study: Study, results: Path, dataset: str, categories: list[str], *, as_json: bool
) -> None:
    from harness import tables

    frame = tables.load(study, results, dataset=dataset, categories=categories)
    if as_json:
        print(frame.to_json(orient="records", indent=1))
    else:
        print(tables.as_text(tables.summary(frame, study)))


def _report(options: argparse.Namespace) -> int:
    from harness.plan import make_plan

    study = get_study(options.study, **_study_options(options))
    plan = make_plan(study, _settings(options))
    _write_report(options, plan.dataset, list(plan.categories))
    return 0


def _write_report(options: argparse.Namespace, dataset: str, categories: list[str]) -> None:
    from harness.reports import write_report

    chosen = {**_study_options(options), "dataset": dataset, "categories": categories}
    page = write_report(options.study, options.results, chosen)
    print(f"report: {page}", file=sys.stderr if options.json else sys.stdout)


def _cache(options: argparse.Namespace) -> int:
    from harness.features import FeatureCache

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


def _doctor(options: argparse.Namespace) -> int:
    from harness.doctor import examine

    report = examine(data=options.data, weights=options.weights, results=options.results)
    if options.json:
        return _print_json(report)
    for section, facts in report.items():
        print(section)
        for name, value in facts.items():
            print(f"  {name:40} {value}")
    return 0

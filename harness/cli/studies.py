"""Commands about studies. Heavy imports happen inside the commands that need them."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from harness.cli import options
from harness.cli.scale import Forecast, checked_forecast, forecast, in_hours, part_text
from harness.data.remarks import tell
from harness.errors import InputError
from harness.escape import in_csv, in_line
from harness.experiment.reference import as_markdown, field_facts
from harness.experiment.settings import GIB, Settings, Shard
from harness.experiment.study import Study
from harness.experiment.values import between, checked, show
from harness.experiment.variant import parse
from harness.studies import EMBEDDED, STUDIES, get_study
from harness.studies.outside import new_study

if TYPE_CHECKING:
    from harness.run.plan import Plan

JOBS = between(0, 1024)  # processes: more than any machine has cores; 0: as many as it takes
GIGABYTES = between(0.001, 10**6)  # from the features of an image to a petabyte
MINUTES = between(0, 10**6)  # between checkpoints; 0: only where a run is stopped


def list_studies(options: options.Listing) -> int:
    """Print the studies and their questions, or a study's variants."""
    if options.study:
        study = get_study(options.study)
        if options.json:
            return _print_json({name: v.changes() for v, name in study.named.items()})
        for variant, name in study.named.items():
            print(f"{variant.digest}  {in_line(name)}")
        return 0
    if options.json:
        return _print_json({name: _about(study) for name, study in STUDIES.items()})
    for study in STUDIES.values():
        print(f"{study.name}  ({len(study.variants)} variants, {len(study.seeds)} seeds)")
        print(f"  {study.asks}")
        if study.mirrors:
            print(f"  mirrors: {study.mirrors}")
    return 0


def fields(options: options.Fields) -> int:
    """Print every field of a variant: what it is, its values, who has it."""
    facts = field_facts()
    if options.json:
        return _print_json([f._asdict() for f in facts])
    if options.markdown:
        print(as_markdown(), end="")
        return 0
    for f in facts:
        print(f"{f.field} ({f.default})  {f.says}")
        print(f"  {f.values}; {f.stage}; methods: {f.methods}")
    return 0


def plan(options: Forecast) -> int:
    """Print a study's runs, which of them are recorded, and what the rest costs."""
    from harness.run.estimate import estimate
    from harness.run.shards import part_of

    settings = settings_of(options)
    checked_forecast(options)
    whole = _planned(options, settings)
    if options.on:
        return forecast(options, whole, settings)
    plan = part_of(whole, settings.shard)
    tell(plan.remarks, plan.read, strict=options.strict, out=said_to(options))
    missing, labels = set(plan.missing()), plan.study.labels()
    rows = [
        {
            "variant": labels[c.variant.digest],
            "digest": c.variant.digest,
            "category": c.category,
            "seed": c.seed,
            "recorded": c not in missing,
        }
        for c in plan.cells
    ]
    if options.json:
        categories = {"categories": list(plan.sizes), "absent": plan.absent}
        about = {**_about(plan.study), **categories, "runs": rows}
        return _print_json({**about, "estimate": estimate(plan, settings)})
    base = plan.study.variants[0].changes()
    print(f"{plan.study.name}: {plan.study.asks}")
    print("base: " + ", ".join(f"{k}={show(v)}" for k, v in base.items()))
    for row in rows:
        state = "recorded" if row["recorded"] else "to run"
        named = f"{row['category']}  seed {row['seed']}  {state}  {row['variant']}"
        print(f"  {row['digest']}  {in_line(named)}")
    print("; ".join(filter(None, (f"{len(rows)} runs, {len(missing)} to run", plan.lacks))))
    if settings.shard:
        print(part_text(whole, settings.shard))
    if missing:
        print(_estimate_text(estimate(plan, settings)))
    return 0


def run(options: options.Run) -> int:
    """Run what is missing of a study and print its table."""
    from harness.run.sweep import run_study

    return _work(options, settings_of(options), run_study, report=options.report)


def rescore(options: options.Study) -> int:
    """Compute metrics and scoring rules anew from saved energies; nothing is trained."""
    from harness.run.rescore import rescore_study

    return _work(options, _settings(options), rescore_study, report=False)


def images(options: options.Images) -> int:
    """List what each test image got in every recorded run, as CSV."""
    from harness.report import images as listing
    from harness.report.selection import Selection

    plan = _planned(options, _settings(options))
    selection = Selection(plan.study, plan.results, plan.dataset, plan.about)
    if options.common and not options.common.is_dir():
        raise InputError(f"--common: expected a folder of results; got {options.common}")
    if options.common is None:
        table = listing.images(selection)
    else:
        table = listing.on_common(selection, options.common)
    if options.json:
        print(table.to_json(orient="records", indent=1))
    else:
        print(in_csv(table.columns, table.itertuples(index=False, name=None)), end="")
    if table.empty:
        print("nothing to list: no records, or old ones (`harness rescore` lists their images)",
              file=sys.stderr)  # fmt: skip
    return 0


def new(options: options.New) -> int:
    """Write a commented study of your own into this folder, to start from."""
    file = new_study(options.name, Path(), taken=STUDIES)
    print(f"{file}: next, `harness list {file}` and `harness run {file} --smoke`")
    return 0


def _work(
    options: options.Study, settings: Settings, work: Callable[..., Any], *, report: bool
) -> int:
    """Work on a study, print its table and perhaps write its report; 1 if some run failed."""
    from harness.run.plan import make_plan

    plan = make_plan(asked_study(options), settings)
    tell(plan.remarks, plan.read, strict=options.strict, out=said_to(options))
    say = (lambda text: print(text, file=sys.stderr)) if options.json else print
    outcome = work(plan, settings, say)
    for name, reason in outcome.failed:
        print(in_line(f"failed: {name}: {reason}"), file=sys.stderr)
    _print_table(plan, as_json=options.json)
    if report:
        from harness.cli.reports import write_pages

        write_pages(options, plan)
    return 1 if outcome.failed else 0


def _print_table(plan: "Plan", *, as_json: bool) -> None:
    from harness.report import tables
    from harness.report.cautions import cautions
    from harness.report.selection import Selection

    selection = Selection(plan.study, plan.results, plan.dataset, plan.about)
    frame = tables.runs(selection)
    for said in cautions(selection):
        print(said, file=sys.stderr)
    if as_json:
        print(frame.to_json(orient="records", indent=1))
        return
    summary = tables.summary(frame, selection.study)
    print(tables.as_text(summary, selection.runs_of_a_variant))


def planned(options: options.Study | options.Report, *, checked: bool = True) -> "Plan":
    """Plan a study as it is asked for, wherever it runs; ``checked``: read its records too."""
    return _planned(options, _settings(options), checked=checked)


def _planned(
    options: options.Study | options.Report, settings: Settings, *, checked: bool = True
) -> "Plan":
    """A study as asked for, with its cells; without data, by the published categories."""
    from harness.run.plan import make_plan, plan_without_data

    study = get_study(str(options.study), **asked(options))
    embedded = (settings.dataset or study.dataset) == EMBEDDED
    make = make_plan if embedded or settings.data else plan_without_data
    return make(study, settings, checked=checked)


def said_to(options: options.Json) -> TextIO:
    """Give where a person reads on: beside JSON, standard error."""
    return sys.stderr if options.json else sys.stdout


def asked_study(options: options.Study | options.Status) -> Study:
    """Give the study as it is asked for."""
    return get_study(str(options.study), **asked(options))


def asked(options: options.Settings) -> dict[str, Any]:
    """Give the keywords of :func:`get_study` that the command line gives."""
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


def _settings(options: options.Study | options.Report) -> Settings:
    if options.results.exists() and not options.results.is_dir():
        raise InputError(f"--results: expected a folder; got the file {options.results}")
    return Settings(
        results=options.results,
        data=options.data,
        weights=options.weights,
        categories=tuple(options.category),
        dataset=options.dataset,
        folders=options.folders,
    )


def settings_of(options: options.Plan) -> Settings:
    """Give where and how the study is run."""
    checked("--jobs", options.jobs, Annotated[int, JOBS])
    checked("--cache-limit", options.cache_limit, Annotated[float, GIGABYTES])
    checked("--checkpoint-minutes", options.checkpoint_minutes, Annotated[float, MINUTES])
    _no_clash(options)
    return replace(
        _settings(options),
        device=options.device,
        tf32=options.tf32,
        jobs=options.jobs,
        cache_limit=int(options.cache_limit * GIB),
        speed=not options.no_speed,
        executor=options.executor,
        ray_address=options.ray_address,
        grow=options.grow,
        keep=options.keep,
        checkpoint_minutes=options.checkpoint_minutes,
        shard=Shard.parse(options.shard) if options.shard else None,
    )


def _no_clash(options: options.Plan) -> None:
    """Refuse what would have no effect beside another option."""
    several = len(options.device.split(","))
    for flag, given, wanted, has in (
        ("--ray-address", options.ray_address, "--executor ray", options.executor == "ray"),
        ("--grow", options.grow, "--executor local", options.executor == "local"),
        ("--grow", options.grow, "--device cpu", options.device in ("auto", "cpu")),
        ("--device", several > 1 and options.jobs, f"--jobs {several} or more, or none",
         options.jobs >= several),
    ):  # fmt: skip
        if given and not has:
            raise InputError(f"{flag}: expected {wanted} beside it; got another")


def _about(study: Study) -> dict[str, Any]:
    return {
        "asks": study.asks,
        "mirrors": study.mirrors,
        "dataset": study.dataset,
        "seeds": study.seeds,
        "variants": study.labels(),
    }


def _estimate_text(cost: dict[str, Any]) -> str:
    about, trained = "at most" if cost["at_most"] else "about", in_hours(cost["train_seconds"])
    return (
        f"{about} {trained} of training, {cost['parallel']} runs at a time, "
        f"after {in_hours(cost['backbone_seconds'])} of backbone; "
        f"{cost['results_bytes'] / GIB:.2f} GiB of results, "
        f"{cost['cache_bytes'] / GIB:.2f} GiB of features (--cache-limit bounds them), "
        f"{cost['memory_bytes'] / GIB:.2f} GiB of memory a run of "
        f"{cost['memory_available'] / GIB:.1f} available\n"
        + (f"{cost['warning']}\n" if cost["warning"] else "")
        + f"rates from {cost['rates']}"
    )


def _print_json(value: object) -> int:
    print(json.dumps(value, indent=1))
    return 0

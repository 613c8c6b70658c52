"""Commands that read records: pages, two sets of records compared, a mirror."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import options
from harness.cli.options import Json, Results, argument, option
from harness.cli.studies import asked, planned, said_to
from harness.errors import InputError, unknown, warn
from harness.studies import EMBEDDED, STUDIES

if TYPE_CHECKING:
    from harness.claims import Claims
    from harness.report.compare import Compared
    from harness.run.plan import Plan


SIDE = "a folder of results, or a commit of the repository that holds --results"


@dataclass(frozen=True, kw_only=True)
class Compare(Results, Json):
    """Hold which two sets of records are compared."""

    a: str = argument(SIDE, metavar="A")
    b: str = argument(f"{SIDE}; a positive difference is in its favour", metavar="B")
    metric: list[str] = option(
        "--metric", "default: image_auroc and pixel_auroc; may be repeated", metavar="NAME"
    )


@dataclass(frozen=True, kw_only=True)
class Mirror(Results):
    """Hold where records are mirrored to."""

    store: Path = option("--store", "MLflow's folder (default: mlruns)", Path("mlruns"),
                         metavar="DIR")  # fmt: skip


def report(options: options.Report) -> int:
    """Execute a study's notebook on what is recorded; without a study, every notebook."""
    if options.watch:
        return _watch(options)
    if options.study:
        written: list[list[Path] | None] = [write_pages(options, planned(options, checked=False))]
    else:
        from harness.experiment.store import held
        from harness.report.pages import PAGES, write_index, write_page

        page: Callable[[str], list[Path]]
        page = lambda name: _said([write_page(name, options.results)], options)
        with held(), _writing(options.results):
            studies = (replace(options, study=n) for n in (EMBEDDED, *_recorded(options.results)))
            written = [_unless_damaged(_report, asked) for asked in studies]
            written += [_unless_damaged(page, name) for name in PAGES]
            written.append(_said([write_index(options.results)], options))
    if options.json:
        print(json.dumps([str(page) for pages in written for page in pages or ()], indent=1))
    return 2 if None in written else 0


def _unless_damaged(write: Callable[..., list[Path]], *given: Any) -> list[Path] | None:  # noqa: ANN401
    """Write one of many reports; what is wrong with it is said, and the others are written."""
    try:
        return write(*given)
    except InputError as error:
        warn(error)
        return None


def _report(options: options.Report) -> list[Path]:
    return _said(_write(options, planned(options, checked=False)), options)


def _said(pages: list[Path], options: options.Json) -> list[Path]:
    for page in pages:
        print(f"report: {page}", file=said_to(options))
    return pages


def _watch(options: options.Report) -> int:
    """Follow a study that runs in another process."""
    from harness.report.selection import Selection
    from harness.report.watching import watch

    if not options.study:
        raise InputError("--watch: expected one study, as in `harness report surfaces --watch`")
    plan = planned(options, checked=False)
    look = lambda: Selection(plan.study, plan.results, plan.dataset, plan.about)
    watch(look, lambda live: write_pages(options, plan, live=live))
    return 0


def write_pages(
    options: options.Study | options.Report, plan: "Plan", *, live: bool = False
) -> list[Path]:
    """Write a study's page, the page of its photos where there are any, and the index."""
    from harness.experiment.store import held, uncollected
    from harness.report.pages import write_index

    with held(), uncollected(kept=False), _writing(plan.results):
        pages = _said(_write(options, plan, live=live), options)
        write_index(plan.results)
    return pages


def _write(
    options: options.Study | options.Report, plan: "Plan", *, live: bool = False
) -> list[Path]:
    from harness.report.pages import write_qualitative, write_report

    source = plan.study.source or str(options.study)
    chosen = {**asked(options), "dataset": plan.dataset, "categories": list(plan.about)}
    pages = [write_report(source, plan.results, chosen, options.category, live=live)]
    if not live and any(plan.place(cell).gallery.is_file() for cell in plan.cells):
        pages.append(write_qualitative(source, plan.results, chosen, options.category))
    return pages


def _writing(results: Path) -> "Claims":
    """Claims of a start that writes pages, for as long as it does."""
    from harness.claims import RESULTS, Claims

    claims = Claims(results, RESULTS)
    claims.signs.say(doing="writing pages")
    return claims


def _recorded(results: Path) -> list[str]:
    """The paper's tables, and the other studies with a record."""
    from harness.experiment.store import read_records
    from harness.report.pages import NOTEBOOKS

    digests = {r.digest for r in read_records(results, damaged=warn)}
    return [
        name
        for name, study in STUDIES.items()
        if name in NOTEBOOKS or (name != EMBEDDED and digests & set(study.labels()))
    ]


def compare(options: Compare) -> int:
    """Compare two folders of results, or two commits' records, paired run by run."""
    from harness.report.compare import compare, records_of
    from harness.score.metrics import METRICS

    metrics = options.metric or ["image_auroc", "pixel_auroc"]
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
    one, other = (records_of(text, options.results) for text in (options.a, options.b))
    found = compare(one, other, metrics)
    if options.json:
        print(json.dumps(_as_json(found), indent=1))
    else:
        _print(found, options.a, options.b)
    if not found.pairs:
        raise InputError(
            f"{options.a}, {options.b}: expected runs that both have, of the same variant, "
            "category, seed and images; found none"
        )
    return 0


def mirror(options: Mirror) -> int:
    """Mirror the records to a file store of MLflow (extra: mlflow)."""
    from harness.report.mirror import mirror

    written, there = mirror(options.results, options.store)
    print(f"{options.store}: {written} runs written, {there} were there already")
    return 0


def _as_json(found: "Compared") -> dict[str, Any]:
    rows = [
        {
            "dataset": dataset, "metric": metric, "variant": d.variant, "pairs": d.pairs,
            "a": a, "b": b, "difference": d.deciding.mean, "low": _known(d.interval[0]),
            "high": _known(d.interval[1]), "over": d.decides, "p": _known(d.adjusted),
            "verdict": d.verdict,
        }
        for dataset, metric, a, b, d in found.rows
    ]  # fmt: skip
    return {"pairs": found.pairs, "only_a": found.only[0], "only_b": found.only[1],
            "other_images": found.other_images, "rows": rows}  # fmt: skip


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _print(found: "Compared", a: str, b: str) -> None:
    heads = ("variant", "data", "metric", "runs", "A", "B", "B − A", "95 % interval", "verdict")
    rows = [
        (
            d.variant, dataset, metric, str(d.pairs), f"{mean_a:.2f}", f"{mean_b:.2f}",
            f"{d.deciding.mean:+.2f}",
            f"{d.interval[0]:+.2f} … {d.interval[1]:+.2f}" if isfinite(d.interval[0]) else "–",
            d.verdict,
        )
        for dataset, metric, mean_a, mean_b, d in found.rows
    ]  # fmt: skip
    print(f"A: {a}; B: {b}")
    _print_rows((heads, *rows))
    print(
        f"{found.pairs} runs are paired; {found.only[0]} are in A alone, {found.only[1]} in B"
        + (f"; {found.other_images} are on other images" if found.other_images else "")
        + ". B gains or loses where its p-value survives Holm's correction for the variants."
    )


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip())

"""What ``harness params``, ``gap`` and ``accept`` do."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bundled import bundled
from harness.cli import options
from harness.cli.options import Cells, Json, Results, option
from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError, unknown, warn
from harness.experiment.study import Study
from harness.paper.ledger import ledger
from harness.studies import EMBEDDED, get_study

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Baseline(Results):
    """Hold which records are compared with which."""

    baseline: Path | None = option(
        "--baseline", "accepted records (default: the harness's)", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class Gap(Baseline, Cells, Json):
    """Hold which runs of the embedded study are held to the baseline."""


def params(options: options.Json) -> int:
    """Print every reading's parameters and which of them round to a printed count."""
    from harness.paper.parameters import account

    rows = account(ledger())
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    print(
        f"{'backbone':16} {'kernels':8} {'coupling':9} {'steps':>5} {'width':>9} {'flow':>12} "
        f"{'+ LayerNorm':>12} {'printed':>8}  rounds to it"
    )
    for r in rows:
        both = "–" if not r["norm"] else f"{r['flow'] + r['norm']:,}"
        printed = "–" if r["published"] is None else f"{r['published']} M"
        print(
            f"{r['backbone']:16} {r['kernels']:8} {r['coupling']:9} {r['flow_steps']:5} "
            f"{r['width']:>9} {r['flow']:12,} {both:>12} {printed:>8}  {_rounds(r)}"
        )
    print(
        "\nTrainable parameters beside the backbone: flow, and with a trained LayerNorm before it "
        "(a ViT's own norm is frozen).\nC: channels at the tap. A width is the hidden channels of "
        "a subnet, whose input is C/2.\nA printed count that is unverified is marked (?)."
    )
    return 0


def gap(options: Gap) -> int:
    """Print published, ours, gap and verdict, and check the records against the baseline."""
    from harness.experiment.store import read_records
    from harness.paper import baseline as regression
    from harness.paper.gap import counted, gaps
    from harness.paper.parameters import accounting

    baseline = _folders(options) or bundled("results", "baseline")
    study, categories = _embedded(options)
    figures = ledger()
    fresh = accounting(figures, counted(figures))
    table = gaps(figures, read_records(options.results, damaged=warn), fresh["variants"])
    cells = regression.compare(study, categories, options.results, baseline)
    counts = regression.compare_counts(fresh, baseline)
    failed = [t[t["verdict"].isin(regression.FAILS)] for t in (cells, counts)]
    if options.json:
        parts = {"published": table, "regression": cells, "parameters": counts}
        print(json.dumps({k: _plain(t) for k, t in parts.items()}, indent=1, ensure_ascii=False))
    else:
        _print_published(table)
        _print_regression(cells, counts, failed)
    return int(any(len(f) for f in failed))


def accept(options: Baseline) -> int:
    """Make the recorded embedded study the baseline, printing what changes."""
    from harness.paper import baseline as regression
    from harness.paper.gap import counted
    from harness.paper.parameters import accounting

    baseline = _folders(options) or bundled("results") / "baseline"
    study, categories = get_study(EMBEDDED), list(PUBLISHED_COUNTS[EMBEDDED])
    figures = ledger()
    counts = accounting(figures, counted(figures))
    changed = regression.accept(study, categories, options.results, baseline, counts)
    print("\n".join(changed) or "nothing changes")
    print(f"{len(changed)} changes; the baseline is {baseline}")
    return 0


def _folders(options: Baseline) -> Path | None:
    """``--baseline``; it and ``--results`` may be missing, but are no files."""
    for name, folder in (("results", options.results), ("baseline", options.baseline)):
        if folder and folder.exists() and not folder.is_dir():
            raise InputError(f"--{name}: expected a folder; got the file {folder}")
    return options.baseline


def _embedded(options: Gap) -> tuple[Study, list[str]]:
    """The embedded study's cells that are asked for."""
    known = list(PUBLISHED_COUNTS[EMBEDDED])
    for name in options.category:
        if name not in known:
            raise unknown("category", name, known)
    study = get_study(EMBEDDED, variants=options.variant, seeds=options.seed)
    return study, options.category or known


def _rounds(row: dict[str, Any]) -> str:
    mark = " (?)" if row["status"] == "unverified" else ""
    if row["rounds"]:
        return f"yes{mark}"
    return f"with LayerNorm{mark}" if row["rounds_with_norm"] else ""


def _plain(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows with None for what does not exist: NaN is no JSON."""
    rows = json.loads(table.to_json(orient="records"))
    return list(rows)


def _print_published(table: "pd.DataFrame") -> None:
    from harness.paper.tables import tally

    own = table[(table["by"] == "FastFlow") & (table["method"] == "FastFlow")]
    print("FastFlow's own figures")
    for r in own.to_dict("records"):
        where = " ".join(filter(None, (r["setting"], r["backbone"], r["category"], r["metric"])))
        ours = "–" if r["seeds"] == 0 else f"{r['ours']:.2f} (n={r['seeds']}) {r['gap']:+.2f}"
        said = f"{r['verdict']}{': ' + r['why'] if r['why'] else ''}"
        print(f"  {r['table']:11} {where:62} {r['value']:6g} {r['unit']:8} {ours:>22}  {said}")
    rest = table.drop(own.index)
    print(f"{len(own)} figures: {tally(own)}")
    print(f"{len(rest)} of others (--json lists them): {tally(rest)}\n")


def _print_regression(
    cells: "pd.DataFrame", counts: "pd.DataFrame", failed: list["pd.DataFrame"]
) -> None:
    from harness.paper.baseline import CELL_POINTS, MEAN_POINTS
    from harness.paper.tables import tally

    print(
        f"against the baseline: {tally(cells)} (a run may move {CELL_POINTS['image_auroc']} "
        f"points, a mean {MEAN_POINTS}); parameter counts: {tally(counts)}"
    )
    missing = failed[0]["verdict"] == "missing"
    for cell in dict.fromkeys(failed[0][missing]["cell"]):
        print(f"  missing: {cell}")
    for r in failed[0][~missing].to_dict("records"):
        moved = f"{100 * r['reference']:.2f} → {100 * r['ours']:.2f}"
        print(f"  {r['verdict']}: {r['cell']}, {r['metric']}: {moved}")
    for r in failed[1].to_dict("records"):
        print(f"  {r['verdict']}: {r['cell']}: {r['reference']} → {r['ours']}")
    if any(len(f) for f in failed):
        print(
            "what is missing is run by `harness run surfaces`; a change that is meant is accepted "
            "with `harness accept`"
        )

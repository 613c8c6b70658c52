"""``python -m benchmarks.scale``: what large studies take on clusters, into docs/scale.md.

Nothing is measured here: the rates are those of the records that are committed, and stand in the
page; from them all else follows.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.render import table
from harness.cli.scale import in_hours
from harness.experiment.record import read_records
from harness.experiment.settings import GIB, Settings
from harness.experiment.study import Cell, Study, grid
from harness.files import write_whole
from harness.run.estimate import Counted, Rates, count, recorded_rates
from harness.run.plan import Plan, plan_without_data
from harness.run.simulate import Cluster, Forecast, as_if, simulate
from harness.studies import STUDIES
from harness.studies.paper import RESNET18

PAGE = Path("docs/scale.md")
RECORDS = Path("results/baseline")
CLUSTERS = tuple(
    map(Cluster.parse, ("1 node × 2 cores", "4 nodes × 16 cores", "4 nodes × 8 GPU",
                        "64 nodes × 8 GPU"))
)  # fmt: skip
LIMIT = 2000 * GIB  # of the cache: the features of a table of the paper fit
TABLES = ("table1", "table2", "table3", "table4")
LINES = {f"line {n:03}": (300, 100) for n in range(100)}  # images to train and to test on
FIFTY = Study(
    name="fifty",
    asks="Which of fifty flows is the one for each of a hundred production lines?",
    bases={"ResNet18": RESNET18.replace(epochs=100)},
    vary=grid(
        flow_steps=(4, 6, 8, 10, 12),
        kernels=((3,), (3, 1)),
        hidden_ratio=(0.25, 0.5, 1.0, 1.5, 2.0),
    ),
    dataset="folder",
)
Counts = list[tuple[Plan, Counted]]


def main() -> int:
    """Take the rates of the committed records, and write the page's tables anew."""
    records = list(read_records(RECORDS))
    rates = recorded_rates(records, f"of {RECORDS}")
    assert rates is not None
    dates = sorted(r.measured.finished[:10] for r in records)
    text = PAGE.read_text(encoding="utf-8")
    text = put(text, "rates", rates_table(rates, f"{dates[0]} to {dates[-1]}"))
    write_whole(PAGE, with_tables(text))
    print(f"wrote {PAGE}")
    return 0


def with_tables(text: str) -> str:
    """Give the page with its tables made anew from the rates that it states."""
    rates = stated_rates(text)
    paper, fifty = paper_counts(rates), [_counted(fifty_plan(), rates)]
    text = put(text, "paper", table(rows(paper, rates)))
    text = put(text, "small cache", table(rows(paper, rates, limit=20 * GIB)))
    return put(text, "lines", table(rows(fifty, rates)))


def put(text: str, name: str, content: str) -> str:
    """Put something between the page's marks of this name."""
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    assert begin, name
    assert end, name
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def rates_table(rates: Rates, dates: str) -> str:
    """State rates in a way that :func:`stated_rates` reads."""
    return table([
        {
            "training, s a multiply-accumulate": f"{rates.train:.3e}",
            "inference, s a multiply-accumulate": f"{rates.infer:.3e}",
            "threads of a run": rates.threads,
            "cores": rates.cores,
            "of": f"{rates.name} ({rates.source}, {dates})",
        }
    ])  # fmt: skip


def stated_rates(text: str) -> Rates:
    """Read the rates that the page states."""
    row = text.partition("<!-- rates -->")[2].partition("<!-- end")[0].strip().splitlines()[-1]
    train, infer, threads, cores, of = (c.strip() for c in row.strip("| ").split("|"))
    name = re.sub(r" \(.*", "", of)
    return Rates(float(train), float(infer), of, "cpu", name, int(threads), int(cores))


def paper_counts(rates: Rates) -> Counts:
    """Count the paper's tables, one after the other; what an earlier one records is recorded."""
    seen: set[tuple[Cell, str]] = set()
    found = []
    for name in TABLES:
        plan = plan_without_data(STUDIES[name], Settings(results=Path("nowhere")))
        cells = [c for c in plan.cells if (c, plan.dataset) not in seen]
        seen |= {(c, plan.dataset) for c in cells}
        found.append((plan, count(plan, cells, rates)))
    return found


def fifty_plan() -> Plan:
    """Plan fifty variants on a hundred production lines."""
    cells = tuple(FIFTY.cells(tuple(LINES)))
    return Plan(FIFTY, {}, LINES, "folder", Path("nowhere"), cells)


def _counted(plan: Plan, rates: Rates) -> tuple[Plan, Counted]:
    return plan, count(plan, plan.cells, rates)


def rows(counts: Counts, rates: Rates, limit: int = LIMIT) -> list[dict[str, object]]:
    """Play studies through, one after the other, on every cluster in both ways."""
    found = []
    for cluster in CLUSTERS:
        unit = as_if(rates, cluster)
        for shared in (True, False)[: 1 + (cluster.nodes > 1)]:
            each = [
                simulate(plan, counted, cluster, unit, shared=shared, limit=limit)
                for plan, counted in counts
            ]
            found.append(_row(cluster, each, shared=shared))
    return found


def _row(cluster: Cluster, each: Sequence[Forecast], *, shared: bool) -> dict[str, object]:
    wall = sum(f.wall_seconds for f in each)
    hours = sum(f.hours for f in each)
    busy = sum(f.busy * f.wall_seconds for f in each) / wall
    bound = max(each, key=lambda f: f.wall_seconds).bound
    folders = "any" if cluster.nodes == 1 else "one" if shared else "one a node"
    return {
        "on": str(cluster),
        "folders": folders,
        "wall time": _long(wall),
        "of it backbone": _long(sum(f.features_seconds for f in each)),
        "longest training": _long(max(f.longest_seconds for f in each)),
        "hours taken": f"{hours:,.0f}",
        "busy": f"{100 * busy:.0f} %",
        "features, GiB": f"{sum(f.features_bytes for f in each) / GIB:,.0f}",
        "results, GiB": f"{sum(f.results_bytes for f in each) / GIB:,.1f}",
        "moved, GiB": f"{sum(f.moved_bytes for f in each) / GIB:,.0f}",
        "bounded by": bound,
    }


def _long(seconds: float) -> str:
    """So many seconds as a person would say them; days from two on."""
    days = seconds / 86400
    return in_hours(seconds) if days < 2 else f"{float(f'{days:.3g}'):,g} days"


if __name__ == "__main__":
    sys.exit(main())

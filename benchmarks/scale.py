"""``python -m benchmarks.scale``: what large studies take on clusters, into docs/scale.md.

Nothing is measured here: the rates are those of docs/benchmarks.md, and stand in the page; from
them all else follows.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.render import table
from harness.cli.scale import in_hours
from harness.experiment.settings import GIB, Settings
from harness.experiment.study import Cell, Study, grid
from harness.files import write_whole
from harness.run.estimate import Counted, Rates, count
from harness.run.plan import Plan, plan_without_data
from harness.run.shards import training_works
from harness.run.simulate import Cluster, Forecast, as_if, simulate
from harness.studies import STUDIES
from harness.studies.paper import RESNET18

PAGE = Path("docs/scale.md")
MEASURED = Path("results/benchmarks/cpu-2-cores.json")  # of ResNet18 at 256 px, float32
CLUSTERS = tuple(
    map(Cluster.parse, ("1 node × 2 cores", "4 nodes × 16 cores", "4 nodes × 8 GPU",
                        "64 nodes × 8 GPU"))
)  # fmt: skip
LIMIT = 2000 * GIB  # of the cache: the features of a table of the paper fit
PAPER, CIFAR = ("table1", "table2", "table3"), ("table4",)
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
Counts = list[tuple[Plan, dict[Cell, int], Counted]]


def main() -> int:
    """Take the rates of the committed benchmarks, and write the page's tables anew."""
    text = PAGE.read_text(encoding="utf-8")
    write_whole(PAGE, with_tables(put(text, "rates", rates_table(measured()))))
    print(f"wrote {PAGE}")
    return 0


def with_tables(text: str) -> str:
    """Give the page with its tables made anew from the rates that it states."""
    rates = stated_rates(text)
    paper = counts([*map(_planned, PAPER)], rates)
    text = put(text, "paper", table(rows(paper, rates)))
    text = put(text, "small cache", table(rows(paper, rates, limit=20 * GIB)))
    text = put(text, "table 4", table(rows(counts([*map(_planned, CIFAR)], rates), rates)))
    return put(text, "lines", table(rows(counts([fifty_plan()], rates), rates)))


def put(text: str, name: str, content: str) -> str:
    """Put something between the page's marks of this name."""
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    assert begin, name
    assert end, name
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def measured() -> Rates:
    """Turn the benchmarks' GFLOP/s of training steps and of images to maps into rates.

    An operation of theirs is half a multiply-accumulate; a training step has three times those of
    the forward pass. A run has one of the two threads.
    """
    parts = json.loads(MEASURED.read_text(encoding="utf-8"))["parts"]
    steps = [t for name, t in parts["epoch"]["tables"].items() if name.startswith("Training step")]
    train = fmean(_speed(rows) for rows in steps)
    infer = _speed([r for r in parts["inference"]["tables"]["Inference"] if r["batch"] == 8])
    about = parts["epoch"]["environment"]
    source = f"{MEASURED}, {about['date']}"
    cores, name = about["cores"], about["device_name"]
    return Rates(6 * cores / train, 2 / infer, source, "cpu", name, threads=1, cores=cores)


def _speed(rows: Sequence[dict[str, Any]]) -> float:
    return float(next(1e9 * r["GFLOP/s"] for r in rows if r["side"] == "ours, float32"))


def rates_table(rates: Rates) -> str:
    """State rates in a way that :func:`stated_rates` reads."""
    return table([
        {
            "training, s a multiply-accumulate": f"{rates.train:.3e}",
            "inference, s a multiply-accumulate": f"{rates.infer:.3e}",
            "threads of a run": rates.threads,
            "cores": rates.cores,
            "of": f"{rates.name} ({rates.source})",
        }
    ])  # fmt: skip


def stated_rates(text: str) -> Rates:
    """Read the rates that the page states."""
    row = text.partition("<!-- rates -->")[2].partition("<!-- end")[0].strip().splitlines()[-1]
    train, infer, threads, cores, of = (c.strip() for c in row.strip("| ").split("|"))
    name = re.sub(r" \(.*", "", of)
    return Rates(float(train), float(infer), of, "cpu", name, int(threads), int(cores))


def counts(plans: Sequence[Plan], rates: Rates) -> Counts:
    """Count plans, one after the other; what an earlier one records is recorded."""
    seen: set[tuple[Cell, str]] = set()
    found = []
    for plan in plans:
        cells = [c for c in plan.cells if (c, plan.dataset) not in seen]
        seen |= {(c, plan.dataset) for c in cells}
        found.append((plan, training_works(plan), count(plan, cells, rates)))
    return found


def _planned(name: str) -> Plan:
    return plan_without_data(STUDIES[name], Settings(results=Path("nowhere")))


def fifty_plan() -> Plan:
    """Plan fifty variants on a hundred production lines."""
    cells = tuple(FIFTY.cells(tuple(LINES)))
    return Plan(FIFTY, {}, LINES, "folder", Path("nowhere"), cells)


def rows(counts: Counts, rates: Rates, limit: int = LIMIT) -> list[dict[str, object]]:
    """Play studies through, one after the other, on every cluster in both ways."""
    found = []
    for cluster in CLUSTERS:
        unit = as_if(rates, cluster)
        for shared in (True, False)[: 1 + (cluster.nodes > 1)]:
            each = [
                simulate(plan, works, counted, cluster, unit, shared=shared, limit=limit)
                for plan, works, counted in counts
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

"""What a study takes on a cluster, and in parts. Heavy imports happen inside the functions."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.cli.options import HOW, Plan, option
from harness.errors import InputError, warn
from harness.escape import in_line
from harness.experiment.settings import GIB, Settings, Shard

if TYPE_CHECKING:
    from harness.run.plan import Plan as StudyPlan
    from harness.run.simulate import Cluster, Unit
    from harness.run.simulate import Forecast as Found

ON = "what it would take on a cluster, as '4 nodes × 8 GPU' or '2 nodes x 16 cores'"


@dataclass(frozen=True, kw_only=True)
class Forecast(Plan):
    """Hold a study, how it would be run, and perhaps on which cluster."""

    on: str = option("--on", ON, "", metavar="CLUSTER", group=HOW)


def checked_forecast(options: Forecast) -> None:
    """Refuse what cannot be foretold, before anything is read.

    Raises:
        InputError: no cluster, a shard of one, or an executor elsewhere without one.
    """
    if not options.on:
        if options.executor != "local":
            raise InputError(
                f"plan --executor {options.executor}: expected --on beside it, as in "
                "--on '2 nodes × 16 cores', since a plan asks no cluster; got none"
            )
        return
    from harness.run.simulate import Cluster

    Cluster.parse(options.on)
    if options.shard:
        raise InputError(
            f"--on: expected without --shard, as it deals out all shards itself; got --shard "
            f"{options.shard}"
        )


def forecast(options: Forecast, plan: "StudyPlan", settings: Settings) -> int:
    """Print what is left of a plan would take on a cluster: on one folder, and on one a node."""
    from harness.experiment.store import read_records
    from harness.run.estimate import count
    from harness.run.shards import training_works
    from harness.run.simulate import Cluster, as_json, simulate, unit_of

    cluster, missing = Cluster.parse(options.on), plan.missing()
    if not missing:
        print("{}" if options.json else "nothing to run: all is recorded")
        return 0
    unit = unit_of(cluster, read_records(settings.results, damaged=warn), settings)
    counted, works = count(plan, missing, unit.rates), training_works(plan)
    limit = settings.cache_limit
    ways = {
        name: simulate(plan, works, counted, cluster, unit, shared=shared, limit=limit)
        for name, shared in (("shared_folder", True), ("folder_per_node", False))
    }
    if options.json:
        print(json.dumps(as_json(ways, unit), indent=1))
        return 0
    print(
        f"{plan.study.name} on {cluster}: {len(missing)} runs, "
        f"{len(counted.trainings)} trainings, {cluster.nodes * unit.slots} at a time"
        + (f" (--jobs {unit.slots} on each node)" if cluster.kind == "core" else "")
        + ("; at most" if counted.at_most else "")
    )
    for name, found in ways.items():
        print(_way(found, cluster, shared=name == "shared_folder"))
    print(_counted_as(cluster, unit))
    return 0


def _way(found: "Found", cluster: "Cluster", *, shared: bool) -> str:
    where = "one shared folder" if shared else "a folder a node, joined"
    unit = "GPU" if cluster.kind == "GPU" else "core"
    moved = f", {found.moved_bytes / GIB:.2f} GiB between machines" if found.moved_bytes else ""
    return (
        f"  {where}: {in_hours(found.wall_seconds)}, of them {in_hours(found.features_seconds)} "
        f"of backbone; bounded by {found.bound} (the longest takes "
        f"{in_hours(found.longest_seconds)})\n"
        f"    {found.hours:.3g} {unit} hours, {100 * found.busy:.0f} % of them in training; "
        f"{found.results_bytes / GIB:.2f} GiB of results, "
        f"{found.features_bytes / GIB:.2f} GiB of features{moved}"
    )


def _counted_as(cluster: "Cluster", unit: "Unit") -> str:
    said = f"rates from {unit.rates.source}"
    if cluster.kind == "GPU" and unit.says:
        said = (
            f"no record of a GPU is known: each is counted as if it were {unit.says}; "
            f"{said}\n"
            "to measure one: `harness run surfaces --device cuda --results DIR` where there is "
            "one, then this again with these --results"
        )
    return in_line(said) if "\n" not in said else "\n".join(map(in_line, said.splitlines()))


def part_text(plan: "StudyPlan", shard: Shard) -> str:
    """Say how much of a plan one shard is, and how even all are."""
    from harness.run.shards import deal, imbalance, training_works

    works = training_works(plan)
    parts = deal(works, shard.of)
    mine = parts[shard.number - 1]
    even = f"{100 * imbalance(works, parts):.0f} %" if works else "0 %"
    return (
        f"shard {shard}: {len(mine)} of {len(works)} runs; the shard with the most work has "
        f"{even} more than the mean"
    )


def in_hours(seconds: float) -> str:
    """Say so many seconds as a person would."""
    amount, unit = (seconds, "s") if seconds < 90 else (seconds / 60, "min")
    if seconds >= 5400:
        amount, unit = seconds / 3600, "h"
    return f"{float(f'{amount:.2g}'):g} {unit}"  # an estimate is good for two digits

"""How long a plan would take on a cluster, played through in the order in which it is run.

Nothing is run. Trainings go to whoever is free, the longest first (:func:`longest_first`), in
groups whose features fit into the cache (:func:`in_groups`), or are dealt out to folders of their
own before (:func:`deal`): the functions that the sweep itself calls.
"""

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from harness.errors import InputError
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.run.estimate import Counted, Rates, measured_rates, recorded_rates
from harness.run.order import in_groups, longest_first
from harness.run.plan import Plan
from harness.run.shards import deal

LINE = 125e6  # bytes a second between machines: a network of 1 Gbit/s
NEARLY = 0.9  # of the time of all trainings: who takes that long bounds it
FORMS = re.compile(
    r"(\d{1,6})\s*nodes?\s*[×x*]\s*(\d{1,6})\s*(GPU|core)s?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class Cluster:
    """Name so many equal machines, and what each has.

    Attributes:
        nodes: machines.
        each: GPUs or cores of one.
        kind: which of them.

    >>> Cluster.parse("4 nodes × 8 GPU")
    Cluster(nodes=4, each=8, kind='GPU')
    """

    nodes: int
    each: int
    kind: Literal["GPU", "core"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``N nodes × M GPU`` or ``N nodes × M cores``; ``x`` and ``*`` are a ``×`` too.

        Raises:
            InputError: anything else.
        """
        found = FORMS.fullmatch(text.strip())
        if not found or not int(found[1]) or not int(found[2]):
            raise InputError(
                f"--on: expected as in '4 nodes × 8 GPU', '4 nodes x 8 GPUs' or '1 node × 2 "
                f"cores'; got '{text}'"
            )
        return cls(int(found[1]), int(found[2]), "GPU" if found[3].upper() == "GPU" else "core")

    def __str__(self) -> str:
        """Write it as it is given."""
        nodes = f"{self.nodes} node" + "s" * (self.nodes > 1)
        return f"{nodes} × {self.each} {self.kind}" + "s" * (self.each > 1 and self.kind == "core")


@dataclass(frozen=True)
class Unit:
    """Say what a GPU or core of a cluster is taken to be.

    Attributes:
        rates: measured.
        slots: runs that go side by side on a node.
        passing: how much longer a node passes images than the machine that was measured.
        says: what was measured, where it is not what is asked about; else empty.

    >>> Unit(Rates(1e-9, 1e-10, "a stopwatch"), slots=2, passing=0.5).says
    ''
    """

    rates: Rates
    slots: int
    passing: float
    says: str = ""


@dataclass(frozen=True)
class Forecast:
    """Say how long a plan takes on a cluster, and what it moves.

    Attributes:
        wall_seconds: from the first image to the last record.
        features_seconds: of them, in which images pass backbones and nothing is trained.
        longest_seconds: the longest single training.
        busy: the share of all slots' time in which they train.
        groups: of categories, one after the other, as their features fit into the cache.
        hours: GPU hours or core hours that are taken: nodes × what each has × wall time.
        features_bytes: on all nodes' disks, were nothing evicted.
        results_bytes: energies and records.
        moved_bytes: between machines: what is read from a shared folder and written there at the
            least, or joined at the end.
        bound: what bounds the wall time.

    >>> Forecast(3600.0, 0.0, 1800.0, 0.75, 1, 2.0, 0, 0, 0, "the total work").hours
    2.0
    """

    wall_seconds: float
    features_seconds: float
    longest_seconds: float
    busy: float
    groups: int
    hours: float
    features_bytes: int
    results_bytes: int
    moved_bytes: int
    bound: str


def unit_of(cluster: Cluster, records: Iterable[Record], settings: Settings) -> Unit:
    """Find what is measured of what a cluster has.

    Args:
        cluster: which.
        records: which may be of other machines: of a GPU, those of the one with most of them.
        settings: of this machine, which is measured where no record tells.
    """
    records = list(records)
    if cluster.kind == "core":
        cpu = Settings(results=settings.results, device="cpu", jobs=settings.jobs)
        return as_if(measured_rates(records, cpu), cluster, settings.jobs)
    by_name: dict[str, list[Record]] = {}
    for r in records:
        if r.environment.device.startswith("cuda"):
            by_name.setdefault(r.environment.device_name, []).append(r)
    for name, own in sorted(by_name.items(), key=lambda item: -len(item[1])):
        if gpu := recorded_rates(own, f"on {name}"):
            return Unit(gpu, cluster.each, 1.0)
    if settings.executor != "local":  # the device that is asked for is a node's
        settings = replace(settings, device="auto")
    return as_if(measured_rates(records, settings), cluster)


def as_if(rates: Rates, cluster: Cluster, jobs: int = 0) -> Unit:
    """Take a cluster's cores for those that were measured, a GPU for what one run had of them.

    Args:
        rates: of a processor, or of a GPU, which is taken for itself.
        cluster: of GPUs or cores.
        jobs: runs at a time on each node of cores; 0: as many as have the threads that a run had.
    """
    if cluster.kind == "core":
        threads = max(1, cluster.each // jobs) if jobs else min(rates.threads, cluster.each)
        if threads != rates.threads:
            slower = rates.train * rates.threads / threads
            rates = replace(rates, train=slower, threads=threads)
        return Unit(rates, max(1, cluster.each // rates.threads), rates.cores / cluster.each)
    if rates.device != "cpu":
        return Unit(rates, cluster.each, 1.0)
    said = f"{rates.threads} core" + "s" * (rates.threads > 1)
    return Unit(rates, cluster.each, rates.cores / rates.threads, f"{said} of {rates.name}")


def simulate(
    plan: Plan,
    works: Mapping[Cell, float],
    counted: Counted,
    cluster: Cluster,
    unit: Unit,
    *,
    shared: bool,
    limit: int,
) -> Forecast:
    """Play a plan through on a cluster.

    Args:
        plan: of which something is left.
        works: of all its cells (:func:`harness.run.shards.training_works`): by them trainings are
            dealt, and the longest is told.
        counted: what is left takes, by the unit's rates.
        cluster: on which.
        unit: what its GPUs or cores are.
        shared: whether the nodes share one folder, in which features are made once; else each
            has a shard and a folder of its own, and makes the features that its shard needs.
        limit: bytes of each cache of features.

    Returns:
        The forecast; on one node both ways are the same.
    """
    play = _Play(plan, works, counted, cluster, unit)
    run = play.shared if shared else play.apart
    wall, features, groups = run(limit)
    features_bytes, moved = play.traffic(shared=shared)
    results = sum(counted.results.values())
    line = moved / LINE if cluster.nodes > 1 else 0.0
    longest = max(counted.trainings.values())
    slots = cluster.nodes * unit.slots
    bound = "the total work"
    if line > wall:
        bound = "traffic to the shared folder, at 1 Gbit/s" if shared else "joining the folders"
    elif features > wall / 2:
        bound = "features"
    elif longest >= NEARLY * (wall - features):
        few = f", as {len(counted.trainings)} trainings are fewer than {slots} slots"
        bound = "its longest training" + few * (len(counted.trainings) < slots)
    elif groups > 1 and run(10**18)[0] < NEARLY * wall:
        bound = f"the cache: its limit makes {groups} groups of categories"
    wall = max(wall, line)
    return Forecast(
        wall_seconds=wall,
        features_seconds=features,
        longest_seconds=longest,
        busy=sum(counted.trainings.values()) / (slots * wall),
        groups=groups,
        hours=cluster.nodes * cluster.each * wall / 3600,
        features_bytes=features_bytes,
        results_bytes=results,
        moved_bytes=moved if cluster.nodes > 1 else 0,
        bound=bound,
    )


def hand_out(seconds: Sequence[float], slots: int) -> list[tuple[float, int]]:
    """Let whoever is free take the next piece; when each one ends, and on which slot.

    >>> hand_out([3, 2, 2], slots=2)
    [(3, 0), (2, 1), (4, 1)]
    """
    free: list[tuple[float, int]] = [(0, slot) for slot in range(min(slots, len(seconds)))]
    ends = []
    for each in seconds:
        since, slot = free[0]
        heapq.heapreplace(free, (since + each, slot))
        ends.append((since + each, slot))
    return ends


@dataclass
class _Play:
    """One plan on one cluster."""

    plan: Plan
    works: Mapping[Cell, float]
    counted: Counted
    cluster: Cluster
    unit: Unit

    def __post_init__(self) -> None:
        self.needed: list[set[tuple[FeatureSpec, str]]] = []  # features, by node

    def shared(self, limit: int) -> tuple[float, float, int]:
        """Wall time, seconds of features in it, and groups, where all nodes share a folder."""
        self.needed = [set() for _ in range(self.cluster.nodes)]
        return self._in_groups(list(self.counted.trainings), range(self.cluster.nodes), limit)

    def apart(self, limit: int) -> tuple[float, float, int]:
        """Do the same where each has a shard: of the node that takes longest."""
        self.needed = [set() for _ in range(self.cluster.nodes)]
        trainings = self.counted.trainings
        mine = [
            [c for c in part if c in trainings] for part in deal(self.works, self.cluster.nodes)
        ]
        return max(self._in_groups(part, [node], limit) for node, part in enumerate(mine))

    def traffic(self, *, shared: bool) -> tuple[int, int]:
        """Count the bytes of features on all disks, and those moved between machines."""
        sizes, results = self.counted.features, sum(self.counted.results.values())
        read = sum(sizes[which] for needed in self.needed for which in needed)
        if not shared:
            return read, results
        made = sum(sizes.values())
        return made, made + read + results

    def _in_groups(
        self, cells: Sequence[Cell], nodes: Sequence[int], limit: int
    ) -> tuple[float, float, int]:
        wall = features = 0.0
        groups = 0
        slots = len(nodes) * self.unit.slots
        for names in in_groups(self.plan, cells, self.counted.shapes, limit):
            group = [c for c in cells if c.category in names]
            passes = dict.fromkeys((c.variant.feature_spec, c.category) for c in group)
            seconds = [self.counted.passes[which] * self.unit.passing for which in passes]
            passed = _last(hand_out(seconds, len(nodes)))
            order = longest_first(group, self.works.__getitem__)
            ends = hand_out([self.counted.trainings[c] for c in order], slots)
            features, wall = features + passed, wall + passed + _last(ends)
            for cell, (_, slot) in zip(order, ends, strict=True):
                node = nodes[slot // self.unit.slots]
                self.needed[node].add((cell.variant.feature_spec, cell.category))
            groups += 1
        return wall, features, groups


def _last(ends: Sequence[tuple[float, int]]) -> float:
    return max((end for end, _ in ends), default=0.0)


def as_json(ways: Mapping[str, Forecast], unit: Unit) -> dict[str, Any]:
    """Give all numbers of some forecasts, and the rates that they are counted by."""
    return {
        "rates": asdict(unit.rates),
        "counted_as": unit.says,
        "slots_per_node": unit.slots,
        **{name: asdict(forecast) for name, forecast in ways.items()},
    }

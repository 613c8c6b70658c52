"""A plan played through on a cluster: by pencil, and within the bounds of list scheduling."""

import random
from itertools import product

import pytest
from tiny import TINY

from harness.errors import InputError
from harness.experiment.study import Cell, Study
from harness.run import simulate as module
from harness.run.estimate import Counted, Rates
from harness.run.order import longest_first
from harness.run.plan import Plan
from harness.run.simulate import Cluster, Unit, as_if, hand_out, simulate

RATES = Rates(1e-9, 1e-10, "a stopwatch", "cpu", "chip", threads=1, cores=2)
GPU = Rates(1e-11, 1e-12, "a stopwatch", "cuda", "card")
HUGE = 10**18
SHAPES = ((1, 1, 1),)  # 4 bytes an image


@pytest.fixture
def play():
    """Play trainings of given seconds, one a category, on so many nodes of so many cores."""

    def played(seconds, nodes, each, *, shared=True, limit=HUGE, passing=0.0, sizes=None, res=0):
        study = Study(name="s", asks="?", bases={"b": TINY}, seeds=(0,))
        sizes = sizes or dict.fromkeys((f"c{i}" for i in range(len(seconds))), (1, 1))
        cells = tuple(Cell(TINY, name, 0) for name in sizes)
        plan = Plan(study, {}, sizes, "d", None, cells)
        times = dict(zip(cells, seconds, strict=True))
        which = [(TINY.feature_spec, name) for name in sizes]
        counted = Counted(
            trainings=times, results=dict.fromkeys(cells, res),
            passes=dict.fromkeys(which, passing),
            features={w: 4 * sum(sizes[w[1]]) for w in which},
            shapes={TINY.feature_spec: SHAPES}, at_most=False,
        )  # fmt: skip
        cluster = Cluster(nodes, each, "core")
        unit = Unit(RATES, each, 1.0)
        return simulate(plan, times, counted, cluster, unit, shared=shared, limit=limit)

    return played


def test_five_trainings_on_two_slots(play):
    """Longest first: 5 + 3 on one, 4 + 3 + 2 on the other."""
    found = play([3, 4, 2, 5, 3], nodes=1, each=2)
    assert found.wall_seconds == 9
    assert found.longest_seconds == 5
    assert found.busy == pytest.approx(17 / 18)
    assert found.hours == pytest.approx(2 * 9 / 3600)
    assert found.bound == "the total work"


def test_a_folder_each_is_dealt_before_and_one_folder_as_they_go(play):
    """6 5 4 3 2 on two nodes of two: dealt 6+3+2 and 5+4; in one folder 6, 5, 4+2, 3."""
    assert play([6, 5, 4, 3, 2], nodes=2, each=2, shared=True).wall_seconds == 6
    apart = play([6, 5, 4, 3, 2], nodes=2, each=2, shared=False)
    assert apart.wall_seconds == 6
    assert apart.hours == pytest.approx(4 * 6 / 3600)


def test_one_long_training_bounds_whatever_is_added(play):
    for nodes in (2, 8, 64):
        found = play([100, 1, 1], nodes=nodes, each=2)
        assert found.wall_seconds == 100
        few = f", as 3 trainings are fewer than {2 * nodes} slots"
        assert found.bound == "its longest training" + few


def test_features_are_made_once_in_one_folder_and_by_all_who_need_them_apart(play):
    """Four categories of 10 s: two nodes make two each, or all that their own trainings need."""
    once = play([1, 1, 1, 1], nodes=2, each=2, passing=10)
    assert (once.wall_seconds, once.features_seconds, once.bound) == (21, 20, "features")
    apart = play([1, 1, 1, 1], nodes=2, each=2, shared=False, passing=10)
    assert apart.features_seconds == 20
    one = play([1, 1, 1, 1], nodes=1, each=2, passing=10)
    assert (one.wall_seconds, one.moved_bytes) == (42, 0)


def test_a_small_cache_makes_groups_that_wait_for_each_other(play):
    """Two categories fit (8 bytes each): 3 and 1, then 3 and 1, on two slots."""
    found = play([3, 1, 3, 1], nodes=1, each=2, limit=16)
    assert (found.wall_seconds, found.groups) == (6, 2)
    assert found.bound == "the cache: its limit makes 2 groups of categories"
    assert play([3, 1, 3, 1], nodes=1, each=2).wall_seconds == 4


def test_what_cannot_be_moved_in_time_bounds(play):
    """Two results of 1 GB and 32 bytes of features, made once and read by who needs them."""
    found = play([1, 1], nodes=2, each=1, res=10**9)
    assert found.moved_bytes == 2 * 10**9 + 16 + 16
    assert found.wall_seconds == found.moved_bytes / module.LINE
    assert found.bound == "traffic to the shared folder, at 1 Gbit/s"


@pytest.mark.parametrize("seed", range(20))
def test_longest_first_is_within_grahams_bound(seed):
    """At most 4/3 - 1/(3m) of the best, which is no less than the mean and the longest."""
    rng = random.Random(seed)
    slots = rng.randint(1, 5)
    seconds = [rng.randint(1, 40) for _ in range(rng.randint(1, 7))]
    ends = hand_out(longest_first(seconds, float), slots)
    wall = max(end for end, _ in ends)
    best = min(
        max(sum(s for s, at in zip(seconds, where, strict=True) if at == slot)
            for slot in range(slots))
        for where in product(range(min(slots, 3)), repeat=len(seconds))
    ) if slots <= 3 else max(max(seconds), sum(seconds) / slots)  # fmt: skip
    assert max(max(seconds), sum(seconds) / slots) <= wall
    if slots <= 3:
        assert wall <= (4 / 3 - 1 / (3 * slots)) * best + 1e-9
    assert sorted(end for end, _ in ends)[-1] <= sum(seconds) / slots + max(seconds)
    by_slot = {}
    for second, (end, slot) in zip(longest_first(seconds, float), ends, strict=True):
        assert end == by_slot.get(slot, 0) + second  # no slot does two at a time, none waits
        by_slot[slot] = end


@pytest.mark.parametrize("seed", range(5))
def test_more_nodes_never_take_longer_than_the_bound_of_fewer(play, seed):
    rng = random.Random(seed)
    seconds = [rng.uniform(1, 50) for _ in range(40)]
    for nodes in (1, 2, 4, 8, 64):
        for shared in (True, False):
            found = play(seconds, nodes=nodes, each=3, shared=shared)
            least = max(max(seconds), sum(seconds) / (3 * nodes))
            assert least <= found.wall_seconds * (1 + 1e-9)
            assert found.wall_seconds <= sum(seconds) / (3 * nodes) + max(seconds)
            assert 0 < found.busy <= 1


@pytest.mark.parametrize(
    ("text", "cluster"),
    [("4 nodes × 8 GPU", Cluster(4, 8, "GPU")), ("1 node × 2 cores", Cluster(1, 2, "core")),
     ("2 nodes x 16 cores", Cluster(2, 16, "core")), (" 64 Nodes*8 gpus ", Cluster(64, 8, "GPU")),
     ("1 node x 1 core", Cluster(1, 1, "core"))],
)  # fmt: skip
def test_clusters_are_read_in_several_spellings(text, cluster):
    assert Cluster.parse(text) == cluster
    assert Cluster.parse(str(cluster)) == cluster


@pytest.mark.parametrize(
    "text",
    ["", "8 GPU", "4 nodes", "0 nodes × 8 GPU", "4 nodes × 0 GPU", "-1 nodes × 8 GPU",
     "4 nodes × 8 TPU", "4 nodes × 8.5 GPU", "4 nodes + 8 GPU", "٤ nodes × 8 GPU",
     "9" * 400 + " nodes × 1 GPU", "4 nodes × 8 GPU and more", "4 nodes\n× 8 GPU\n;"],
)  # fmt: skip
def test_other_clusters_are_refused_with_the_forms(text):
    with pytest.raises(InputError, match=r"4 nodes × 8 GPU.*1 node × 2 cores"):
        Cluster.parse(text)


def test_a_gpu_that_nobody_measured_is_counted_as_what_a_run_had():
    cluster = Cluster(4, 8, "GPU")
    unit = as_if(RATES, cluster)
    assert (unit.slots, unit.passing, unit.says) == (8, 2.0, "1 core of chip")
    assert as_if(GPU, cluster) == Unit(GPU, 8, 1.0)


def test_a_run_on_a_node_of_fewer_cores_than_were_measured_takes_longer():
    rates = Rates(1e-9, 1e-10, "a stopwatch", "cpu", "chip", threads=8, cores=16)
    unit = as_if(rates, Cluster(4, 2, "core"))
    assert (unit.slots, unit.rates.train, unit.rates.threads) == (1, 4e-9, 2)
    assert as_if(rates, Cluster(4, 16, "core")).rates == rates


def test_more_runs_than_were_measured_have_fewer_threads_each():
    rates = Rates(1e-9, 1e-10, "a stopwatch", "cpu", "chip", threads=2, cores=16)
    unit = as_if(rates, Cluster(4, 16, "core"), jobs=16)
    assert (unit.slots, unit.rates.threads, unit.rates.train) == (16, 1, 2e-9)
    unit = as_if(rates, Cluster(4, 16, "core"), jobs=4)
    assert (unit.slots, unit.rates.threads, unit.rates.train) == (4, 4, 5e-10)

"""Parts of a study: each cell in one, shared trainings together, about as costly."""

import random

import pytest

from harness.errors import InputError
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.run.shards import Shard, balance, deal


def cells(*, variants=6, categories=5, seeds=3, seed=0):
    """Trainings of costs that differ tenfold, each with a variant that differs in scoring."""
    rng = random.Random(seed)
    costs = {}
    for steps in range(1, variants + 1):
        for name in map(str, range(categories)):
            cost = rng.uniform(1, 10)
            for number in range(seeds):
                for smoothing in (0.0, 2.0):
                    variant = Variant(flow_steps=steps, smoothing=smoothing)
                    costs[Cell(variant, name, number)] = cost
    return costs


@pytest.mark.parametrize("of", [1, 2, 3, 7, 16])
def test_every_cell_is_in_one_part_with_those_that_share_its_training(of):
    costs = cells()
    parts = deal(costs, of)
    assert len(parts) == of
    assert sorted(c for part in parts for c in map(list(costs).index, part)) == list(
        range(len(costs))
    )
    where = {}
    for number, part in enumerate(parts):
        for c in part:
            training = (c.variant.training.digest, c.category, c.seed)
            assert where.setdefault(training, number) == number


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_within_fifteen_percent(seed):
    costs = cells(seed=seed)
    assert 0 <= balance(costs, deal(costs, 8)) < 0.15


def test_more_parts_than_trainings_leave_empty_ones():
    costs = cells(variants=1, categories=1, seeds=1)
    assert sorted(map(len, deal(costs, 3))) == [0, 0, 2]


def test_the_order_of_the_longest_decides():
    few = {Cell(Variant(), str(cost), 0): float(cost) for cost in (1, 2, 3, 4, 5, 6)}
    assert [[c.category for c in part] for part in deal(few, 3)] == [
        ["1", "6"], ["2", "5"], ["3", "4"]
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/5", "1.0/3",
                                  "9" * 400 + "/3", "١/٣"])  # fmt: skip
def test_other_shards_are_refused(text):
    with pytest.raises(InputError, match="expected i/n"):
        Shard.parse(text)

"""A study's trainings, dealt out to machines that know nothing of each other."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.experiment.settings import Shard
from harness.experiment.study import Cell
from harness.run.measure import kept_images, measure
from harness.run.order import longest_first
from harness.run.plan import Plan


def part_of(plan: Plan, shard: Shard | None) -> Plan:
    """Keep only the cells of one shard in a plan; None: all.

    Args:
        plan: of the whole study. What is recorded has no part in how it is split, nor has the
            machine: whoever has the same options and images comes to the same parts.
        shard: which part.
    """
    if shard is None:
        return plan
    mine = set(deal(training_works(plan), shard.of)[shard.number - 1])
    cells, grown = (tuple(c for c in some if c in mine) for some in (plan.cells, plan.grown))
    return replace(plan, cells=cells, grown=grown, shard=str(shard))


def training_works(plan: Plan) -> dict[Cell, int]:
    """Count the multiply-accumulates of each cell's training; needs neither weights nor photos."""
    kept = kept_images([*plan.sizes.values(), *plan.tiles.values()])
    costs = {v: measure(v, kept) for v in dict.fromkeys(c.variant.training for c in plan.cells)}
    return {
        c: costs[c.variant.training].training_work(c.variant, plan.images_of(*c[:2])[0])
        for c in plan.cells
    }


def deal(works: Mapping[Cell, float], of: int) -> list[list[Cell]]:
    """Deal cells out so that every part takes about as long, the longest trainings first.

    Cells that share a training go together. Every machine comes to the same parts, as work is
    counted, not measured, and equal ones keep the order of the cells.

    Args:
        works: of each cell's training, in any unit; those that share one have the same.
        of: how many parts.

    Returns:
        The cells of every part, in their own order; a part may be empty.

    >>> from harness.experiment.variant import Variant
    >>> cells = [Cell(Variant(), name, 0) for name in ("bottle", "cable", "grid")]
    >>> parts = deal(dict(zip(cells, (3.0, 1.0, 2.0))), of=2)
    >>> [[cell.category for cell in part] for part in parts]
    [['bottle'], ['cable', 'grid']]
    """
    first: dict[object, Cell] = {}  # of each training
    for cell in works:
        first.setdefault(_training(cell), cell)
    lightest = [(0.0, part) for part in range(of)]  # a heap: work so far, which part
    taken: dict[object, int] = {}
    for cell in longest_first(first.values(), works.__getitem__):
        total, part = lightest[0]
        taken[_training(cell)] = part
        heapq.heapreplace(lightest, (total + works[cell], part))
    parts: list[list[Cell]] = [[] for _ in range(of)]
    for cell in works:
        parts[taken[_training(cell)]].append(cell)
    return parts


def imbalance(works: Mapping[Cell, float], parts: Sequence[Sequence[Cell]]) -> float:
    """Say by how much the part with the most work is above the mean of all, as a fraction.

    >>> from harness.experiment.variant import Variant
    >>> one, other = (Cell(Variant(), name, 0) for name in ("bottle", "cable"))
    >>> imbalance({one: 3.0, other: 1.0}, [[one], [other]])
    0.5
    """
    totals = [sum({_training(c): works[c] for c in part}.values()) for part in parts]
    return max(totals) * len(totals) / sum(totals) - 1


def _training(cell: Cell) -> tuple[str, str, int]:
    return cell.variant.training.digest, cell.category, cell.seed

"""A study's trainings, dealt out to machines that know nothing of each other."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import InputError
from harness.experiment.study import Cell


@dataclass(frozen=True)
class Shard:
    """Name one of so many parts of a study's trainings.

    Attributes:
        number: from 1.
        of: how many parts there are.

    >>> Shard.parse("2/3")
    Shard(number=2, of=3)
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``i/n``, with 1 ≤ i ≤ n.

        Raises:
            InputError: anything else.
        """
        number, slash, of = text.partition("/")
        digits = slash and all(n.isascii() and n.isdecimal() and len(n) < 7 for n in (number, of))
        if not digits or not 1 <= int(number) <= int(of):
            raise InputError(
                f"--shard: expected i/n with i from 1 to n, as 1/3 for the first of three; got "
                f"'{text}'"
            )
        return cls(int(number), int(of))


def deal(costs: Mapping[Cell, float], of: int) -> list[list[Cell]]:
    """Deal cells out so that every part takes about as long, the longest trainings first.

    Cells that share a training go together. Every machine comes to the same parts, as costs are
    counted, not measured, and equal ones keep the order of the cells.

    Args:
        costs: each cell's training, in any unit; those that share one have the same.
        of: how many parts.

    Returns:
        The cells of every part, in their own order; a part may be empty.

    >>> from harness.experiment.variant import Variant
    >>> cells = [Cell(Variant(), name, 0) for name in ("bottle", "cable", "grid")]
    >>> parts = deal(dict(zip(cells, (3.0, 1.0, 2.0))), of=2)
    >>> [[cell.category for cell in part] for part in parts]
    [['bottle'], ['cable', 'grid']]
    """
    trainings: dict[object, list[Cell]] = {}
    for cell in costs:
        trainings.setdefault(_training(cell), []).append(cell)
    lightest = [(0.0, part) for part in range(of)]  # a heap: cost so far, which part
    taken: dict[object, int] = {}
    for which, cells in sorted(trainings.items(), key=lambda item: -costs[item[1][0]]):
        total, part = heapq.heappop(lightest)
        taken[which] = part
        heapq.heappush(lightest, (total + costs[cells[0]], part))
    return [[c for c in costs if taken[_training(c)] == part] for part in range(of)]


def balance(costs: Mapping[Cell, float], parts: Sequence[Sequence[Cell]]) -> float:
    """Say by how much the most costly part is above the mean of all, as a fraction.

    >>> from harness.experiment.variant import Variant
    >>> one, other = (Cell(Variant(), name, 0) for name in ("bottle", "cable"))
    >>> balance({one: 3.0, other: 1.0}, [[one], [other]])
    0.5
    """
    totals = [sum({_training(c): costs[c] for c in part}.values()) for part in parts]
    return max(totals) * len(totals) / sum(totals) - 1


def _training(cell: Cell) -> tuple[str, str, int]:
    return cell.variant.training.digest, cell.category, cell.seed

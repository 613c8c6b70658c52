"""In which order a study's work is done: by the sweep, and by what foretells its time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.study import Cell
from harness.features.cache import entry_bytes
from harness.features.views import Shapes
from harness.run.plan import Plan, images_to_pass

T = TypeVar("T")


def longest_first(pieces: Iterable[T], work: Callable[[T], float]) -> list[T]:
    """Order pieces of work so that nobody waits long for the last one; equal ones stay in order.

    Args:
        pieces: of which each is done by whoever is free.
        work: how much a piece is, in any unit.

    >>> longest_first(["aa", "b", "cccc", "dd"], len)
    ['cccc', 'aa', 'dd', 'b']
    """
    return sorted(pieces, key=work, reverse=True)


def in_groups(
    plan: Plan, cells: Iterable[Cell], shapes: Mapping[FeatureSpec, Shapes], limit: int
) -> Iterator[list[str]]:
    """Yield categories in groups whose features fit into the cache together; one at the least.

    The features of a group are made, and its runs trained, before those of the next.

    Args:
        plan: which knows the images.
        cells: the runs.
        shapes: (C, H, W) of the features at the taps, of every recipe.
        limit: bytes of the cache.
    """
    cells = list(cells)
    images = images_to_pass(cells, plan.sizes, plan.tiles)
    sizes: dict[str, int] = {}
    for (spec, category), count in images.items():
        size = entry_bytes(shapes[spec], count, spec.dtype)
        sizes[category] = sizes.get(category, 0) + size
    group: list[str] = []
    total = 0
    for name in dict.fromkeys(c.category for c in cells):
        if group and total + sizes[name] > limit:
            yield group
            group, total = [], 0
        group.append(name)
        total += sizes[name]
    if group:
        yield group

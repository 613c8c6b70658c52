"""A study: a question, and the variants, categories and seeds that answer it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, Self

from harness.errors import InputError, unknown
from harness.variant import FIELDS, Variant, show

Change = Mapping[str, Any]


def one_factor(**axes: Sequence[Any]) -> tuple[Change, ...]:
    """The base, and every value of every axis changed alone.

    >>> one_factor(flow_steps=(4, 8), coupling=("two-sided",))
    ({}, {'flow_steps': 4}, {'flow_steps': 8}, {'coupling': 'two-sided'})
    """
    return ({}, *({name: value} for name, values in axes.items() for value in values))


def grid(**axes: Sequence[Any]) -> tuple[Change, ...]:
    """Every combination of the axes' values.

    >>> grid(flow_steps=(4, 8), coupling=("two-sided",))
    ({'flow_steps': 4, 'coupling': 'two-sided'}, {'flow_steps': 8, 'coupling': 'two-sided'})
    """
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


class Cell(NamedTuple):
    """One run: a variant on a category with a seed."""

    variant: Variant
    category: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """``bases × vary × categories × seeds``, with the question it asks.

    Args:
        name: as on the command line.
        asks: the question, one sentence.
        mirrors: the published table it repeats, if any.
        dataset: ``surfaces`` (embedded) or a data set read from ``--data``.
        categories: the categories to run; empty: all that the data set has.
        bases: the variants that are varied; the first is the reference of the differences.
        vary: the changes applied to every base, from :func:`one_factor` or :func:`grid`.
        seeds: at least one.
    """

    name: str
    asks: str
    mirrors: str = ""
    dataset: str = "mvtec_ad"
    categories: tuple[str, ...] = ()
    bases: tuple[Variant, ...]
    vary: tuple[Change, ...] = ({},)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for name in ("bases", "vary", "seeds"):
            if not getattr(self, name):
                raise InputError(f"study {self.name}: expected at least one of {name}; got none")
        for seed in self.seeds:
            if not isinstance(seed, int) or not 0 <= seed < 2**31:
                raise InputError(
                    f"study {self.name}: expected seeds in 0 … 2147483647; got {seed!r}"
                )
        _ = self.variants  # an unknown field in vary is found here, not in the middle of a run

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The distinct variants, in order; the first one is the reference."""
        made = (base.replace(**change) for base in self.bases for change in self.vary)
        return tuple(dict.fromkeys(made))

    def labels(self) -> dict[str, str]:
        """Digest → name of each variant: what it changes of the study's reference.

        Where only one field varies at all, the reference is named by its value too.
        """
        variants = self.variants
        varied = dict.fromkeys(name for v in variants for name in v.changes(variants[0]))
        if len(varied) == 1:
            return {v.digest: f"{n}={show(getattr(v, n))}" for v in variants for n in varied}
        return {v.digest: v.label(variants[0]) for v in variants}

    def cells(self, categories: Sequence[str]) -> Iterator[Cell]:
        """Every run once; category by category, so that cached features are used together."""
        seeds = dict.fromkeys(self.seeds)
        for category in dict.fromkeys(categories):
            for variant in self.variants:
                for seed in seeds:
                    yield Cell(variant, category, seed)

    def where(self, **wanted: Any) -> Self:  # noqa: ANN401
        """The study with only those variants whose fields have these values."""
        variants = self.variants
        for name, value in wanted.items():
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
            value = tuple(value) if isinstance(value, list) else value  # from a notebook
            kept = tuple(v for v in variants if getattr(v, name) == value)
            if not kept:
                has = dict.fromkeys(show(getattr(v, name)) for v in variants)
                raise InputError(
                    f"no variant of {self.name} has {name}={show(value)}; "
                    f"expected one of: {'; '.join(has)}"
                )
            variants = kept
        return replace(self, bases=variants, vary=({},))

    def set(self, **changes: Any) -> Self:  # noqa: ANN401
        """The study with some fields changed in every variant: other digests, other records."""
        return replace(self, bases=tuple(v.replace(**changes) for v in self.variants), vary=({},))

    def smoke(self) -> Self:
        """The smoke twin: the same variants and code path, one epoch, category and seed.

        Its digests differ, so it can never be mistaken for a result.
        """
        twin = self.set(epochs=1, smoke=True)
        return replace(
            twin, name=f"{self.name}-smoke", seeds=self.seeds[:1], categories=self.categories[:1]
        )

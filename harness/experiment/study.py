"""A study: a question, and the variants, categories and seeds that answer it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Self

from harness.errors import InputError, unknown
from harness.experiment.values import show
from harness.experiment.variant import FIELDS, Variant

Change = Mapping[str, Any]


def one_factor(**axes: Sequence[Any]) -> tuple[Change, ...]:
    """List the base, and every value of every axis changed alone.

    >>> one_factor(flow_steps=(4, 8), coupling=("two-sided",))
    ({}, {'flow_steps': 4}, {'flow_steps': 8}, {'coupling': 'two-sided'})
    """
    return ({}, *({name: value} for name, values in axes.items() for value in values))


def grid(**axes: Sequence[Any]) -> tuple[Change, ...]:
    """List every combination of the axes' values.

    >>> grid(flow_steps=(4, 8), coupling=("two-sided",))
    ({'flow_steps': 4, 'coupling': 'two-sided'}, {'flow_steps': 8, 'coupling': 'two-sided'})
    """
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


class Cell(NamedTuple):
    """Name one run: a variant on a category with a seed.

    >>> Cell(Variant(), "grass", 0).category
    'grass'
    """

    variant: Variant
    category: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Study:
    """Ask a question of ``bases × vary × categories × seeds``.

    Args:
        name: as on the command line.
        asks: the question, one sentence.
        mirrors: the published table it repeats, if any.
        dataset: ``surfaces`` (embedded) or a data set read from ``--data``.
        categories: the categories to run; empty: all that the data set has.
        bases: name → variant that is varied; the first is the reference of the differences.
        vary: the changes applied to every base, from :func:`one_factor` or :func:`grid`.
        seeds: at least one.
        source: the file that defines it; empty for a built-in one.

    >>> study = Study(
    ...     name="steps",
    ...     asks="How many steps?",
    ...     bases={"base": Variant()},
    ...     vary=one_factor(flow_steps=(4,)),
    ... )
    >>> list(study.labels().values())
    ['flow_steps=8', 'flow_steps=4']
    """

    name: str
    asks: str
    mirrors: str = ""
    dataset: str = "mvtec_ad"
    categories: tuple[str, ...] = ()
    bases: Mapping[str, Variant]
    vary: tuple[Change, ...] = ({},)
    seeds: tuple[int, ...] = (0, 1, 2)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("bases", "vary", "seeds"):
            if not getattr(self, name):
                raise InputError(f"study {self.name}: expected at least one of {name}; got none")
        for seed in self.seeds:
            if not isinstance(seed, int) or not 0 <= seed < 2**31:
                raise InputError(
                    f"study {self.name}: expected seeds in 0 … 2147483647; got {seed!r}"
                )
        for name in (name for change in self.vary for name in change):
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
        for variant in self.variants:  # what is wrong is found here, not in the middle of a run
            _refuse_beyond(variant)

    @cached_property
    def named(self) -> dict[Variant, str]:
        """Name every distinct variant, in order; the first one is the reference.

        A name says what the variant changes of its base, and which base where there are
        several. Where one base's single field varies, the base is named by its value too.
        """
        several = len(self.bases) > 1
        fields = {field for change in self.vary for field in change}
        named: dict[Variant, str] = {}
        for name, base in self.bases.items():
            for change in self.vary:
                variant = base.replace(**change)
                changed = variant.changes(base)
                if len(fields) == 1 and not several:
                    changed = {field: getattr(variant, field) for field in fields}
                text = ", ".join(f"{field}={show(value)}" for field, value in changed.items())
                parts = [name, text] if several else [text or name]
                named.setdefault(variant, ", ".join(filter(None, parts)))
        return named

    @property
    def variants(self) -> tuple[Variant, ...]:
        """List the distinct variants, in order; the first one is the reference."""
        return tuple(self.named)

    def labels(self) -> dict[str, str]:
        """Map the digest of each variant to its name."""
        return {variant.digest: name for variant, name in self.named.items()}

    def cells(self, categories: Sequence[str]) -> Iterator[Cell]:
        """Yield every run once; category by category, as features are cached."""
        seeds = dict.fromkeys(self.seeds)
        for category in dict.fromkeys(categories):
            for variant in self.variants:
                for seed in seeds:
                    yield Cell(variant, category, seed)

    def only(self, *names: str) -> Self:
        """Keep only the variants of these names."""
        for name in names:
            if name not in self.named.values():
                raise unknown(f"variant of {self.name}", name, self.named.values())
        return self._of({n: v for v, n in self.named.items() if n in names})

    def where(self, **wanted: Any) -> Self:  # noqa: ANN401
        """Keep only those variants whose fields have these values."""
        variants = self.named
        for name, value in wanted.items():
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
            value = tuple(value) if isinstance(value, list) else value  # from a notebook
            having = {v: n for v, n in variants.items() if name in v.choices}
            kept = {v: n for v, n in having.items() if getattr(v, name) == value}
            if not kept:
                has = dict.fromkeys(show(getattr(v, name)) for v in having)
                raise InputError(
                    f"no variant of {self.name} has {name}={show(value)}; "
                    f"expected one of: {'; '.join(has)}"
                )
            variants = kept
        return self._of({n: v for v, n in variants.items()})

    def set(self, **changes: Any) -> Self:  # noqa: ANN401
        """Change some fields in every variant: other digests, other records.

        A field is changed where the variant's method has it; where none has, that is an error.

        Raises:
            InputError: a name would no longer be true of its variant, or two would be equal.
        """
        changed = self._changed(**changes)
        study = self._of(changed)
        for name in changes:
            if not any(name in variant.choices for variant in study.variants):
                study.variants[0].replace(**{name: changes[name]})  # says what is wrong
        for before, name in self.named.items():
            for told in self._told(before, changes):
                if _value(before, told) != _value(changed[name], told):
                    raise InputError(
                        f"{told}: {self.name} varies it, and the name '{name}' would no longer "
                        "be true; expected one of its own values, chosen by --where or "
                        "--variant, or a study of your own (`harness new study NAME`)"
                    )
        if len(study.named) < len(self.named):
            lost = ", ".join(sorted(set(changed) - set(study.named.values())))
            raise InputError(
                f"{', '.join(changes)}: with it, variants of {self.name} would be equal to others "
                f"({lost}); expected variants that differ; choose by --where or --variant"
            )
        return study

    def smoke(self) -> Self:
        """Make the smoke twin: the same variants and code path, one epoch and seed.

        A plan runs it on one category.

        Its digests differ, so it can never be mistaken for a result.
        """
        # A few images make no batch.
        twin = self._of(self._changed(epochs=1, smoke=True, drop_last=False, views=2))
        return replace(twin, name=f"{self.name}-smoke", seeds=self.seeds[:1])

    def _changed(self, **changes: Any) -> dict[str, Variant]:  # noqa: ANN401
        """Name → variant with each field changed where its method has it.

        Who says how many epochs means no more: the least number of steps goes, and what would
        be beyond them, a warm-up or the first evaluation, comes at their end.
        """
        if "epochs" in changes:
            changes = {"min_steps": 0} | changes
        changed = {}
        for variant, name in self.named.items():
            if "method" in changes:
                variant = variant.replace(method=changes["method"])
            has = {k: v for k, v in changes.items() if k in variant.choices or k not in FIELDS}
            made = variant.replace(**has)
            if "epochs" in has:
                within = {k: min(getattr(made, k), made.epochs) for k in _IN_EPOCHS}
                made = made.replace(**{k: v for k, v in within.items() if k not in changes})
            changed[name] = made
        return changed

    def _told(self, variant: Variant, fields: Iterable[str]) -> list[str]:
        """What a variant's name tells: the fields that it gives a value, and some of ``fields``.

        Those in which variants of the same method differ, as bases do: ``DeiT`` has its size.
        A method brings its own settings, and its name promises none of them.
        """
        written = [f for f in re.findall(r"(\w+)=", self.named[variant]) if f in FIELDS]
        alike = [v for v in self.variants if v.method == variant.method]
        if "method" in fields and len(alike) < len(self.variants):
            written.append("method")
        return written + [f for f in fields if len({getattr(v, f) for v in alike}) > 1]

    def _of(self, variants: Mapping[str, Variant]) -> Self:
        """The study of these variants; names stay what they were in the whole study."""
        return replace(self, bases=dict(variants), vary=({},))


def _refuse_beyond(variant: Variant) -> None:
    """Refuse what would never come: a warm-up's end or an evaluation after the last epoch.

    With ``min_steps`` the epochs are as many as the images ask for. A record may say so: what
    was once run is what it is.
    """
    for name in _IN_EPOCHS:
        if not variant.min_steps and (value := getattr(variant, name)) > variant.epochs:
            raise InputError(
                f"{name}: expected at most epochs, {variant.epochs}, as nothing comes after the "
                f"last; got {value}; lower it, or raise epochs"
            )


_IN_EPOCHS = ("warmup_epochs", "eval_every")


def _value(variant: Variant, field: str) -> object:
    """A field's value, or that the variant's method does not have it."""
    return (field in variant.choices, getattr(variant, field))

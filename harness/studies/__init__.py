"""The studies, one file a question: those of this folder, and a person's own.

A module of this folder that has a ``STUDY`` is a built-in study. Any other file with a ``STUDY``
is run the same way, by its path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from harness.errors import unknown
from harness.experiment.study import Study
from harness.studies.outside import load_study

EMBEDDED = "surfaces"  # the study that needs no download: it comes first


def _discover() -> dict[str, Study]:
    names = sorted((m.name for m in iter_modules(__path__)), key=lambda n: (n != EMBEDDED, n))
    modules = (import_module(f"{__name__}.{name}") for name in names)
    found = (m.STUDY for m in modules if hasattr(m, "STUDY"))
    return {study.name: study for study in found}


STUDIES: dict[str, Study] = _discover()


def get_study(
    name: str,
    *,
    variants: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    smoke: bool = False,
) -> Study:
    """Take a study as asked for on the command line.

    Args:
        name: a key of :data:`STUDIES`, or the path of a ``.py`` file that defines ``STUDY``.
        variants: only the variants of these names.
        where: field → value: only the variants that have it.
        set: field → value: changed in every variant, after ``where``.
        seeds: in place of the study's own.
        smoke: its smoke twin.

    Raises:
        InputError: there is no such study, or no such part of it; near matches are named.

    >>> get_study("kernels", set={"epochs": 3}).variants[0].epochs
    3
    """
    study = _find(name)
    if variants:
        study = study.only(*variants)
    if where:
        study = study.where(**where)
    if set:
        study = study.set(**set)
    if seeds:
        study = replace(study, seeds=tuple(seeds))
    return study.smoke() if smoke else study


def definition(study: Study) -> Study | None:
    """Find a study as it is defined, whatever was changed for a run; None if it is gone."""
    if study.source:
        return load_study(Path(study.source)) if Path(study.source).is_file() else None
    return STUDIES.get(study.name)


def _find(name: str) -> Study:
    if name in STUDIES:
        return STUDIES[name]
    if name.endswith(".py"):
        return load_study(Path(name), taken=STUDIES)
    own = [f"{name}.py"] if Path(f"{name}.py").is_file() else []
    raise unknown("study", name, [*own, *STUDIES])

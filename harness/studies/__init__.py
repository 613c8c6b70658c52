"""The studies, by name. Each opens with its question."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import unknown
from harness.studies import kernels, surfaces
from harness.study import Study

STUDIES: dict[str, Study] = {s.name: s for s in (surfaces.STUDY, kernels.STUDY)}


def get_study(
    name: str,
    *,
    where: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    smoke: bool = False,
) -> Study:
    """A study as asked for on the command line.

    Args:
        name: a key of :data:`STUDIES`; near matches are named when there is none.
        where: field → value: only the variants that have it.
        set: field → value: changed in every variant, after ``where``.
        seeds: in place of the study's own.
        smoke: its smoke twin.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    study = STUDIES[name]
    if where:
        study = study.where(**where)
    if set:
        study = study.set(**set)
    if seeds:
        study = replace(study, seeds=tuple(seeds))
    return study.smoke() if smoke else study

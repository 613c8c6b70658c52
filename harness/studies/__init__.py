"""The studies, by name. Each opens with its question."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import unknown
from harness.experiment.study import Study
from harness.studies import (
    actnorm,
    block_index,
    coupling,
    disturbed,
    epoch_selection,
    flow_steps,
    hidden_width,
    kernels,
    kernels_by_backbone,
    methods,
    norm,
    permutation,
    reproductions,
    score_rule,
    surfaces,
    table1,
    table2,
    table3,
    table4,
)  # fmt: skip

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        surfaces, methods, table1, table2, table3, table4, kernels, kernels_by_backbone,
        hidden_width, flow_steps, coupling, block_index, disturbed, norm, permutation, actnorm,
        score_rule, epoch_selection, reproductions,
    )
}  # fmt: skip


def get_study(
    name: str,
    *,
    variants: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    smoke: bool = False,
) -> Study:
    """A study as asked for on the command line.

    Args:
        name: a key of :data:`STUDIES`; near matches are named when there is none.
        variants: only the variants of these names.
        where: field → value: only the variants that have it.
        set: field → value: changed in every variant, after ``where``.
        seeds: in place of the study's own.
        smoke: its smoke twin.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    study = STUDIES[name]
    if variants:
        study = study.only(*variants)
    if where:
        study = study.where(**where)
    if set:
        study = study.set(**set)
    if seeds:
        study = replace(study, seeds=tuple(seeds))
    return study.smoke() if smoke else study

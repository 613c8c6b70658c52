"""Studies: their cells, selections and smoke twins."""

import pytest

from harness.errors import InputError
from harness.studies import STUDIES, get_study
from harness.study import Cell, Study, grid, one_factor
from harness.variant import Variant

BASE = Variant()


def make(**changes):
    settings = {"name": "s", "asks": "?", "bases": {"base": BASE}, "seeds": (0, 1)}
    return Study(**{**settings, **changes})


def test_cells_are_bases_times_vary_times_categories_times_seeds():
    study = make(vary=grid(kernels=((3,), (1,)), coupling=("one-sided", "two-sided")))
    cells = list(study.cells(["a", "b", "c"]))
    assert len(cells) == len(set(cells)) == 4 * 3 * 2
    assert cells[0] == Cell(BASE, "a", 0)


def test_equal_cells_are_run_once():
    twice = make(bases={"a": BASE, "b": BASE}, vary=({}, {"flow_steps": 8}), seeds=(0, 0))
    assert list(twice.cells(["a", "a"])) == [Cell(BASE, "a", 0)]


def test_labels_say_what_is_changed():
    study = make(vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)))
    assert list(study.labels().values()) == ["base", "kernels=3,1", "coupling=two-sided"]
    assert list(make(vary=one_factor(kernels=((3, 1),))).labels().values()) == [
        "kernels=3",
        "kernels=3,1",
    ]


def test_where_selects_and_set_changes():
    study = make(vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)))
    assert study.where(kernels=(3,)).variants == (BASE, BASE.replace(coupling="two-sided"))
    assert study.where(kernels=(3,), coupling="two-sided").variants == (
        BASE.replace(coupling="two-sided"),
    )
    changed = study.set(epochs=7)
    assert {v.epochs for v in changed.variants} == {7}
    assert not {v.digest for v in changed.variants} & {v.digest for v in study.variants}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.where(kernels=(5,)), "no variant of s has kernels=5; expected one of: 3"),
        (lambda s: s.where(kernel=(5,)), "unknown field 'kernel'"),
        (lambda s: s.set(kernel=(5,)), "unknown field 'kernel'"),
        (lambda s: make(vary=({"kernel": 1},)), "unknown field 'kernel'"),
        (lambda s: make(seeds=()), "expected at least one of seeds"),
        (lambda s: make(seeds=(-1,)), "expected seeds in 0"),
        (lambda s: make(bases={}), "expected at least one of bases"),
        (lambda s: get_study("surface"), "unknown study 'surface'; did you mean 'surfaces'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call(make())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_question_and_a_smoke_twin(name):
    study, twin = STUDIES[name], get_study(name, smoke=True)
    assert study.asks.endswith("?")
    assert twin.name == f"{name}-smoke"
    assert len(twin.variants) == len(study.variants)
    assert not {v.digest for v in twin.variants} & {v.digest for v in study.variants}
    assert {v.epochs for v in twin.variants} == {1}
    assert len(twin.seeds) == 1


def test_surfaces_has_the_promised_axes():
    base, *others = STUDIES["surfaces"].variants
    varied = [set(v.changes(base)) for v in others]
    assert all(len(v) == 1 for v in varied), "one factor at a time"
    assert {"backbone", "kernels", "flow_steps", "coupling"} <= set().union(*varied)


def test_seeds_replace_the_studys_own():
    assert get_study("surfaces", seeds=[5]).seeds == (5,)

"""The variant to take away: within a budget, or by drawn defects where no photo is bad."""

import pytest
from handmade import write_rows

from harness.errors import InputError
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.report.best import best
from harness.report.selection import Selection

STUDY = Study(
    name="steps", asks="How many?", bases={"base": Variant()},
    vary=one_factor(flow_steps=(2, 4)), seeds=(0, 1, 2),
)  # fmt: skip
LEAD = {8: 0.95, 2: 0.90, 4: 0.80}


@pytest.fixture
def selection(tmp_path):
    noise = (0.0, 0.001, -0.001)
    for v in STUDY.variants:
        rows = [
            (v, c, s, LEAD[v.flow_steps] + n)
            for c in ("a", "b")
            for s, n in zip(STUDY.seeds, noise, strict=True)
        ]
        change = {
            "parameters": {"flow": 1000 * v.flow_steps},
            "measured": {"speed": {"latency_ms": 10.0 * v.flow_steps}},
        }
        write_rows(tmp_path, rows, change=change)
    return Selection(STUDY, tmp_path, "d", ("a", "b"))


def test_the_best_and_its_lead(selection):
    found = best(selection, "image_auroc")
    assert (found.variant, found.by, found.left_out) == ("flow_steps=8", "image AUROC", {})
    assert found.value == pytest.approx(95.0)
    assert found.said.startswith("These photos cannot tell which variant to take: the best, flow")


@pytest.mark.parametrize(
    ("budget", "wanted", "why"),
    [
        ({"max_latency_ms": 45}, "flow_steps=2", {"flow_steps=8": "80 ms of at most 45"}),
        (
            {"max_params": 5000},
            "flow_steps=2",
            {"flow_steps=8": "8024 parameters of at most 5000"},
        ),
        (
            {"max_params": 3000},
            "flow_steps=2",
            {
                "flow_steps=8": "8024 parameters of at most 3000",
                "flow_steps=4": "4024 parameters of at most 3000",
            },
        ),
    ],
)
def test_a_budget_leaves_out_and_says_so(selection, budget, wanted, why):
    found = best(selection, "image_auroc", **budget)
    assert found.variant == wanted
    assert found.left_out == why
    if len(why) == 2:
        assert found.said == "flow_steps=2 is the only one."


def test_what_cannot_be_is_said(selection, tmp_path):
    with pytest.raises(
        InputError, match=r"expected a variant within the budget.*80 ms of at most"
    ):
        best(selection, "image_auroc", max_latency_ms=1)
    with pytest.raises(InputError, match="unknown metric 'auroc'"):
        best(selection, "auroc")
    nothing = Selection(STUDY, tmp_path / "none", "d", ("a", "b"))
    with pytest.raises(InputError, match=r"expected records in .*run it first"):
        best(nothing, "image_auroc")


def test_without_bad_photos_drawn_defects_choose(tmp_path):
    for v in STUDY.variants:
        figure = 1 - LEAD[v.flow_steps]  # the other way round
        both = {"image_auroc": figure, "pixel_auroc": figure}
        change = {"epochs": [{"epoch": 10, "metrics": {}, "validation": both}]}
        rows = [(v, "a", s, 0.5) for s in STUDY.seeds]
        write_rows(tmp_path, rows, change=change)
        for path in tmp_path.glob(f"runs/{v.digest}/d/a/seed-*.json"):
            path.write_text(
                path.read_text()
                .replace('"image_auroc": 0.5', '"f1": 0.5')
                .replace('"pixel_auroc": 0.9', '"f2": 0.9')
            )
    found = best(Selection(STUDY, tmp_path, "d", ("a",)), "image_auroc")
    assert (found.variant, found.by) == ("flow_steps=4", "validation on drawn defects")
    assert found.said.startswith("Take flow_steps=4 (20.0), by defects drawn on held-out")


def test_without_bad_photos_and_without_validation_it_says_what_is_needed(tmp_path):
    for v in STUDY.variants:
        write_rows(tmp_path, [(v, "a", 0, 0.5)])
        for path in tmp_path.glob("runs/*/d/a/seed-*.json"):
            path.write_text(path.read_text().replace('"image_auroc"', '"f1"'))
    with pytest.raises(InputError, match=r"--set validation=synthetic --set holdout=0\.2"):
        best(Selection(STUDY, tmp_path, "d", ("a",)), "image_auroc")

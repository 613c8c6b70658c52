"""What figures do not show, from records made by hand."""

import re

import pytest
from handmade import write_rows

from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.report.cautions import cautions
from harness.report.selection import Selection
from harness.report.sentences import warnings
from harness.report.tables import runs

BASE = Variant()
STUDY = Study(name="s", asks="Well?", bases={"base": BASE}, seeds=(0, 1))
SCORES = {"path": ["a", "b", "c"], "sha256": ["1", "1", "2"], "defect": ["good", "good", "dent"]}
SEEN = {"train": 9, "test": 3, "defective": 1, "masks": 1}


def said(results, variant=BASE, **change):
    data = {"data": SEEN | change.pop("data", {})}
    write_rows(results, [(variant, "a", seed, 0.5) for seed in (0, 1)], change={**change, **data})
    study = Study(name="s", asks="Well?", bases={"base": variant}, seeds=(0, 1))
    return list(cautions(Selection(study, results, "d", ("a",))))


def images(score, pixels=(0, 0, 5)):
    return {**SCORES, "score": score, "defect_pixels": list(pixels)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"saturated": [0.0, 0.4213]}, r"saturated maps: 2 of 2 runs; .* seed 0: 42 % of a tap's"),
        ({"images": images([0.1, 0.1, 0.1])}, "tied image scores: .* 3 of 3 .*2 are copies of"),
        ({"images": images([0.1, 0.2, 0.2])}, "tied image scores: .* 2 of 3 test images score"),
        ({"images": images([0.1, 0.2, 0.3], ())}, "vanished masks: .* 1 of 1 masks .* 64 × 64"),
    ],
)
def test_a_line_says_how_many_runs_and_the_worst(change, expected, tmp_path):
    (line,) = said(tmp_path, **change)
    assert re.search(expected, line), line


def test_nothing_is_said_of_sound_runs_nor_of_old_records(tmp_path):
    assert said(tmp_path, images=images([0.1, 0.2, 0.3]), saturated=[0.0]) == []
    assert said(tmp_path) == []


def test_masks_vanish_only_where_pixels_would_be_measured(tmp_path):
    gone = images([0.1, 0.2, 0.3], ())
    assert said(tmp_path, BASE.replace(method="differnet"), images=gone) == []
    assert said(tmp_path, images=gone, data={"defective": 2}) == []


def test_the_report_says_it_too(tmp_path):
    said(tmp_path, saturated=[0.5])
    selection = Selection(STUDY, tmp_path, "d", ("a",))
    assert "**Note**: saturated maps: 2 of 2 runs" in "\n".join(
        warnings(runs(selection), selection)
    )

"""Tables, differences and words from records made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from handmade import record, write_rows

from harness.experiment.place import Place
from harness.experiment.store import write_failure, write_record
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.report import photos, sentences, study_tables, tables
from harness.report.answer import answer
from harness.report.selection import Selection
from harness.report.study_page import StudyPage
from harness.studies import get_study

STUDY = Study(
    name="s", asks="Better?", bases={"base": Variant()}, seeds=(0, 1),
    vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)),
)  # fmt: skip


def selected(results, study=STUDY):
    return Selection(study, results, "d", ("a", "b"))


def runs(results, study=STUDY):
    return tables.runs(selected(results, study))


def warned(results, study=STUDY):
    return "\n".join(sentences.warnings(runs(results, study), selected(results, study)))


BASE, KERNELS, TWO = STUDY.variants
ROWS = [
    (BASE, "a", 0, 0.90), (BASE, "a", 1, 0.92), (BASE, "b", 0, 0.80), (BASE, "b", 1, 0.82),
    (KERNELS, "a", 0, 0.95), (KERNELS, "a", 1, 0.96), (KERNELS, "b", 0, 0.86),
    (KERNELS, "b", 1, 0.87), (TWO, "a", 0, 0.91),
]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    write_rows(tmp_path, ROWS)
    return tmp_path


def test_load_takes_the_studys_runs_in_its_order(results):
    stranger = Variant(epochs=7)
    write_rows(results, [(stranger, "a", 0, 0.1), (BASE, "c", 0, 0.1), (BASE, "a", 9, 0.1)])
    frame = runs(results)
    assert len(frame) == len(ROWS)
    assert frame["label"].tolist() == ["base"] * 4 + ["kernels=3,1"] * 4 + ["coupling=two-sided"]
    assert (frame["additional_params"] == 1024).all()
    assert frame["aupro"].isna().all()


def test_summary_by_hand(results):
    table = tables.summary(runs(results), STUDY).set_index("variant")
    base = table.loc["base"]
    assert base["runs"] == 4
    assert base["image_auroc"] == pytest.approx((0.90 + 0.92 + 0.80 + 0.82) / 4)
    # means over categories: seed 0 0.85, seed 1 0.87; standard deviation 0.02 / sqrt(2)
    assert base["image_auroc_sd_seeds"] == pytest.approx(0.02 / np.sqrt(2))
    assert base["image_auroc_min"] == pytest.approx(0.81)
    assert np.isnan(table.loc["coupling=two-sided", "image_auroc_sd_seeds"])
    assert "aupro" not in table


def test_oracle_is_the_best_epoch_of_each_run(tmp_path):
    write_rows(tmp_path, [(BASE, "a", 0, 0.6), (BASE, "a", 1, 0.8)], best=0.9)
    table = tables.oracle(tables.epochs(selected(tmp_path)), STUDY, ["image_auroc"])
    assert table.loc["base"].tolist() == [70.0, 90.0]


def test_opening_names_what_is_missing_and_what_failed(results):
    write_failure(Place.of(results, TWO, "d", "b", 0), "the loss became nan")
    text = warned(results)
    assert "**3 of 12 runs are missing**" in text
    assert "A run **failed**: the loss became nan" in text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("smoke", True, "A smoke run"),
        ("random_weights", True, "Random backbone weights"),
        ("selection", {"rule": "best-on-test", "epoch": 5, "oracle": True}, "**Oracle**"),
    ],
)
def test_opening_marks_what_is_no_plain_result(tmp_path, key, value, words):
    write_rows(tmp_path, [(BASE, "a", 0, 0.9)], change={key: value})
    assert words in warned(tmp_path)


def test_protocol_is_read_off_the_records(results):
    text = sentences.protocol(selected(results))
    for words in ("false-positive rate of 0.3", "a, b 9 train, 8 test (7 defective, 6 masks)",
                  "seeds 0, 1", "batches of 8, 2 threads, chip", "last (10)"):  # fmt: skip
        assert words in text


def test_protocol_says_the_arithmetic_and_whether_runs_differ_in_it(tmp_path):
    def said():
        return sentences.protocol(selected(tmp_path)).splitlines()[-1]

    write_rows(tmp_path, [(BASE, "a", 0, 0.9)])
    assert said().endswith("; arithmetic: not recorded.")
    for seed in (0, 1):
        change = {"environment": {"arithmetic": "cuda tf32"}}
        write_rows(tmp_path, [(BASE, "a", seed, 0.9)], change=change)
    assert said().endswith("; arithmetic: cuda tf32.")
    change = {"environment": {"arithmetic": "cpu float32"}}
    write_rows(tmp_path, [(BASE, "b", 0, 0.9)], change=change)
    assert "**mixed**" in said()
    assert said().endswith("cpu float32 (1 runs), cuda tf32 (2 runs).")


def test_protocol_says_what_a_copy_is(tmp_path):
    data = {"form": "JPEG 9x9", "official": False, "copy": "a part", "disturbance": "±1°"}
    write_rows(tmp_path, [(BASE, "a", 0, 0.9)], change={"data": data})
    text = sentences.protocol(selected(tmp_path))
    assert "6 masks; JPEG 9x9; a part; ±1°)" in text
    assert "(images r, masks nearest)" in text


def test_a_test_set_of_one_kind_has_no_answer(tmp_path):
    made = record(BASE, "a", 0, 0.9)
    made.metrics = {}
    write_record(Place.of(tmp_path, BASE, "d", "a", 0), made)
    assert "all good or all defective" in answer(selected(tmp_path))


def test_nothing_run_yet(tmp_path):
    frame = runs(tmp_path)
    assert "0/4" in tables.as_text(tables.summary(frame, STUDY), 4)
    assert answer(selected(tmp_path)) == "Not answered: the reference has not been run."
    assert "**Nothing has been run**" in warned(tmp_path)
    assert "Nothing has been run" in sentences.protocol(selected(tmp_path))
    assert len(study_tables.variants(StudyPage("s", selected(tmp_path))).rows) == 3


def test_report_tables_by_hand(results):
    page = StudyPage("s", selected(results))
    board = study_tables.variants(page)
    row = {c.name: v.written for c, v in zip(board.columns, board.rows[0], strict=True)}
    assert row == {
        "variant": "base (reference)", "image AUROC": "86.0 ± 1.4", "pixel AUROC": "90.0 ± 0.0",
        "lowest category": "81.0", "A.d. params (M)": "0.00", "latency (ms)": "20.0",
        "FPS": "50.0", "peak memory (MB)": "0", "test images": "2 + 14", "runs": "4",
    }  # fmt: skip
    assert [c.written for c in board.rows[1]][:3] == ["3 × 3 and 1 × 1 kernels", "91.0 ± 0.7",
                                                      "90.0 ± 0.0"]  # fmt: skip
    assert [row[1].best for row in board.rows] == [False, True, True]
    assert study_tables.rest(page) is None
    cost = tables.cost(runs(results)).loc["base"]
    assert (cost["flow params"], cost["FPS"]) == (1000, 50)


def test_text_table_without_pixel_metrics(tmp_path):
    write_rows(tmp_path, ROWS, pixel=None)
    text = tables.as_text(tables.summary(runs(tmp_path), STUDY), 4)
    assert "86.0\u00a0±\u00a01.4" in text
    assert "pixel" not in text
    assert "4/4" in text
    assert "1/4" in text


def test_percent():
    assert tables.percent(0.9214, 0.0123) == "92.1\u00a0±\u00a01.2"
    assert tables.percent(0.9214) == "92.1"
    assert tables.percent(np.nan) == "–"


def test_base_settings_mark_what_differs_from_the_defaults():
    study = replace(STUDY, bases={"base": Variant(flow_steps=3)})
    table = tables.base_settings(study)
    assert table.loc["flow_steps"].tolist() == ["3", True]
    assert table["changed"].sum() == 1
    json.dumps(table["value"].tolist())


def test_other_settings_are_said():
    study = get_study("kernels", set={"epochs": 20})
    assert sentences.other_settings(study, "mvtec_ad") == "epochs 20 instead of 500"
    assert sentences.other_settings(get_study("kernels"), "mvtec_ad") == ""
    assert "data set x instead of mvtec_ad" in sentences.other_settings(get_study("kernels"), "x")
    assert sentences.other_settings(STUDY, "d") == ""


def test_oracles_are_marked(tmp_path):
    oracle = BASE.replace(epoch_selection="best-on-test")
    study = Study(name="s", asks="?", bases={"a": BASE, "b": oracle}, seeds=(0,))
    for variant in (BASE, oracle):
        rule = {"rule": variant.epoch_selection, "oracle": variant is oracle}
        write_rows(tmp_path, [(variant, "a", 0, 0.9)], change={"selection": rule})
    frame = runs(tmp_path, study)
    text = tables.as_text(tables.summary(frame, study), 2)
    assert "b (oracle)" in text
    assert "a (oracle)" not in text
    assert "test labels: b." in warned(tmp_path, study)
    page = StudyPage("s", selected(tmp_path, study))
    assert page.names["b"].marks == ("oracle",)
    said = sentences.protocol(selected(tmp_path, study))
    assert "last (10) for a; best-on-test (10) for b" in said


def test_a_record_in_the_place_of_another_run_is_named_and_left_out(results, capsys):
    place = Place.of(results, BASE, "d", "a", 0)
    place.record.write_bytes(Place.of(results, KERNELS, "d", "a", 0).record.read_bytes())
    assert len(runs(results)) == len(ROWS) - 1
    said = f"left out: {place.record}: expected the record of ('{BASE.digest}'"
    assert said in capsys.readouterr().err


def test_a_damaged_record_of_another_study_does_no_harm(results):
    stranger = Place.of(results, Variant(epochs=7), "d", "a", 0).record
    stranger.parent.mkdir(parents=True)
    stranger.write_text("{")
    assert len(runs(results)) == len(ROWS)


def test_records_are_read_once(results, monkeypatch):
    chosen = selected(results)
    assert len(chosen.records) == len(ROWS)
    monkeypatch.setattr("harness.report.selection.read_sound", None)
    assert len(tables.runs(chosen)) == len(ROWS)
    assert "9 train" in sentences.protocol(chosen)


def test_a_damaged_note_or_gallery_says_so_and_no_more(tmp_path):
    place = Place.of(tmp_path, Variant(), "d", "a", 0)
    study = Study(name="s", asks="?", bases={"a": Variant()}, seeds=(0,))
    write_failure(place, "the loss became nan")
    selection = selected(tmp_path, study)
    assert selection.failures() == ["the loss became nan"]
    place.failure.write_text("{")
    assert selection.failures() == [f"its note is damaged ({place.failure})"]
    place.gallery.write_bytes(b"PK")
    write_rows(tmp_path, [(Variant(), "a", 0, 0.9)])
    write_failure(place, "a note that was left beside the record")
    recorded = selected(tmp_path, study)
    assert recorded.failures() == []
    assert photos.shots(selection, recorded.records[0]) == []


def test_names_are_shown_as_they_are(tmp_path):
    """In Markdown, whatever a category, a variant or a data set is called."""
    study = Study(name="s", asks="?", bases={"*a|b*": Variant(), "<i>": TWO}, seeds=(0,))
    write_rows(tmp_path, [(Variant(), "`x|y`", 0, 0.9)])
    write_failure(Place.of(tmp_path, TWO, "d", "`x|y`", 0), "<b>why</b>")
    selection = Selection(study, tmp_path, "d", ("`x|y`", "_z_"))
    frame = tables.runs(selection)
    said = "".join(sentences.warnings(frame, selection)) + sentences.protocol(selection)
    said += sentences.no_gallery("*a|b*", "<i>")
    for raw in ("|", "`", "<", "*a", "_z"):
        assert raw not in said
    assert "&#96;x&#124;y&#96;" in said

"""Choosing without the test set, on pencil data: what is chosen, and how well it predicts."""

import msgspec
import numpy as np
import pytest
from handmade import changed, record

from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.store import write_record
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.report import label_free, plots, study_figures, study_tables
from harness.report.selection import Selection
from harness.report.study_page import StudyPage

BASE = Variant(holdout=0.1, validation="synthetic", eval_every=5)
SMOOTH = BASE.replace(smoothing=4.0)
BLIND = BASE.replace(smoothing=9.0)
LAST = BASE.replace(epoch_selection="label-free")
CHEAT = BASE.replace(epoch_selection="best-on-test")


def both(image, pixel):
    return {"image_auroc": image, "pixel_auroc": pixel}


def write(results, variant, category, seed, early, late, *, validated=True):
    """A record of two epochs, each ((image, pixel) of the validation, (image, pixel))."""
    epochs = [
        {"epoch": e, "metrics": both(*test)} | ({"validation": both(*own)} if validated else {})
        for e, (own, test) in ((5, early), (10, late))
    ]
    rule = variant.epoch_selection
    made = changed(
        record(variant, category, seed, 0.5), epochs=epochs, metrics=both(*late[1]),
        selection={"rule": rule, "oracle": rule.startswith("best-")},
    )  # fmt: skip
    place = Place.of(results, variant, "d", category, seed)
    write_record(place, msgspec.convert(made, Record))


def selected(results, *variants, categories=("nut", "bolt")):
    named = {str(i): v for i, v in enumerate(variants)}
    study = Study(name="s", asks="?", seeds=(0, 1), bases=named)
    return Selection(study, results, "d", categories)


@pytest.fixture
def three(tmp_path):
    """Validation finds the best variant of nut, and not that of bolt."""
    low = ((0.5, 0.5), (0.5, 0.5))
    for seed, d in ((0, -0.01), (1, 0.01)):
        write(tmp_path, BASE, "nut", seed, low, ((0.6 + d, 0.8), (0.7, 0.9)))
        write(tmp_path, SMOOTH, "nut", seed, low, ((0.9 + d, 0.9), (0.8 + d, 0.96)))
        write(tmp_path, BLIND, "nut", seed, low, ((0.2, 0.3), (0.6, 0.6)))
        write(tmp_path, BASE, "bolt", seed, low, ((0.9, 0.9 + d), (0.9, 0.7)))
        write(tmp_path, SMOOTH, "bolt", seed, low, ((0.8, 0.8), (0.9, 0.8)))
        write(tmp_path, BLIND, "bolt", seed, low, ((0.5, 0.5), (0.5, 0.5)))
    return selected(tmp_path, BASE, SMOOTH, BLIND)


def test_the_choice_beside_what_needs_labels(three):
    table = label_free.choices(three)
    assert list(table.index) == ["nut", "bolt", "mean"]
    variants = table.xs("variant", axis=1, level=1)
    assert variants[label_free.CHOSEN].tolist() == ["1", "0", ""]
    assert variants[label_free.FIXED].tolist() == variants[label_free.ORACLE].tolist()
    assert variants[label_free.ORACLE].tolist() == ["1", "1", ""]
    images = table.xs("image AUROC", axis=1, level=1)
    pixels = table.xs("pixel AUROC", axis=1, level=1)
    assert images[label_free.CHOSEN].tolist() == ["80.0", "90.0", "85.0"]
    assert pixels[label_free.CHOSEN].tolist() == ["96.0", "70.0", "83.0"]
    assert pixels[label_free.FIXED].tolist() == ["96.0", "80.0", "88.0"]


def test_pairs_are_means_over_the_seeds(three):
    paired = label_free.pairs(three)
    assert len(paired) == 3 * 2 * 2 * 3  # variants, categories, epochs, figures
    (row,) = paired[
        (paired["label"] == "1") & (paired["category"] == "nut") & (paired["epoch"] == 10)
        & (paired["figure"] == "both")
    ].to_dict("records")  # fmt: skip
    assert row["validation"] == pytest.approx((0.9 + 0.9) / 2)
    assert row["test"] == pytest.approx((0.8 + 0.96) / 2)


def test_correlation_by_pencil(tmp_path):
    """Ranks 1 2 3 4 against 1 2 4 3: rho = 1 - 6 · 2 / (4 · 15)."""
    for seed in (0, 1):
        write(
            tmp_path, BASE, "nut", seed, ((0.1, 0.5), (0.1, 0.4)), ((0.2, 0.5), (0.2, 0.3))
        )  # fmt: skip
        write(
            tmp_path, SMOOTH, "nut", seed, ((0.3, 0.5), (0.4, 0.2)), ((0.4, 0.5), (0.3, 0.1))
        )  # fmt: skip
    found = label_free.correlations(label_free.pairs(selected(tmp_path, BASE, SMOOTH))).loc["nut"]
    assert found["image AUROC"] == pytest.approx(0.8)
    assert np.isnan(found["pixel AUROC"])  # validation does not tell them apart
    assert found["pairs"] == 4


def test_two_pairs_are_no_correlation(tmp_path):
    write(tmp_path, BASE, "nut", 0, ((0.1, 0.1), (0.1, 0.1)), ((0.2, 0.2), (0.2, 0.2)))
    found = label_free.correlations(label_free.pairs(selected(tmp_path, BASE)))
    assert found.drop(columns="pairs").isna().all(axis=None)


def test_rules_of_one_training_count_once_and_oracles_are_no_candidates(tmp_path):
    early, late = ((0.9, 0.9), (0.7, 0.7)), ((0.8, 0.8), (0.6, 0.6))
    for variant in (BASE, LAST, CHEAT):
        write(tmp_path, variant, "nut", 0, early, late)
    selection = selected(tmp_path, BASE, LAST, CHEAT, categories=("nut",))
    assert set(label_free.pairs(selection)["label"]) == {"0"}
    only = selected(tmp_path, CHEAT, categories=("nut",))
    assert label_free.choices(only).empty
    assert not label_free.pairs(only).empty


def test_the_page_shows_it_where_records_have_a_validation(three, tmp_path):
    page = StudyPage("s", three)
    chosen, ranked = study_tables.chosen_without_labels(page)
    assert [row[0].text for row in chosen.rows] == ["nut", "bolt", "mean"]
    assert [c.name for c in ranked.columns][-1] == "pairs"
    assert len(study_figures.predictions(page).panels) == 3
    write(tmp_path / "bare", BASE, "nut", 0, *[((0, 0), (0, 0))] * 2, validated=False)
    assert study_figures.predictions(StudyPage("s", selected(tmp_path / "bare", BASE))) is None


def test_without_validation_there_is_nothing(tmp_path):
    write(tmp_path, BASE, "nut", 0, ((0, 0), (0, 0)), ((0, 0), (0, 0)), validated=False)
    selection = selected(tmp_path, BASE)
    assert label_free.pairs(selection).empty
    assert label_free.choices(selection).empty


def test_the_figure_shows_every_pair(three):
    paired = label_free.pairs(three)
    for name, title in label_free.LABELS.items():
        panel = plots.prediction(paired, name)
        assert panel.title == title
        dots = np.concatenate([line.get_xydata() for line in panel.figure.axes[0].lines])
        mine = paired[paired["figure"] == name]
        wanted = 100 * mine[["validation", "test"]].to_numpy()
        np.testing.assert_allclose(np.sort(dots, axis=0), np.sort(wanted, axis=0))

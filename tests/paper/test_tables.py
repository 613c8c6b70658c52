"""Published figures beside ours: the tables that the notebooks show, on records made by hand."""

from collections import Counter

import pandas as pd
import pytest
from handmade import write_run

from harness.data.counts import PUBLISHED_COUNTS
from harness.paper import boards, readings
from harness.paper import ledger as published
from harness.paper import tables as paper_tables
from harness.paper.gap import gaps
from harness.report import tables
from harness.report.selection import Selection, select
from harness.studies import get_study
from harness.studies.paper import RESNET18

MVTEC = list(PUBLISHED_COUNTS["mvtec_ad"])
TABLE2 = get_study("table2", seeds=[0, 1])


def fill(results, categories=MVTEC, seeds=(0, 1)):
    for category in categories:
        for seed in seeds:
            write_run(results, RESNET18, category, seed, 0.9 + 0.02 * seed)


def by_category(results, categories=MVTEC, asked=TABLE2):
    return table_of(Selection(asked, results, "mvtec_ad", tuple(categories)), "ResNet18")


def table_of(selection, label, metric="image_auroc"):
    return paper_tables.by_category(selection, tables.runs(selection), label, metric)


def compared(study, results):
    dataset = get_study(study).dataset
    return paper_tables.compared(select(study, results, dataset=dataset, categories=()))


def test_a_variant_by_category(tmp_path):
    fill(tmp_path)
    table = by_category(tmp_path)
    assert table.index.tolist() == [*MVTEC, "mean"]
    assert table.loc["bottle", "ours"] == "91.0 ± 1.4"
    assert table.loc["mean", "ours"] == "91.0 ± 1.4"
    assert table.loc["screw", "anomalib, best epoch on test"] == "52.1°"
    assert "lelexx, best epoch on test" in table
    assert not table.isna().any(axis=None)


def test_the_mean_is_only_over_all_categories(tmp_path):
    fill(tmp_path, MVTEC[:2])
    assert by_category(tmp_path, MVTEC[:2]).loc["mean", "ours"] == "–"
    assert by_category(tmp_path).loc["mean", "ours"] == "–"
    fill(tmp_path, seeds=(0,))
    table = by_category(tmp_path)
    assert table.loc["mean", "ours"] == "–"  # seed 1 has two categories
    one = get_study("table2", seeds=[0])
    assert by_category(tmp_path, asked=one).loc["mean", "ours"] == "90.0 (1 seed)"


def test_nothing_run(tmp_path):
    assert set(by_category(tmp_path)["ours"]) == {"–"}


def test_no_figure_hides_another():
    """Two figures of one backbone, metric and category never share a column."""
    places = Counter(
        (f.backbone.split(".")[0], f.dataset, f.metric, paper_tables._source(f), f.category)
        for f in published.ledger()
        if f.method == "FastFlow" and f.category
        and (f.table in ("table2", "table3", "table4") or f.by not in ("FastFlow", "U-Flow"))
    )  # fmt: skip
    assert [p for p, n in places.items() if n > 1] == []


def test_the_papers_own_column_stands_beside_its_backbone(tmp_path):
    selection = Selection(TABLE2, tmp_path, "mvtec_ad", tuple(MVTEC))
    cait = table_of(selection, "CaiT")
    assert cait.loc["screw", "paper"] == "97.8"
    assert cait.loc["mean", "paper"] == "99.4"
    pixel = table_of(selection, "ResNet18", "pixel_auroc")
    assert {"gathierry, last epoch", "gathierry, best epoch on test"} <= set(pixel.columns)
    assert "paper" not in pixel


def test_complexity_has_published_beside_ours(tmp_path):
    fill(tmp_path, seeds=(0,))
    board = boards.complexity("table1", compared("table1", tmp_path))
    heads = [c.name for c in board.columns]
    rows = {(row[0].text, row[1].text): row for row in board.rows}

    def pair(metric, *which):
        at = heads.index(f"{metric}, published")
        return tuple(cell.text for cell in rows[which][at : at + 2])

    assert pair("image AUROC", "ResNet18", "FastFlow") == ("97.9", "90.00")
    assert pair("A.d. params (M)", "ResNet18", "FastFlow") == ("4.9", "4.657")
    assert pair("FPS", "ResNet18", "FastFlow") == ("30.8°", "50.0")
    assert pair("FPS", "Wide-ResNet50-2", "SPADE") == ("0.67?", "–")
    ours = rows["ResNet18", "FastFlow"][heads.index("image AUROC, published") + 1]
    assert (ours.look, ours.says) == ("said undecided", "n = 1 seeds; undecided")


def test_verdicts_and_their_tally(tmp_path):
    table = compared("table1", tmp_path)
    board = boards.verdicts("v", table)
    assert len(board.rows) == len(table)
    row = next(r for r in board.rows if r[0].text == "cait_m48_448, mean, image AUROC")
    assert (row[6].text, row[6].look) == ("not run", "said not-run")
    assert row[1].says.startswith("FastFlow") or row[1].says  # its source
    assert "not run" in paper_tables.tally(table)
    nothing = gaps([], [], {})
    assert boards.verdicts("v", pd.DataFrame(columns=table.columns)) is None
    assert nothing.empty


def test_the_reading_that_survives():
    shown = readings.surviving()
    assert shown["matched"].max() < 5  # no reading gives all of the confirmed counts
    assert shown.loc["one-sided, all steps, width C/2", "Wide-ResNet50-2 3-1 (41.3 M)"]
    assert not shown.loc["two-sided, all steps, width C/2", "Wide-ResNet50-2 3-1 (41.3 M)"]
    assert shown.loc["two-sided, all steps, width 64", "CaiT 3-1 (14.8 M)"]
    assert shown.loc["two-sided, half the steps, width 1.06·C/2", "ResNet18 3 (4.9 M)"]
    by_hand = shown[[c for c in shown.columns if c != "matched" and "?" not in c]].sum(axis=1)
    pd.testing.assert_series_equal(by_hand, shown["matched"], check_names=False)
    assert len(readings.readings()) == 216


@pytest.mark.parametrize("table", ["table2", "table3", "table4", "disturbed"])
def test_every_mirrored_table_has_figures(table, tmp_path):
    assert len(compared(table, tmp_path)) >= 2


def test_another_copy_of_the_data_is_said_in_the_column(tmp_path):
    other = {"complete": False, "official": False, "published_form": False, "copy": "in words"}
    write_run(tmp_path, RESNET18, "bottle", 0, 0.9, data=other)
    write_run(tmp_path, RESNET18, "screw", 0, 0.9)
    said = by_category(tmp_path, ["bottle", "screw"]).columns[0]
    assert said == "ours (a part of the data, stored in another form)"
    assert by_category(tmp_path, ["screw"]).columns[0] == "ours"


def test_table4_shows_the_compared_methods():
    shown = table_of(
        select("table4", "nowhere", dataset="cifar10", categories=["cat"]), "ResNet18"
    )
    assert shown.loc["mean", "paper"] == "66.7"
    assert {"OCGAN, in the paper", "Deep SVDD, in the paper"} <= set(shown.columns)


def test_a_rival_stands_beside_figures_of_its_own_settings_and_backbone():
    bottle = select("table2", "nowhere", dataset="mvtec_ad", categories=["bottle"])
    table = table_of(bottle, "Wide-ResNet50-2, PatchCore")
    assert not [c for c in table if "best epoch" in c or "in the paper" in c]
    assert table.loc["mean", "PatchCore"] == "99.1"  # of 25 %, as the variant

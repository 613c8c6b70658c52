"""The gap: which variant repeats a published figure, and the verdict, on records made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from handmade import write_run
from scipy import stats

from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import warn
from harness.experiment.choices import method_of
from harness.experiment.store import read_records
from harness.paper import gap
from harness.paper.gap import Ours, counted, gaps, stands_for
from harness.paper.ledger import ledger
from harness.studies import STUDIES, get_study
from harness.studies.paper import CAIT, RESNET18

FIGURES = ledger()
MVTEC = tuple(PUBLISHED_COUNTS["mvtec_ad"])


def find(by="FastFlow", **wanted):
    found = [
        f for f in FIGURES if f.by == by and all(getattr(f, k) == v for k, v in wanted.items())
    ]
    assert len(found) == 1, [f.name for f in found]
    return found[0]


MEAN = find(table="table1", method="FastFlow", backbone="resnet18", metric="image_auroc")  # 97.9
SCREW = find(table="table2", method="FastFlow", category="screw", metric="image_auroc")  # 97.8


def judge(figure, results, counts=None, asked=None):
    return gaps([figure], read_records(results, damaged=warn), counts or {}, asked).iloc[0]


PAPERS = {"table": "table1", "method": "FastFlow", "metric": "image_auroc"}
STANDS = [
    (PAPERS | {"backbone": "cait_m48_448"}, "table1", "CaiT"),
    (PAPERS | {"backbone": "wide_resnet50_2"}, "table1", "Wide-ResNet50-2"),
    ({"table": "table1", "method": "CFLOW-AD", "backbone": "cait_m48_448", "metric": "fps"},
     "table1", "CaiT, CFLOW-AD"),
    ({"table": "table1", "method": "SPADE", "metric": "fps"}, "table1", "Wide-ResNet50-2, SPADE"),
    ({"table": "table2", "method": "FastFlow", "category": "grid", "metric": "pixel_auroc"},
     "table2", "CaiT"),
    ({"table": "disturbed", "metric": "image_auroc"}, "disturbed", "CaiT"),
    ({"table": "kernels_by_backbone", "setting": "kernels=3", "backbone": "cait_m48_448"},
     "kernels_by_backbone", "CaiT, kernels=3"),
    ({"table": "kernels_by_backbone", "setting": "kernels=3,1", "backbone": "resnet18"},
     "kernels_by_backbone", "ResNet18, kernels=3,1"),
    ({"by": "gathierry", "table": "README", "setting": "", "backbone": "resnet18",
      "category": "bottle"}, "reproductions", "gathierry, ResNet18"),
    ({"by": "gathierry", "setting": "epoch_selection=best-pixel-on-test", "backbone": "resnet18",
      "category": "bottle"}, "reproductions", "gathierry, ResNet18, best epoch"),
    ({"by": "gathierry", "table": "issue 26 (a user's run)"}, "reproductions",
     "gathierry, ResNet18"),
    ({"by": "anomalib", "table": "FastFlow README", "backbone": "deit_base_distilled_patch16_384",
      "category": "wood", "metric": "image_f1max"}, "reproductions", "anomalib, DeiT"),
    ({"by": "lelexx", "metric": "image_auroc"}, "reproductions", "lelexx, ResNet18"),
    ({"by": "HTCho1", "category": "grid", "metric": "image_auroc"}, "reproductions",
     "HTCho1, CaiT"),
    ({"by": "RistoranteRist", "category": "grid", "metric": "image_auroc"}, "reproductions",
     "RistoranteRist, CaiT"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "study", "variant"), STANDS)
def test_the_variant_that_repeats_a_figure(wanted, study, variant):
    found = stands_for(find(**wanted))
    assert (found[0].name, found[1]) == (study, variant)
    assert STUDIES[study].named[found[2]] == variant


def test_a_backbones_tag_must_agree():
    tagged = replace(MEAN, backbone="resnet18.tv_in1k")
    assert stands_for(tagged)[2] == RESNET18
    assert stands_for(replace(MEAN, backbone="resnet18.a1_in1k")) is None


NOWHERE = [
    {"table": "table3", "method": "FastFlow", "category": "mean"},  # the backbone is not known
    {"table": "table4", "method": "FastFlow"},
    {"table": "table2", "method": "CFLOW-AD", "metric": "image_auroc"},  # on which backbone?
    {"table": "table2", "method": "CutPaste", "metric": "image_auroc"},
    {
        "by": "anomalib",
        "method": "PaDiM",
        "backbone": "resnet18",
        "category": "mean",
        "metric": "image_auroc",
    },  # other crops than ours
    {"by": "mjack3", "category": "bottle"},
    {"by": "MindSpore", "table": "README, RTX 3090", "category": "bottle"},
    {"by": "AltUB"},
]


@pytest.mark.parametrize("wanted", NOWHERE)
def test_what_no_study_repeats(wanted):
    assert stands_for(find(**wanted)) is None


def test_every_figure_of_the_papers_known_backbones_is_repeated():
    for f in FIGURES:
        ours = f.by == "FastFlow" and method_of(f.method)
        if ours and f.backbone and f.table != "text":
            assert stands_for(f), f.name


def test_interval_by_pencil():
    # mean 98, deviations ±1, standard deviation 1: 1 / sqrt(3) times t(0.975, 2) = 4.302653
    ours = Ours(((97.0, 98.0, 99.0),))
    half = 4.302652729911275 / np.sqrt(3)
    assert ours.interval == pytest.approx((98 - half, 98 + half))
    assert ours.interval == pytest.approx(
        stats.t.interval(0.95, 2, loc=98, scale=stats.sem([97, 98, 99]))
    )
    assert np.isnan(Ours(((97.0, 99.0),)).interval).all()  # two seeds tell nothing
    assert np.isnan(Ours(((97.0,),)).interval).all()
    assert np.isnan(Ours().interval).all()
    assert Ours(((98.0,) * 3,)).interval == (98, 98)
    assert Ours(((4.9,),), exact=True).interval == (4.9, 4.9)


def test_a_means_interval_is_of_the_spread_within_its_categories():
    ours = Ours(((97.0, 98.0, 99.0), (87.0, 88.0, 89.0)))
    assert (ours.mean, ours.seeds) == (93.0, 3)
    half = stats.t.ppf(0.975, 4) / np.sqrt(6)  # six values of variance 1, two means taken off
    assert ours.interval == pytest.approx((93 - half, 93 + half))


def test_noise_never_makes_a_claim_easier():
    spreads = (0.0, 0.05, 0.1, 0.2, 0.5, 1.5, 5.0)
    near = [Ours(((98.4 - s, 98.4, 98.4 + s),)).verdict(98.5, 0.55) for s in spreads]
    assert near == ["reproduced"] * 3 + ["undecided"] * 4
    far = [Ours(((96.0 - s, 96.0, 96.0 + s),)).verdict(98.5, 0.55) for s in spreads]
    assert far == ["gap"] * 5 + ["undecided"] * 2
    # the case that was called reproduced, and its first two seeds
    assert Ours(((93.5, 95.0, 96.5),)).verdict(98.5, 0.55) == "undecided"
    assert Ours(((93.5, 95.0),)).verdict(98.5, 0.55) == "undecided"


@pytest.mark.parametrize(
    ("aurocs", "verdict"),
    [
        ((0.978,), "undecided"),  # fewer than three seeds
        ((0.9, 0.9), "undecided"),
        ((0.977, 0.978, 0.979), "reproduced"),
        ((0.9775, 0.9775, 0.9775), "reproduced"),
        ((0.9726, 0.9726, 0.9726), "reproduced"),  # 97.8 - 0.5 - 0.05 = 97.25
        ((0.9724, 0.9724, 0.9724), "gap"),
        ((0.9834, 0.9834, 0.9834), "reproduced"),
        ((0.9836, 0.9836, 0.9836), "exceeds"),
        ((0.96, 0.961, 0.9842), "undecided"),  # the interval reaches it, and much else
        ((0.975, 0.978, 0.981), "undecided"),
        ((0.9, 0.901, 0.902), "gap"),
        ((0.99, 0.991, 0.992), "exceeds"),
    ],
)
def test_verdicts_of_a_category(tmp_path, aurocs, verdict):
    for seed, auroc in enumerate(aurocs):
        write_run(tmp_path, CAIT, "screw", seed, auroc)
    row = judge(SCREW, tmp_path)
    assert row["verdict"] == verdict
    assert row["seeds"] == len(aurocs)
    assert row["ours"] == pytest.approx(100 * np.mean(aurocs))
    assert row["gap"] == pytest.approx(row["ours"] - 97.8)
    assert row["tolerance"] == pytest.approx(0.55)
    if len(aurocs) > 2 and np.ptp(aurocs):
        interval = stats.t.interval(0.95, 2, loc=row["ours"], scale=stats.sem(aurocs) * 100)
        assert (row["low"], row["high"]) == pytest.approx(interval)


def test_a_mean_is_over_all_official_categories_of_a_seed(tmp_path):
    for category in MVTEC[:-1]:
        write_run(tmp_path, RESNET18, category, 0, 0.98)
        write_run(tmp_path, RESNET18, category, 1, 0.96)
    write_run(tmp_path, RESNET18, "unofficial", 0, 0.1)
    row = judge(MEAN, tmp_path)
    assert (row["verdict"], row["why"]) == ("not run", "14 of 15 categories are recorded")
    assert row["seeds"] == 0
    write_run(tmp_path, RESNET18, MVTEC[-1], 0, 0.95)
    row = judge(MEAN, tmp_path)
    assert (row["verdict"], row["seeds"]) == ("undecided", 1)  # seed 1 lacks a category
    assert row["ours"] == pytest.approx(100 * (14 * 0.98 + 0.95) / 15)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "image_auroc is not recorded"),
        (None, "no record"),  # a damaged one is left out, and named
        ("0.99", "no record"),
    ],
)
def test_what_is_no_number_is_never_reproduced(tmp_path, value, why, capsys):
    write_run(tmp_path, CAIT, "screw", 0, 0.978, metrics={"image_auroc": value})
    row = judge(SCREW, tmp_path)
    assert (row["verdict"], row["why"]) == ("not run", why)
    assert ("left out: " in capsys.readouterr().err) == (why == "no record")


def test_smoke_runs_other_variants_and_data_sets_do_not_count(tmp_path):
    write_run(tmp_path, CAIT.replace(smoke=True), "screw", 0, 0.97, smoke=True)
    write_run(tmp_path, CAIT.replace(epochs=9), "screw", 0, 0.97)
    write_run(tmp_path, CAIT, "screw", 0, 0.97, dataset="mine")
    row = judge(SCREW, tmp_path)
    assert (row["verdict"], row["why"], row["seeds"]) == ("not run", "no record", 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"random_weights": True}, "random backbone weights"),
        ({"data": {"official": False, "copy": "5 of 160 images"}}, "screw: 5 of 160 images"),
        ({"data": {"official": None}}, "screw: a part of the published 320 train, 160 test"),
    ],
)
def test_other_weights_and_data_do_not_compare(tmp_path, changes, why):
    write_run(tmp_path, CAIT, "screw", 0, 0.978, **changes)
    row = judge(SCREW, tmp_path)
    assert (row["verdict"], row["why"], row["seeds"]) == ("not comparable", why, 1)


def test_another_categorys_copy_does_not_matter(tmp_path):
    for seed in range(3):
        write_run(tmp_path, CAIT, "screw", seed, 0.978)
    write_run(tmp_path, CAIT, "carpet", 0, 0.978, data={"official": False, "copy": "a part"})
    assert judge(SCREW, tmp_path)["verdict"] == "reproduced"


def test_an_unverified_figure_is_shown_and_never_judged(tmp_path):
    write_run(tmp_path, CAIT, "screw", 0, 0.5)
    row = judge(replace(SCREW, status="unverified"), tmp_path)
    assert row["verdict"] == "not comparable"
    assert row["why"].startswith("unverified")
    table = gaps(FIGURES, read_records(tmp_path, damaged=warn), {k: 1 for k in counted(FIGURES)})
    assert set(table[table["status"] == "unverified"]["verdict"]) == {"not comparable"}


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"table": "table1", "method": "FastFlow", "backbone": "resnet18", "metric": "fps"},
         "measured on other hardware"),
        ({"by": "VT-ADL", "method": "VT-ADL", "category": "01"}, "unverified"),
        ({"by": "AlessioGalluccio"}, "image or pixel level is not stated"),
        ({"table": "table3", "method": "FastFlow", "category": "mean"},
         "the backbone is not known"),
    ],
)  # fmt: skip
def test_what_can_never_be_judged(tmp_path, wanted, why):
    row = judge(find(**wanted), tmp_path)
    assert row["verdict"] == "not comparable"
    assert row["why"].startswith(why)


def test_a_pr_auc_is_not_beside_a_roc_auc(tmp_path):
    row = judge(replace(SCREW, metric="pixel_pr_auc"), tmp_path)
    assert (row["verdict"], row["why"]) == ("not comparable", "a PR-AUC beside ROC AUCs")


def test_speed_is_shown_beside_and_not_judged(tmp_path):
    write_run(tmp_path, RESNET18, "screw", 0, 0.9)  # its record says 50 images a second
    fps = find(table="table1", method="FastFlow", backbone="resnet18", metric="fps")
    row = judge(fps, tmp_path)
    assert (row["ours"], row["verdict"]) == (50.0, "not comparable")


@pytest.mark.parametrize(
    ("count", "verdict"),
    [(4_849_999, "gap"), (4_850_001, "reproduced"), (4_949_999, "reproduced"),
     (4_950_001, "exceeds"), (None, "not run")],
)  # fmt: skip
def test_parameters_are_judged_by_rounding_alone(tmp_path, count, verdict):
    figure = find(table="table1", method="FastFlow", backbone="resnet18",
                  metric="additional_params")  # fmt: skip
    counts = {} if count is None else {RESNET18.digest: count}
    row = judge(figure, tmp_path, counts)
    assert row["verdict"] == verdict
    assert row["tolerance"] == pytest.approx(0.05)


def test_an_exact_count_is_judged_to_its_last_digit(tmp_path):
    figure = find(by="gathierry", table="issue 26 (a user's run)")
    digest = stands_for(figure)[2].training.digest
    assert judge(figure, tmp_path, {digest: 5_574_912})["verdict"] == "reproduced"
    assert judge(figure, tmp_path, {digest: 5_574_910})["verdict"] == "gap"


def test_changed_settings_are_said_and_do_not_compare(tmp_path):
    asked = get_study("table2", variants=["CaiT"], set={"epochs": 20, "kernels": (3,)})
    write_run(tmp_path, asked.variants[0], "screw", 0, 0.978)
    row = judge(SCREW, tmp_path, asked=asked)
    assert row["verdict"] == "not comparable"
    assert row["why"] == "kernels 3 instead of 3,1, epochs 20 instead of 500"
    assert row["seeds"] == 1
    assert judge(SCREW, tmp_path)["verdict"] == "not run"
    # the paper's own settings compare, and another study's do not stand in
    write_run(tmp_path, CAIT, "screw", 0, 0.978)
    assert judge(SCREW, tmp_path, asked=get_study("table2"))["why"] == ""
    assert judge(SCREW, tmp_path, asked=get_study("table1", set={"epochs": 20}))["why"] == ""


def test_the_whole_ledger_on_nothing(tmp_path):
    table = gaps(FIGURES, read_records(tmp_path, damaged=warn), {})
    assert len(table) == len(FIGURES)
    assert set(table["verdict"]) == {"not run", "not comparable"}
    assert (table["why"] != "").sum() >= len(table) - len(counted(FIGURES)) - 20
    assert "fields" not in table
    assert set(table["verdict"]) <= set(gap.VERDICTS)
    assert json.loads(table.to_json(orient="records"))

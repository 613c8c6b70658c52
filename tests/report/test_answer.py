"""Differences, learning, speeds and the answer, from records made by hand."""

from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd
import pytest
from handmade import changed, record

from harness.experiment.measured import Speed
from harness.experiment.place import Place
from harness.experiment.record import Images, Record
from harness.experiment.store import write_record
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.report import plots, study_tables, tables
from harness.report.answer import answer
from harness.report.differences import differences
from harness.report.learning import rises, unfinished
from harness.report.names import Name
from harness.report.ranks import ranks
from harness.report.selection import Selection
from harness.report.speeds import speeds, unsteady
from harness.report.study_page import StudyPage
from harness.score.metrics import image_metrics

STUDY = Study(
    name="s", asks="Better?", bases={"base": Variant()},
    vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)), seeds=(0, 1, 2),
)  # fmt: skip
BASE, KERNELS, TWO = STUDY.variants


def write(results, variant, category, seed, auroc, *, dataset="mvtec_ad", images=None, **changes):
    made = changed(record(variant, category, seed, float(auroc)), dataset=dataset, **changes)
    made["images"] = images and msgspec.to_builtins(images)
    place = Place.of(results, variant, dataset, category, seed)
    write_record(place, msgspec.convert(made, Record))


def selected(results, study=STUDY, dataset="mvtec_ad", categories=("a", "b")):
    return Selection(study, results, dataset, categories)


@pytest.fixture
def clear(tmp_path):
    """One variant five points better, give or take half a point; one neither."""
    rng = np.random.default_rng(0)
    for category, level in (("a", 0.9), ("b", 0.8)):
        for seed in STUDY.seeds:
            noise = rng.normal(0, 0.003, 2)
            write(tmp_path, BASE, category, seed, level)
            write(tmp_path, KERNELS, category, seed, level + 0.05 + noise[0])
            write(tmp_path, TWO, category, seed, level + noise[1])
    return tmp_path


def test_differences_by_hand(tmp_path):
    for category, seed, points in (("a", 0, 5), ("a", 1, 4), ("b", 0, 6), ("b", 1, 5)):
        write(tmp_path, BASE, category, seed, 0.5)
        write(tmp_path, KERNELS, category, seed, 0.5 + points / 100)
    write(tmp_path, TWO, "a", 0, 0.51)
    kernels, two = differences(selected(tmp_path, replace(STUDY, seeds=(0, 1))))
    assert (kernels.pairs, kernels.by_seeds.mean) == (4, pytest.approx(5.0))
    # within the categories: variance ½ each; four values, two means taken off: t(0.975; 2) = 4.303
    half = 4.302652729911275 * np.sqrt(0.5 / 4)
    assert kernels.interval == pytest.approx((5 - half, 5 + half))
    assert kernels.adjusted == kernels.by_seeds.p  # the other one has one seed, and is not counted
    assert (two.pairs, two.verdict) == (1, "unknown")
    assert two.by_seeds.mean == pytest.approx(1.0)


def test_the_answer_recommends_and_says_what_is_clear(clear):
    said = answer(selected(clear))
    assert "**Image level**: the reference (base) has a mean image AUROC of 85.0." in said
    assert "kernels=3,1 gains 5." in said
    assert "No clear difference: coupling=two-sided." in said
    assert "Take kernels=3,1 (" in said
    assert "cannot tell" not in said.split("\n\n")[0]


def test_a_verdict_is_corrected_for_the_number_of_variants(tmp_path):
    """A difference that is clear by itself, among eight that are none."""
    many = Study(
        name="s", asks="?", bases={"base": Variant()}, seeds=(0, 1, 2),
        vary=one_factor(flow_steps=(1, 2, 3, 4, 5, 6, 7)),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    for i, variant in enumerate(many.variants):
        for seed in many.seeds:
            shift = 0.01 * (seed - 1) if i == 1 else rng.normal(0, 0.02)
            write(tmp_path, variant, "a", seed, 0.8 + (0.03 if i == 1 else 0) + (i > 0) * shift)
    one = differences(selected(tmp_path, many, categories=("a",)))[0]
    assert one.by_seeds.p < 0.05
    assert one.interval[0] > 0
    assert one.verdict == "open"


def test_one_seed_claims_nothing(clear):
    one = replace(STUDY, seeds=(0,))
    said = answer(selected(clear, one))
    assert "gains" not in said
    assert "Take" not in said
    assert "Not enough seeds to tell: kernels=3,1, coupling=two-sided." in said
    assert "At least two seeds are needed" in said


def photos(rng, good, bad, *, shift=1.2):
    """Scores of a person's few photos under two variants, alike in truth, three seeds each."""
    labels = np.r_[np.zeros(good), np.ones(bad)]
    common = rng.normal(size=good + bad) + shift * labels
    for variant in (BASE, KERNELS):
        own = common + 0.6 * rng.normal(size=good + bad)
        for seed in STUDY.seeds:
            yield variant, seed, own + 0.05 * rng.normal(size=good + bad), labels


def write_photos(results, rng, good, bad, **options):
    for variant, seed, scores, labels in photos(rng, good, bad, **options):
        images = Images(
            path=[f"{i}.png" for i in range(len(labels))],
            defect=["scratch" if label else "good" for label in labels],
            score=scores.tolist(),
        )
        auroc = image_metrics(scores, labels)["image_auroc"]
        write(
            results, variant, "plate", seed, auroc, pixel=None, dataset="plates", images=images,
            data={"test": good + bad, "defective": bad},
        )  # fmt: skip


def pair():
    return Study(
        name="s", asks="?", bases={"base": Variant()}, seeds=(0, 1, 2),
        vary=one_factor(kernels=((3, 1),)),
    )  # fmt: skip


def test_few_photos_cannot_tell_and_it_says_how_many_would(tmp_path):
    """The three seeds agree, and twelve good and thirty bad photos do not."""
    write_photos(tmp_path, np.random.default_rng(2), 12, 30)
    chosen = selected(tmp_path, pair(), "plates", ("plate",))
    (difference,) = differences(chosen)
    low, high = difference.by_seeds.interval()
    assert low * high > 0  # the seeds alone are sure
    low, high = difference.interval
    assert low < 0 < high
    said = answer(chosen)
    assert "These photos cannot tell which variant to take" in said
    assert "test photos (here: 12 and 30)" in said
    assert "gains" not in said
    assert "loses" not in said


def test_enough_photos_tell(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(200), np.ones(200)]
    for variant, shift in ((BASE, 1.0), (KERNELS, 3.0)):
        for seed in STUDY.seeds:
            scores = rng.normal(size=400) + shift * labels
            images = Images(
                path=[f"{i}" for i in range(400)],
                defect=["x" if label else "good" for label in labels],
                score=scores.tolist(),
            )
            auroc = image_metrics(scores, labels)["image_auroc"]
            write(tmp_path, variant, "plate", seed, auroc, dataset="plates", images=images)
    assert "Take kernels=3,1" in answer(selected(tmp_path, pair(), "plates", ("plate",)))


@pytest.mark.parametrize(("images", "said"), [(True, "At least two good"), (False, "rescore")])
def test_what_one_photo_or_an_old_record_lacks_is_said(tmp_path, images, said):
    for variant, auroc in ((BASE, 0.9), (KERNELS, 0.8)):
        for seed in STUDY.seeds:
            listed = Images(path=["0", "1", "2"], defect=["good", "x", "x"], score=[0.1, 0.2, 0.3])
            write(
                tmp_path, variant, "plate", seed, auroc - 0.01 * seed, dataset="plates",
                images=listed if images else None,
            )  # fmt: skip
    found = answer(selected(tmp_path, pair(), "plates", ("plate",)))
    assert said in found
    assert "Take" not in found


def test_pixels_of_the_photos_count_too(tmp_path):
    rng = np.random.default_rng(1)
    for variant in (BASE, KERNELS):
        found, clear = rng.uniform(0.5, 1, 10).tolist(), rng.uniform(0.7, 1, 20).tolist()
        for seed in STUDY.seeds:
            images = Images(
                path=[f"{i}" for i in range(20)], defect=["good"] * 10 + ["x"] * 10,
                score=[0.0] * 20, defect_pixels=[0] * 10 + [9] * 10, pixels=100,
                found=[None] * 10 + found, clear=clear,
            )  # fmt: skip
            write(tmp_path, variant, "plate", seed, 0.9, dataset="plates", images=images)
    (difference,) = differences(selected(tmp_path, pair(), "plates", ("plate",)), "pixel_auroc")
    assert difference.by_seeds.error == 0
    assert difference.by_photos.error > 1  # points
    assert difference.verdict == "open"


def test_oracles_are_not_recommended(tmp_path):
    for seed in STUDY.seeds:
        write(tmp_path, BASE, "a", seed, 0.8)
        oracle = {"rule": "best-on-test", "epoch": 5, "oracle": True}
        write(tmp_path, KERNELS, "a", seed, 0.95 + seed / 1000, selection=oracle)
        write(tmp_path, TWO, "a", seed, 0.85 + seed / 1000)
    said = answer(selected(tmp_path, categories=("a",)))
    assert "Take coupling=two-sided" in said


def curves(*values, seeds=3, noise=0.001):
    rng = np.random.default_rng(0)
    rows = [
        ("base", "a", seed, 5 * (i + 1), value + rng.normal(0, noise))
        for seed in range(seeds)
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["label", "category", "seed", "epoch", "image_auroc"])


@pytest.mark.parametrize(
    ("values", "seeds", "still"),
    [
        ((0.5, 0.6, 0.7, 0.73), 3, True),
        ((0.5, 0.9, 0.9, 0.902), 3, False),  # 0.2 points
        ((0.5, 0.9, 0.9, 0.85), 3, False),  # it falls: overfitting, and no speed of learning
        ((0.5, 0.6, 0.7, 0.73), 1, True),  # one seed: the rise itself
    ],
)
def test_what_still_rises_is_said(values, seeds, still):
    table = curves(*values, seeds=seeds)
    (rise,) = rises(table, "image_auroc")
    assert (rise.since, rise.until) == (15, 20)
    assert rise.points == pytest.approx(100 * (values[3] - values[2]), abs=0.3)
    assert rise.still == still
    said = unfinished(table, "image_auroc", "image AUROC")
    assert ("**Training had not ended**" in said) == still
    assert ("--epochs 40" in said) == still


def test_a_rise_that_noise_can_explain_is_none():
    assert not rises(curves(0.5, 0.6, 0.7, 0.71, noise=0.05), "image_auroc")[0].still


def test_rises_come_in_the_order_of_the_study():
    table = pd.concat([curves(0.5, 0.6, 0.7, 0.73).assign(label=name) for name in ("b", "a", "c")])
    assert [r.variant for r in rises(table, "image_auroc")] == ["b", "a", "c"]


def test_one_evaluation_tells_nothing():
    assert rises(curves(0.7), "image_auroc") == []


STEADY = Speed(
    fps=50.0, fps_min=48.0, fps_max=52.0, latency_ms=20.0, latency_ms_min=19.0,
    latency_ms_max=22.0, rounds=5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"rounds": 1}, "not steady: 1 rounds"),
        ({"latency_ms_max": 40.0}, "not steady: latency from 19 to 40"),
        ({"fps_min": 20.0}, "not steady: FPS from 20 to 52"),
        ({"latency_ms": 48.8, "latency_ms_min": 48.0, "latency_ms_max": 49.0, "fps": 1.4,
          "fps_min": 1.3, "fps_max": 1.5},
         "not steady: 1.4 FPS in batches beside 48.8 ms"),
    ],
)  # fmt: skip
def test_what_is_not_steady_is_named(changes, said):
    assert unsteady(msgspec.structs.replace(STEADY, **changes)).startswith(said)
    assert bool(unsteady(msgspec.structs.replace(STEADY, **changes))) == bool(said)


def test_speeds_of_equal_networks_and_of_other_sessions(tmp_path):
    study = Study(
        name="s", asks="?", bases={"base": Variant()}, seeds=(0,),
        vary=one_factor(smoothing=(4,), flow_steps=(2, 4)),
    )  # fmt: skip
    base, smooth, two, four = study.variants

    def timed(variant, ms, session, flow):
        speed = {"latency_ms": ms, "fps": 1e3 / ms, "rounds": 5, "session": session}
        parameters = {"flow": flow, "norm": 0, "frozen": 0, "backbone": 7}
        write(
            tmp_path, variant, "a", 0, 0.9, parameters=parameters,
            measured={"speed": speed, "fit_seconds": 1.0},
        )  # fmt: skip

    timed(base, 48.8, "one", 1000)
    timed(smooth, 2772, "one", 1000)  # the same network under another name
    timed(two, 20, "one", 200)
    timed(four, 30, "two", 400)
    selection = selected(tmp_path, study, categories=("a",))
    why = speeds(selection)["why"]
    assert why[base.digest] == why[smooth.digest] != ""
    assert why[base.digest].startswith("not steady: equal networks took 48.8")
    assert why[two.digest] == ""
    assert why[four.digest] == "measured in another session"
    frame = tables.runs(selection).set_index("label")
    assert frame["fps"].notna().to_dict() == {
        "base": False, "smoothing=4.0": False, "flow_steps=2": True, "flow_steps=4": False,
    }  # fmt: skip
    board = study_tables.variants(StudyPage("s", selection))
    column = [c.name for c in board.columns].index("FPS")
    shown = [row[column].text for row in board.rows]
    assert shown == ["not steady", "not steady", "50.0", "measured in another session"]


def test_auroc_by_kind_of_defect(tmp_path):
    images = Images(
        path=list("abcd"), defect=["good", "good", "dent", "scratch"], score=[0.1, 0.5, 0.3, 0.9]
    )
    write(tmp_path, BASE, "a", 0, 0.75, images=images)
    selection = selected(tmp_path, categories=("a",))
    table = tables.by_defect(selection, tables.runs(selection))
    assert table.loc["base"].to_dict() == {"dent (1)": 50.0, "scratch (1)": 100.0}
    write(tmp_path, BASE, "a", 0, 0.75)  # an old record
    assert tables.by_defect(selected(tmp_path, categories=("a",)), tables.runs(selection)).empty


@pytest.mark.parametrize(("count", "ranked"), [(9, False), (12, True)])
def test_ranks_need_ten_categories(tmp_path, count, ranked):
    rng = np.random.default_rng(0)
    names = tuple(f"c{i}" for i in range(count))
    for name in names:
        for variant, level in ((BASE, 0.7), (KERNELS, 0.9), (TWO, 0.71)):
            write(tmp_path, variant, name, 0, level + rng.normal(0, 0.02))
    found = ranks(selected(tmp_path, replace(STUDY, seeds=(0,)), categories=names), "image_auroc")
    assert (found is not None) == ranked
    if found:
        assert found.mean["kernels=3,1"] == 1.0
        assert found.friedman < 0.01
        assert found.pairs.loc["base", "kernels=3,1"] < 0.01
        assert "differ" in found.sentence()
        shown = {name: Name(name.upper(), name) for name in found.mean.index}
        drawn = plots.critical_difference(found, shown, "Ranks").svg.text
        assert ">KERNELS=3,1 (1)<" in drawn

"""The regression check, on edited copies of the shipped baseline."""

import json
import shutil

import pytest

from harness.bundled import bundled
from harness.cli import main as cli
from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.study import Study
from harness.paper import baseline as regression
from harness.paper import parameters
from harness.score.metrics import METRICS
from harness.studies import STUDIES

BASELINE = bundled("results", "baseline")
SURFACES = STUDIES["surfaces"]
CATEGORIES = list(PUBLISHED_COUNTS["surfaces"])
ONE = SURFACES.only("base", "coupling=two-sided")
TWO_SIDED = ONE.variants[1]
FIRST = "parameters of ResNet18, kernels=3, one-sided, 8 steps, width C/2: flow"
COUNTS = json.loads((BASELINE / "parameters.json").read_text())


@pytest.fixture
def results(tmp_path):
    return shutil.copytree(BASELINE, tmp_path / "results")


@pytest.fixture
def counted(monkeypatch):
    """Counting takes seconds and is tested on its own (tests/paper/test_parameters.py)."""
    monkeypatch.setattr(parameters, "accounting", lambda published, variants: COUNTS)


def place(results, variant=TWO_SIDED, category="grass", seed=1) -> Place:
    return Place.of(results, variant, "surfaces", category, seed)


def edit(place, **changes):
    """Change a record: a dict of metrics, or a function of each metric."""
    record = json.loads(place.record.read_text())
    for key, value in changes.items():
        record[key] = value(record[key]) if callable(value) else value
    place.record.write_text(json.dumps(record))
    return record


def lower(metric, points):
    return lambda metrics: metrics | {metric: metrics[metric] - points / 100}


def compare(results, study: Study = ONE, baseline=BASELINE):
    return regression.compare(study, CATEGORIES, results, baseline)


def failed(table):
    return table[table["verdict"].isin(regression.FAILS)]


def test_the_baseline_is_the_embedded_study_and_equals_itself():
    table = compare(BASELINE, SURFACES)
    assert set(table["verdict"]) == {"same"}
    cells = table[table["category"] != "mean"]
    assert len(cells[["variant", "category", "seed"]].drop_duplicates()) == 9 * 3 * 3
    assert len(table[table["category"] == "mean"]) == 9 * len(METRICS)
    assert (table["difference"] == 0).all()


def test_three_points_less_in_one_record_regress(results):
    edit(place(results), metrics=lower("image_auroc", 3))
    (row,) = failed(compare(results)).to_dict("records")
    assert row["verdict"] == "regressed"
    assert row["cell"] == "coupling=two-sided, grass, seed 1"
    assert row["metric"] == "image_auroc"
    assert row["difference"] == pytest.approx(-3)


@pytest.mark.parametrize(
    ("metric", "points", "verdict"),
    [
        ("image_auroc", 0.99, "same"), ("image_auroc", 1.01, "regressed"),
        ("image_auroc", -1.01, "improved"), ("image_f1max", 1.9, "same"),
        ("image_f1max", 2.1, "regressed"), ("aupro", 1.01, "regressed"),
    ],
)  # fmt: skip
def test_a_run_may_move_so_far(results, metric, points, verdict):
    edit(place(results), metrics=lower(metric, points))
    table = compare(results)
    rows = table[(table["category"] != "mean") & (table["difference"].abs() > 1e-9)]
    assert rows["verdict"].tolist() == [verdict]


def every(results, study=ONE):
    return [place(results, c.variant, c.category, c.seed) for c in study.cells(CATEGORIES)]


def test_half_a_point_less_everywhere_is_caught_by_the_mean(results):
    for each in every(results):
        edit(each, metrics=lower("pixel_auroc", 0.5))
    rows = failed(compare(results))
    assert rows["cell"].tolist() == ["base, mean", "coupling=two-sided, mean"]
    assert set(rows["metric"]) == {"pixel_auroc"}
    assert rows["difference"].tolist() == pytest.approx([-0.5, -0.5])


def test_half_a_point_less_with_noise_is_caught_too(results):
    for i, each in enumerate(every(results)):
        edit(each, metrics=lower("pixel_auroc", 0.5 + 0.2 * (-1) ** i))
    assert set(failed(compare(results))["category"]) == {"mean"}


def test_noise_is_not_a_regression(results):
    for i, each in enumerate(every(results)):
        edit(each, metrics=lower("image_auroc", 0.2 * (-1) ** i))
    assert set(compare(results)["verdict"]) == {"same"}


def test_one_run_far_off_does_not_move_the_mean(results):
    edit(place(results), metrics=lower("image_auroc", 3))  # a mean of -0.33 that a test doubts
    table = compare(results)
    means = table[(table["category"] == "mean") & (table["metric"] == "image_auroc")]
    assert means["verdict"].tolist() == ["same", "same"]


def test_half_a_point_more_everywhere_improves(results):
    for each in every(results):
        edit(each, metrics=lower("pixel_auroc", -0.5))
    table = compare(results)
    assert failed(table).empty
    assert (table["verdict"] == "improved").sum() == 2


def test_a_removed_record_is_missing(results):
    place(results).record.unlink()
    rows = failed(compare(results))
    assert set(rows["verdict"]) == {"missing"}
    assert set(rows["cell"]) == {"coupling=two-sided, grass, seed 1"}
    assert set(failed(compare(results / "nothing"))["verdict"]) == {"missing"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_fails(results, value):
    edit(place(results), metrics=lambda m: m | {"aupro": value})
    (row,) = failed(compare(results)).to_dict("records")
    assert (row["verdict"], row["metric"]) == ("not a number", "aupro")
    edit(place(results), metrics=lambda m: {k: v for k, v in m.items() if k != "aupro"})
    assert failed(compare(results))["verdict"].tolist() == ["not a number"]


def test_a_metric_that_was_not_accepted_is_not_compared(results):
    accepted = results.parent / "accepted"
    shutil.copytree(BASELINE, accepted)
    for each in every(accepted):
        edit(each, metrics=lambda m: {k: v for k, v in m.items() if k != "aupro_05"})
    table = compare(results, baseline=accepted)
    assert failed(table).empty
    assert "aupro_05" not in set(table["metric"])


@pytest.mark.parametrize("value", [None, "0.9"])
def test_a_damaged_run_is_named(results, value):
    edit(place(results), metrics=lambda m: m | {"aupro": value})
    with pytest.raises(InputError, match=r"seed-1\.json: expected a run record"):
        compare(results)


def test_other_data_fails(results):
    edit(place(results), data=lambda d: d | {"digest": "other"})
    assert set(failed(compare(results))["verdict"]) == {"other data"}


@pytest.mark.parametrize("value", [float("nan")])
def test_a_damaged_baseline_is_named(results, value):
    edit(place(results), metrics=lambda m: m | {"image_auroc": value})
    with pytest.raises(InputError, match=r"seed-1\.json: image_auroc: expected a number; got"):
        compare(BASELINE, baseline=results)
    place(results).record.write_text("{")
    with pytest.raises(InputError, match=r"seed-1\.json: expected a run record"):
        compare(BASELINE, baseline=results)
    place(results).record.unlink()
    with pytest.raises(InputError, match=r"seed-1\.json: expected the accepted record of coupl"):
        compare(BASELINE, baseline=results)


def test_counts_changed_and_missing(results):
    fresh = json.loads(json.dumps(COUNTS))
    assert set(regression.compare_counts(fresh, BASELINE)["verdict"]) == {"same"}
    fresh["readings"][0]["flow"] += 1
    del fresh["readings"][1]
    fresh["variants"]["new"] = 7
    rows = failed(regression.compare_counts(fresh, BASELINE))
    first = rows[rows["verdict"] == "regressed"].to_dict("records")
    assert [(r["reference"], r["ours"]) for r in first] == [(4657408, 4657409)]
    assert first[0]["cell"] == FIRST
    missing = rows[rows["verdict"] == "missing"]
    assert len(missing) == 3 + 1
    assert "parameters of variant new" in missing["cell"].tolist()
    assert [(r["reference"], r["ours"]) for r in missing.to_dict("records")][-1] == (None, 7)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"readings": [], "variants": []}'])
def test_damaged_counts_are_named(tmp_path, text):
    if text is not None:
        (tmp_path / "parameters.json").write_text(text)
    with pytest.raises(InputError, match=r"parameters\.json: expected the accepted parameter"):
        regression.read_counts(tmp_path)


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def accept(results, baseline, counts=COUNTS):
    return regression.accept(ONE, CATEGORIES, results, baseline, counts)


def spoil(results, how):
    if how == "missing":
        place(results).record.unlink()
    elif how == "smoke":
        edit(place(results), smoke=True)
    elif how == "random":
        edit(place(results), random_weights=True)
    elif how == "damaged":
        place(results).record.write_text("{")
    else:
        edit(place(results), metrics=lambda m: m | {"aupro": float("nan")})


@pytest.mark.parametrize("how", ["missing", "smoke", "random", "damaged", "nan"])
def test_accept_takes_only_whole_results_and_writes_nothing_otherwise(results, tmp_path, how):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    edit(place(results, ONE.variants[0], "brick", 0), metrics=lower("image_auroc", 3))
    spoil(results, how)
    before = tree(baseline)
    with pytest.raises(InputError, match=r"seed-1\.json: expected a r"):
        accept(results, baseline)
    assert tree(baseline) == before
    with pytest.raises(InputError):
        accept(results, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_accept_moves_the_baseline_and_says_what_changes(results, tmp_path):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    assert accept(results, baseline) == []
    was = json.loads(place(results).record.read_text())["metrics"]
    edit(place(results), metrics=was | {"image_auroc": 0.5})
    counts = json.loads(json.dumps(COUNTS))
    counts["readings"][0]["flow"] += 1
    changed = accept(results, baseline, counts)
    assert changed == [
        f"coupling=two-sided, grass, seed 1: image_auroc {100 * was['image_auroc']:.2f} → 50.00",
        f"{FIRST}: 4657408 → 4657409",
    ]
    assert place(baseline).record.read_bytes() == place(results).record.read_bytes()
    assert regression.read_counts(baseline) == counts
    assert failed(compare(results, baseline=baseline)).empty


def test_accept_says_where_the_images_or_weights_are_others(results, tmp_path):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    edit(place(results), data=lambda d: d | {"digest": "other"})
    assert accept(results, baseline) == [
        "coupling=two-sided, grass, seed 1: other images or weights"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, r"grass/seed-1\.json: expected a result; got no image_auroc"),
        ({"smoke": True}, "expected a result; got a smoke run"),
        ({"seed": 7}, "expected the record of .*; got that of .*7"),
    ],
)
def test_accept_refuses_what_is_no_result(results, tmp_path, changes, message):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    before = {p: p.record.read_bytes() for p in every(baseline)}
    edit(place(results), **changes)
    with pytest.raises(InputError, match=message):
        accept(results, baseline)
    assert {p: p.record.read_bytes() for p in every(baseline)} == before


def test_accept_that_cannot_write_leaves_the_old_baseline(results, tmp_path, monkeypatch):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    before = {p: p.record.read_bytes() for p in every(baseline)}
    edit(place(results), metrics=lower("image_auroc", 9))
    written, write = [], regression.write_whole

    def full(path, content):
        if len(written) == 9:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(path, content)

    monkeypatch.setattr(regression, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        accept(results, baseline)
    assert {p: p.record.read_bytes() for p in every(baseline)} == before


@pytest.mark.parametrize(
    "changes",
    [{"weights": lambda w: w | {"sha256": "0"}}, {"random_weights": True}, {"smoke": True}],
)
def test_what_is_made_from_others_is_not_compared(results, changes):
    edit(place(results), **changes)
    assert set(failed(compare(results))["verdict"]) == {"other data"}


def test_a_baseline_without_metrics_is_an_error(results):
    edit(place(results), metrics={})
    with pytest.raises(InputError, match=r"seed-1\.json: expected metrics; found none"):
        compare(results, baseline=results)


def test_accept_makes_a_baseline_and_mends_a_damaged_one(results, tmp_path):
    baseline = tmp_path / "new" / "baseline"
    assert len(accept(results, baseline)) == len(every(results)) + len(regression._flat(COUNTS))
    place(baseline).record.write_text("{")
    (baseline / "parameters.json").write_text("{")
    changed = accept(results, baseline)
    assert changed[0].startswith("coupling=two-sided, grass, seed 1: image_auroc none → ")
    assert failed(compare(results, baseline=baseline)).empty


def gap(*arguments):
    return cli.main(["gap", *map(str, arguments)])


CHOSEN = ("--variant", "base", "--variant", "coupling=two-sided")


def test_the_command_passes_and_names_what_fails(results, counted, capsys):
    assert gap("--results", results) == 0
    text = capsys.readouterr().out
    assert "against the baseline: 810 same" in text
    assert "FastFlow's own figures" in text
    edit(place(results), metrics=lower("image_auroc", 3))
    assert gap("--results", results, *CHOSEN) == 1
    text = capsys.readouterr().out
    assert "regressed: coupling=two-sided, grass, seed 1, image_auroc: " in text
    place(results).record.unlink()
    assert gap("--results", results, *CHOSEN) == 1
    assert "missing: coupling=two-sided, grass, seed 1\n" in capsys.readouterr().out
    # what was not asked for is not judged
    assert gap("--results", results, "--variant", "base") == 0
    assert gap("--results", results, "--category", "brick", "--category", "gravel") == 0
    assert gap("--results", results, "--seed", "0", "--seed", "2") == 0


def test_the_command_in_json_has_no_nan(results, counted, capsys):
    edit(place(results), metrics=lambda m: m | {"image_auroc": float("nan")})
    assert gap("--results", results, *CHOSEN, "--json") == 1
    text = capsys.readouterr().out

    def refuse(token):
        raise AssertionError(token)

    parts = json.loads(text, parse_constant=refuse)
    assert set(parts) == {"published", "regression", "parameters"}
    wrong = [r for r in parts["regression"] if r["verdict"] not in ("same", "improved")]
    assert [(r["cell"], r["metric"], r["ours"]) for r in wrong] == [
        ("coupling=two-sided, grass, seed 1", "image_auroc", None)
    ]
    assert "fields" not in parts["published"][0]


def test_changed_counts_fail_the_command(results, monkeypatch, capsys):
    fresh = json.loads(json.dumps(COUNTS))
    fresh["readings"][0]["flow"] += 1
    monkeypatch.setattr(parameters, "accounting", lambda published, variants: fresh)
    assert gap("--results", results, "--variant", "base") == 1
    assert "width C/2: flow: 4657408 → 4657409" in capsys.readouterr().out


def test_the_command_accepts_only_explicitly(results, tmp_path, counted, capsys):
    baseline = shutil.copytree(BASELINE, tmp_path / "baseline")
    edit(place(results), metrics=lower("image_auroc", 3))
    before = tree(baseline)
    assert gap("--results", results, "--baseline", baseline, *CHOSEN) == 1
    assert tree(baseline) == before
    capsys.readouterr()
    assert cli.main(["accept", "--results", str(results), "--baseline", str(baseline)]) == 0
    text = capsys.readouterr().out
    assert "coupling=two-sided, grass, seed 1: image_auroc" in text
    assert f"1 changes; the baseline is {baseline}" in text
    assert gap("--results", results, "--baseline", baseline, *CHOSEN) == 0


BAD = {
    "results a file": (["gap", "--results", __file__], "--results: expected a folder; got the"),
    "baseline a file": (["gap", "--baseline", __file__], "--baseline: expected a folder; got"),
    "accept a file": (["accept", "--results", __file__], "--results: expected a folder"),
    "accept to a file": (["accept", "--baseline", __file__], "--baseline: expected a folder"),
    "no baseline": (["gap", "--baseline", "nowhere"], "expected the accepted record of base, br"),
    "nothing to accept": (["accept", "--baseline", "b"], "expected a record of every cell"),
    "category": (["gap", "--category", "gras"], "unknown category 'gras'; did you mean 'grass'"),
    "variant": (["gap", "--variant", "bas"], "unknown variant of surfaces 'bas'; did you mean"),
    "seed": (["gap", "--seed", "9"], "expected the accepted record of base, brick, seed 9"),
    "negative": (["gap", "--seed", "-1"], "expected seeds in 0"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(arguments, message, tmp_path, counted, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("harness: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

"""The command: what it prints, its exit codes, and bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import doctor
from harness.cli import main as cli
from harness.experiment.variant import FIELDS, Variant
from harness.paper import parameters
from harness.run import estimate, sweep
from harness.run.measure import measure
from harness.studies import STUDIES

TINY = [
    "--set", "image_size=64", "--set", "flow_steps=2", "--set", "taps=1,2",
    "--set", "backbone=tf_efficientnet_lite0.pypi_in1k", "--set", "batch_size=8",
    "--epochs", "1", "--seed", "0", "--category", "left",
]  # fmt: skip


def call(*arguments):
    return cli.main([str(a) for a in arguments])


def tree(folder):
    return sorted(str(p) for p in folder.rglob("*")) if folder.exists() else []


def test_list(capsys):
    assert call("list") == 0
    text = capsys.readouterr().out
    for name, study in STUDIES.items():
        assert name in text
        assert study.asks in text


def test_list_json(capsys):
    assert call("list", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == set(STUDIES)


def test_list_a_study(capsys):
    assert call("list", "block_index") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    first = STUDIES["block_index"].variants[0]
    assert lines[0] == f"{first.digest}  DeiT, block 7"
    assert call("list", "reproductions", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lelexx, ResNet18"]["flow_steps"] == 4
    assert call("list", "blockindex") == 2
    assert "did you mean 'block_index'?" in capsys.readouterr().err


@pytest.fixture
def rates(monkeypatch):
    """The estimate without its probe, which takes seconds."""
    given = estimate.Rates(1e-10, 1e-11, "a stopwatch")
    monkeypatch.setattr(estimate, "measured_rates", lambda records, settings: given)


@pytest.mark.parametrize(
    ("study", "runs"),
    [("table1", 13 * 15 * 3), ("table3", 9 * 3 * 3), ("table4", 7 * 10 * 3),
     ("disturbed", 4 * 15 * 3)],
)  # fmt: skip
def test_plan_without_data(study, runs, tmp_path, capsys, rates, monkeypatch):
    one = measure(Variant(flow_steps=1))  # what a variant costs has tests of its own
    monkeypatch.setattr(estimate, "measure", lambda variant, kept: one)
    monkeypatch.chdir(tmp_path)
    assert call("plan", study) == 0
    text = capsys.readouterr().out
    assert f"{runs} runs, {runs} to run" in text
    assert re.search(r"about [\d.]+ (s|min|h) of training, \d runs at a time", text)
    assert "GiB of features" in text
    assert re.search(r"[\d.]+ GiB of memory a run of [\d.]+ available", text)
    assert "rates from a stopwatch" in text
    assert list(tmp_path.iterdir()) == []


def test_plan_without_data_in_json_and_in_part(tmp_path, capsys, rates):
    asked = ["--results", tmp_path, "--category", "screw", "--variant", "DeiT", "--json"]
    assert call("plan", "table1", *asked, "--seed", "4") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["categories"] == ["screw"]
    assert [(r["variant"], r["seed"], r["recorded"]) for r in made["runs"]] == [("DeiT", 4, False)]
    assert made["estimate"]["train_seconds"] > 0
    assert made["estimate"]["memory_bytes"] > 2**28
    whole = made["estimate"]["cache_bytes"]
    assert whole == 4 * (320 + 160) * 768 * 24 * 24
    assert call("plan", "table1", *asked, "--smoke") == 0
    smoke = json.loads(capsys.readouterr().out)["estimate"]["cache_bytes"]
    assert smoke == 4 * (8 + 16) * 768 * 24 * 24  # a smoke run looks at few images


def test_params(capsys, monkeypatch):
    few = [h for h in parameters.hypotheses() if h[0] == "ResNet18" and h[1] == "1.05·C/2"][::3]
    monkeypatch.setattr(parameters, "hypotheses", lambda: iter(few))
    assert call("params") == 0
    text = capsys.readouterr().out
    assert re.search(
        r"ResNet18 +3 +one-sided +8 +1\.05·C/2 +4,871,760 +5,789,264 +4\.9 M +yes", text
    )
    assert "(?)" in text
    assert call("params", "--json") == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [(r["flow"], r["rounds"]) for r in rows] == [(4871760, True), (2712144, True)]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_:
        call("--help")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes" in text


def test_plan_run_report_cache(data, tmp_path, capsys):
    places = ["--data", data, "--results", tmp_path / "results", *TINY]
    assert call("plan", "kernels", *places) == 0
    assert "2 runs, 2 to run" in capsys.readouterr().out
    assert call("run", "kernels", *places, "--report") == 0
    text = capsys.readouterr().out
    assert "2 recorded" not in text
    assert re.search(r"kernels=3,1\s+1/1\s+\d", text)
    (page,) = (tmp_path / "results" / "reports").glob("kernels--*.html")
    assert f"report: {page}" in text
    for part in (page, page.with_suffix(".ipynb"), page.with_name("index.html")):
        assert part.is_file()
    html = page.read_text()
    assert STUDIES["kernels"].asks in html
    assert html.count('<svg role="img"') >= 4  # scores, differences, cost, runs
    assert html.count("data:image/webp") >= 4  # photos and their maps
    assert len(list((page.parent).glob("qualitative-*.html"))) == 1
    assert "kernels=3,1" in html
    assert STUDIES["kernels"].asks in page.with_name("index.html").read_text()
    assert call("plan", "kernels", *places, "--json") == 0
    assert all(r["recorded"] for r in json.loads(capsys.readouterr().out)["runs"])
    assert call("run", "kernels", *places, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["label"] for r in rows} == {"kernels=3", "kernels=3,1"}
    assert call("cache", "--results", tmp_path / "results", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["category"] == "left"
    assert call("cache", "--results", tmp_path / "results") == 0
    assert "1 entries" in capsys.readouterr().out
    assert call("cache", "--results", tmp_path / "results", "--clear") == 0
    assert "cleared 1 entries" in capsys.readouterr().out


@pytest.mark.long
def test_report_of_nothing_says_so(data, tmp_path, capsys):
    places = ["--data", data, "--results", tmp_path / "results", *TINY]
    assert call("report", "kernels", *places) == 0
    (page,) = (tmp_path / "results" / "reports").glob("kernels--*.html")
    assert "<dd>0 of 2</dd>" in page.read_text()
    assert "Nothing has been run yet." in page.read_text()


def test_a_failed_run_is_exit_code_1(data, tmp_path, capsys, monkeypatch):
    def fail(plan, settings, say):
        return sweep.Outcome(failed=[("left, base, seed 0", "the loss became nan")])

    monkeypatch.setattr(sweep, "run_study", fail)
    assert call("run", "kernels", "--data", data, "--results", tmp_path / "r", *TINY) == 1
    assert "failed: left, base, seed 0: the loss became nan" in capsys.readouterr().err


@pytest.fixture
def own_signals():
    """What is heard afterwards is what was heard before: once stopped, a command hears nothing."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:  # a job in the background ignores some
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_is_exit_code_130(data, tmp_path, capsys, monkeypatch, own_signals):
    def interrupt(plan, settings, say):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run_study", interrupt)
    assert call("run", "kernels", "--data", data, "--results", tmp_path / "r", *TINY) == 130
    assert "goes on where it was" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_an_exit_code_of_its_own(
    name, data, tmp_path, capsys, monkeypatch, own_signals
):
    def told(plan, settings, say):
        signal.raise_signal(signal.Signals[name])
        time.sleep(5)

    monkeypatch.setattr(sweep, "run_study", told)
    code = call("run", "kernels", "--data", data, "--results", tmp_path / "r", *TINY)
    assert code == 128 + signal.Signals[name]
    assert "goes on where it was" in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored(data, tmp_path, capsys, monkeypatch, own_signals):
    """As SIGHUP is by nohup."""

    def told(plan, settings, say):
        signal.raise_signal(signal.SIGHUP)
        return sweep.Outcome(failed=[("left", "it went on")])

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(sweep, "run_study", told)
    assert call("run", "kernels", "--data", data, "--results", tmp_path / "r", *TINY) == 1
    assert "it went on" in capsys.readouterr().err


BAD = {
    "unknown study": (["run", "kernel"], "unknown study 'kernel'; did you mean 'kernels'"),
    "unknown field": (["plan", "kernels", "--set", "kernel=3"], "unknown field 'kernel'"),
    "bad value": (["plan", "kernels", "--set", "kernels=2"], "kernels: expected odd sizes"),
    "bad epochs": (["plan", "kernels", "--epochs", "0"], "epochs: expected a number from 1 to"),
    "no equals": (["plan", "kernels", "--set", "kernels"], "--set: expected FIELD=VALUE"),
    "where nothing": (["plan", "kernels", "--where", "kernels=5"], "no variant of kernels has"),
    "negative seed": (["plan", "kernels", "--seed", "-1"], "expected seeds in 0"),
    "no data": (["run", "kernels"], "expected --data DIR"),
    "data missing": (["run", "kernels", "--data", "nowhere"], "--data: expected a folder"),
    "bad jobs": (["run", "surfaces", "--jobs", "-2"], "--jobs: expected a number from 0 to"),
    "bad limit": (["run", "surfaces", "--cache-limit", "0"], "--cache-limit: expected a number"),
    "bad minutes": (
        ["run", "surfaces", "--checkpoint-minutes", "-1"],
        "--checkpoint-minutes: expected a number from 0 to 1000000; got -1",
    ),
    "results a file": (
        ["plan", "surfaces", "--results", __file__],
        "--results: expected a folder",
    ),
    "field twice": (["plan", "kernels", *["--where", "kernels=3"] * 2], "every field once"),
    "smoke set": (["plan", "kernels", "--set", "smoke=true"], "expected --smoke"),
    "category": (["plan", "surfaces", "--category", "gras"], "did you mean 'grass'"),
    "plan category": (["plan", "table1", "--category", "scrw"], "did you mean 'screw'"),
    "plan variant": (["plan", "table1", "--variant", "Deit"], "did you mean 'DeiT'"),
    "report of a file": (["report", "table1", "--results", __file__], "--results: expected a fol"),
    "doctor data": (["doctor", "--data", "nowhere"], "--data: expected a folder"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("harness: ")
    assert not (tmp_path / "results" / "runs").exists()


def test_bad_usage_is_exit_code_2(capsys):
    for arguments in (["nonsense"], ["run"], ["run", "kernels", "--jobs", "many"], []):
        with pytest.raises(SystemExit) as exit_:
            call(*arguments)
        assert exit_.value.code == 2


BAD_ON_DATA = {
    "weights not there": (["--weights", "nowhere"], "--weights: expected a folder"),
    "no such backbone": (["--set", "backbone=resnet999.x"], "unknown backbone 'resnet999'"),
    "no such tap": (["--set", "taps=1,9"], "taps: tf_efficientnet_lite0.pypi_in1k has no tap 9"),
    "wrong size": (
        ["--set", "backbone=deit_base_distilled_patch16_384.fb_in1k", "--set", "taps=7"],
        "expects 384; got 64",
    ),
    "no device": (["--device", "cuda:99"], "--device: expected auto, cpu or a device"),
    "no TF32": (["--device", "cpu", "--tf32"], "--tf32: expected an NVIDIA GPU"),
    "category": (["--category", "lefd"], "unknown category 'lefd'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_ON_DATA.values(), ids=BAD_ON_DATA)
def test_bad_input_to_a_run(data, tmp_path, capsys, arguments, message):
    results = tmp_path / "results"
    assert call("run", "kernels", "--data", data, "--results", results, *TINY, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (results / "runs").exists()


def test_doctor(data, tmp_path, capsys):
    assert call("doctor", "--data", data, "--results", tmp_path / "results") == 0
    text = capsys.readouterr().out
    assert re.search(r"left +8 train, 8 test, 4 defective, 4 masks", text)
    assert re.search(r"tf_efficientnet_lite0.pypi_in1k +package", text)
    assert call("doctor", "--data", data, "--json", "--results", tmp_path / "results") == 0
    assert "machine" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("module", ["torch", "numpy", "pandas", "rich", "timm", "shtab"])
def test_help_imports_nothing_heavy(module):
    code = f"import sys, harness.cli.main; raise SystemExit('{module}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_stands_in_the_help_under_what_one_wants(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    text = capsys.readouterr().out
    for want, commands in cli.COMMANDS.items():
        assert f"{want}:" in text
        for name, command in commands.items():
            assert re.search(rf"^ +{name} +{re.escape(command.__doc__[:20])}", text, re.MULTILINE)


def test_fields(capsys):
    assert call("fields") == 0
    text = capsys.readouterr().out
    assert "coupling (one-sided)" in text
    assert "one of one-sided, two-sided; training; methods: FastFlow" in text
    assert call("fields", "--json") == 0
    assert [f["field"] for f in json.loads(capsys.readouterr().out)] == list(FIELDS)
    assert call("fields", "--markdown") == 0
    assert capsys.readouterr().out == Path(__file__).parents[2].joinpath(
        "docs", "fields.md"
    ).read_text(encoding="utf-8")


def test_rescore(data, tmp_path, capsys):
    places = ["--data", data, "--results", tmp_path / "results"]
    assert call("run", "score_rule", *places, *TINY, "--variant", "ResNet18", "--no-speed") == 0
    capsys.readouterr()
    assert call("rescore", "score_rule", *places, *TINY) == 0
    text = capsys.readouterr().out
    assert "score_rule: 9 of 9 runs scored anew" in text
    assert re.search(r"image_score=top-k +1/1 +\d", text)


def test_doctor_looks_at_the_disk_of_the_results(tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    there = tmp_path / "there"
    there.mkdir()
    for results in (there / "not" / "yet", there):
        doctor.examine(data=None, weights=None, results=results)
    assert asked == [there, there]


NOBODY = """
import os, pwd, sys

def unknown(who):
    raise KeyError(who)

pwd.getpwuid = pwd.getpwnam = unknown
from harness.cli.main import main
sys.exit(main(["plan", "surfaces", "--variant", "base", "--seed", "0", "--results", sys.argv[1]]))
"""


@pytest.mark.parametrize("home", [{}, {"HOME": ""}], ids=["none", "empty"])
@pytest.mark.long
def test_a_user_without_a_home(tmp_path, home):
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    (tmp_path / "tmp").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", NOBODY, str(tmp_path / "results")], capture_output=True, text=True,
        env=kept | home | {"TMPDIR": str(tmp_path / "tmp"), "HARNESS_NATIVE": "0"}, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "runs, 3 to run" in ran.stdout
    (line,) = ran.stderr.splitlines()
    assert line.startswith("harness: HOME: expected this user's folder; found none; caches go to")
    assert list((tmp_path / "tmp").iterdir()) == []

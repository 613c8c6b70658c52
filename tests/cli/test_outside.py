"""Studies that live outside the package: written, changed, run and reported like any other."""

import json

import pytest

from harness.cli import main as cli
from harness.errors import InputError
from harness.experiment.store import read_records
from harness.studies import STUDIES, definition, get_study
from harness.studies.outside import load_study, new_study
from harness.studies.surfaces import BASE

STUDY = """\
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant

STUDY = Study(
    name="mine", asks="Mine?", dataset="mvtec_ad", seeds=(0,), bases={"base": Variant()},
    vary=one_factor(kernels=((3, 1),)),
)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return cli.main([str(a) for a in arguments])


def test_new_writes_a_study_that_runs(folder, capsys):
    assert call("new", "study", "my_question") == 0
    assert "harness run my_question.py --smoke" in capsys.readouterr().out
    study = get_study("my_question.py")
    assert study.asks == "What does my question change?"
    assert study.variants[0] == BASE.replace(epochs=10)
    assert [p.name for p in folder.iterdir()] == ["my_question.py"]  # and no __pycache__
    assert call("list", "my_question.py", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["base", "flow_steps=4", "coupling=two-sided"]
    assert call("new", "study", "my_question") == 2
    assert "expected no such file yet" in capsys.readouterr().err


@pytest.mark.long
def test_run_plan_and_report_as_for_a_built_in_one(folder, data, capsys):
    (folder / "mine.py").write_text(STUDY)
    few = [
        *("--data", data, "--category", "left", "--epochs", "1", "--no-speed"),
        *("--set", "backbone=tf_efficientnet_lite0.pypi_in1k", "--set", "image_size=64"),
        *("--set", "flow_steps=2", "--set", "taps=1,2", "--set", "batch_size=8"),
    ]
    assert call("run", "mine.py", *few, "--report") == 0
    text = capsys.readouterr().out
    assert "mine: Mine?" in text
    assert "report: results/reports/mine--" in text
    digests = {r.digest for r in read_records(folder / "results")}
    changes = {"backbone": "tf_efficientnet_lite0.pypi_in1k", "image_size": 64, "flow_steps": 2}
    changes |= {"taps": (1, 2), "batch_size": 8, "epochs": 1}
    assert digests == set(get_study("kernels", set=changes).labels())  # the same cells
    (file,) = (folder / "results" / "reports").glob("mine--*.html")
    page = file.read_text()
    assert "Mine?" in page
    assert "epochs 1 instead of 500" in page  # against the file's own settings
    assert "Mine?" in (folder / "results" / "reports" / "index.html").read_text()
    where = [*few[:4], *few[7:], "--epochs", "1"]
    assert call("plan", "mine.py", *where, "--json") == 0
    assert all(r["recorded"] for r in json.loads(capsys.readouterr().out)["runs"])
    (folder / "mine.py").unlink()
    assert call("report", "gap", "--results", "results") == 2  # no study: named, nothing else


def test_a_study_knows_where_it_is_from(folder):
    file = folder / "mine.py"
    file.write_text(STUDY)
    study = load_study(file)
    assert study.source == str(file)
    assert study == load_study(file)
    assert definition(study.set(epochs=2)) == study
    assert definition(STUDIES["kernels"].set(epochs=2)) == STUDIES["kernels"]
    file.unlink()
    assert definition(study) is None


BAD = {
    "nowhere": (None, "expected a study's file; found none; did you mean '.*mime.py'"),
    "syntax": ("STUDY = (\n", r"mine\.py, line 1: expected Python"),
    "raises": ("x = 1\n1 / 0\n", r"mine\.py, line 2: ZeroDivisionError"),
    "no module": ("import nothing_here\n", r"mine\.py, line 1: ModuleNotFoundError"),
    "a field": (
        STUDY.replace("kernels=", "kernel="),
        r"mine\.py, line 4: unknown field 'kernel'; did you mean 'kernels'",
    ),
    "exits": ("raise SystemExit(3)\n", r"mine\.py, line 1: SystemExit: 3"),
    "not text": ("\0", r"mine\.py: "),
    "no variant": (
        STUDY.replace("Variant()", "3"),
        r"mine\.py, line 4: AttributeError: 'int' object",
    ),
    "nothing": ("x = 1\n", r"expected STUDY = Study\(...\); got nothing of that name"),
    "another": ("STUDY = 3\n", r"expected STUDY = Study\(...\); got int"),
    "taken": (STUDY.replace('"mine"', '"kernels"'), "'kernels' is one of the harness's own"),
    "a page's": (STUDY.replace('"mine"', '"index"'), "'index' is one of the harness's own"),
    "a twin's": (STUDY.replace('"mine"', '"a-smoke"'), "'a-smoke' is one of the harness's own"),
    "taken in capitals": (STUDY.replace('"mine"', '"Index"'), "'Index' is one of the harness's"),
    "a number": (STUDY.replace('"mine"', "7"), "'7' is no name for a file"),
    "no name": (STUDY.replace('"mine"', '"../x"'), r"'\.\./x' is no name for a file"),
}


def test_the_path_of_a_study_here_is_proposed(folder):
    (folder / "mine.py").write_text(STUDY)
    with pytest.raises(InputError, match=r"unknown study 'mine'; did you mean 'mine\.py'"):
        get_study("mine")
    (folder / "me.py").mkdir()
    with pytest.raises(InputError, match=r"found none; did you mean .mine\.py"):
        get_study("min.py")
    with pytest.raises(InputError, match=r"did you mean 'mine\.py'"):  # and not the folder
        get_study("me.py")


def test_what_a_study_prints_does_not_end_in_the_json(folder, capsys):
    (folder / "mine.py").write_text(STUDY + "print('aside')\n")
    assert call("list", "mine.py", "--json") == 0
    said = capsys.readouterr()
    assert "kernels=3" in json.loads(said.out)
    assert said.err == "aside\n"


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(folder, capsys, text, message):
    (folder / "mime.py").touch()
    if text is not None:
        (folder / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        get_study("mine.py")
    assert call("list", "mine.py") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["kernels", "a b", "../x", "3", "gap", "Surfaces", "class", "statistics"]
)
def test_a_new_study_needs_a_name_of_its_own(folder, name):
    with pytest.raises(InputError, match="name: expected letters, digits and _"):
        new_study(name, folder, taken=STUDIES)
    assert list(folder.iterdir()) == []

"""How far a study is: what is recorded, running, failed and waiting, from files alone."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from handmade import write_run
from tiny import TINY

from harness.claims import Claims
from harness.cli.main import main
from harness.experiment.place import Place
from harness.experiment.store import write_failure
from harness.experiment.study import Study
from harness.heartbeat import SILENT, Holder, Running, holders, silent
from harness.report.status import selections, status

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
NLL = TINY.replace(score_map="nll")


@pytest.fixture
def study():
    return Study(name="tiny", asks="?", bases={"base": TINY, "nll": NLL}, seeds=(0, 1))


def place(results, variant, category, seed):
    return Place.of(results, variant, "d", category, seed)


def finish(results, variant, category, seed, auroc, finished):
    measured = {"finished": finished}
    write_run(results, variant, category, seed, auroc, dataset="d", measured=measured)


def test_every_run_is_counted_once(study, tmp_path):
    """8 runs: two recorded, one running, two failed of which one runs again, one damaged."""
    for seed, auroc in enumerate((0.9, 0.8)):
        finish(tmp_path, TINY, "a", seed, auroc, f"2030-01-01T1{seed}:30:00+00:00")
    for seed in (0, 1):
        write_failure(place(tmp_path, NLL, "b", seed), "the loss became nan")
    damaged = place(tmp_path, TINY, "b", 0).record
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    with Claims(tmp_path) as claims:
        running = Running(digest=NLL.digest, dataset="d", category="b", seed=1, epoch=2, epochs=3)
        claims.signs.say(study="tiny", started="2030-01-01T11:00:00+00:00", running=(running,))
        claims.signs.beat()
        (selection,) = selections(study, tmp_path)
        found = status(selection, holders(tmp_path / "claims"), now=NOW)
    assert (selection.dataset, selection.categories) == ("d", ("a", "b"))
    assert (found.runs, found.recorded, found.waiting) == (8, 2, 3)
    assert [(r["run"], r["epoch"]) for r in found.running] == [("b, nll, seed 1", 2)]
    assert found.failed == [("b, nll, seed 0", "the loss became nan")]
    assert [str(damaged) in line for line in found.damaged] == [True]
    assert found.best == ("base", "image_auroc", pytest.approx(0.85), 2)
    assert found.hourly == 1  # since the start that is at work began, at eleven
    assert found.seconds_left == 5 * 3600


@pytest.mark.parametrize("edit", [{"seed": 7}, {"category": "b"}, {"digest": "0" * 12}])
def test_a_record_that_was_edited_is_damaged_and_not_recorded(study, tmp_path, edit):
    finish(tmp_path, TINY, "a", 0, 0.9, "2030-01-01T10:30:00+00:00")
    path = place(tmp_path, TINY, "a", 0).record
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    (selection,) = selections(study, tmp_path)
    found = status(selection, (), now=NOW)
    assert (found.runs, found.recorded, len(found.damaged), found.waiting) == (4, 0, 1, 3)


def test_the_time_left_is_that_of_the_shards_at_work(study, tmp_path):
    """Two starts at one shard of three runs, of which one is recorded: two are left, not seven."""
    finish(tmp_path, TINY, "a", 0, 0.9, "2030-01-01T11:30:00+00:00")
    began = "2030-01-01T11:00:00+00:00"
    start = Holder(study="tiny", started=began, shard="1/2", runs=3)
    (selection,) = selections(study, tmp_path, categories=["a", "b"])
    assert status(selection, [start, start], now=NOW).seconds_left == 2 * 3600
    whole = Holder(study="tiny", started=began)
    assert status(selection, [start, whole], now=NOW).seconds_left == 7 * 3600


def test_a_run_is_where_it_runs_and_else_where_its_start_does(study, tmp_path):
    runs = [
        Running(digest=TINY.digest, dataset="d", category="a", seed=seed, host=host)
        for seed, host in enumerate(("n1", ""))
    ]
    start = Holder(host="driver", process=7, study="tiny", running=tuple(runs))
    finish(tmp_path, NLL, "a", 0, 0.9, "2030-01-01T11:30:00+00:00")
    (selection,) = selections(study, tmp_path)
    found = status(selection, [start], now=NOW).running
    assert [run["where"] for run in found] == ["n1", "driver, process 7"]


def test_nobody_at_work_has_no_rate(study, tmp_path):
    finish(tmp_path, TINY, "a", 0, 0.9, "2030-01-01T10:30:00+00:00")
    (selection,) = selections(study, tmp_path)
    found = status(selection, (), now=NOW)
    assert (found.hourly, found.seconds_left, found.waiting) == (None, None, 3)


def test_a_start_that_is_silent_for_long_is_counted_as_ended(study, tmp_path, capsys, monkeypatch):
    """Of a machine that is gone: it runs nothing, and its time is not the living one's."""
    finish(tmp_path, TINY, "a", 0, 0.9, "2030-01-01T11:30:00+00:00")
    run = Running(digest=TINY.digest, dataset="d", category="a", seed=1, epoch=2, epochs=3)
    dead, alive = (Claims(tmp_path, token=letter * 16).signs for letter in "ab")
    for signs, began in ((dead, "2029-12-27"), (alive, "2030-01-01")):
        signs.say(study="tiny", started=f"{began}T11:00:00+00:00", host="x", command="harness run")
        signs.say(running=(run,) if signs is dead else (), doing="training")
        signs.beat()
    long_ago = alive.stat(alive.token).st_mtime - SILENT - 1
    os.utime(dead.file(dead.token), (long_ago, long_ago))
    monkeypatch.setattr(time, "time", lambda: 0.0)  # another machine's clock is not asked
    found, no_more = list(holders(tmp_path / "claims")), list(silent(tmp_path / "claims"))
    assert [h.started[:10] for h in found] == ["2030-01-01"]
    (selection,) = selections(study, tmp_path)
    said = status(selection, found, now=NOW)
    assert (said.hourly, said.running, said.waiting) == (1, [], 3)
    since = datetime.fromtimestamp(long_ago, UTC).isoformat(timespec="seconds")
    assert [s for _, s in no_more] == [since]
    assert main(["status", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("at work: harness run: training; x, process ")
    assert lines[1].startswith(f"silent since {since}, counted as ended: harness run: training; x")
    assert main(["status", "--results", str(tmp_path), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [s["silent_since"] for s in read["silent"]] == [since]
    assert [s["since"][:10] for s in read["starts"]] == ["2030-01-01"]
    assert sorted(p.suffix for p in (tmp_path / "claims").iterdir()) == [".json", ".json"]


def test_of_a_published_data_set_all_categories_count(tmp_path):
    study = Study(name="s", asks="?", bases={"base": TINY}, seeds=(0,), dataset="mvtec_ad")
    write_run(tmp_path, TINY, "screw", 0, 0.9, dataset="mvtec_ad")
    (selection,) = selections(study, tmp_path)
    assert status(selection, (), now=NOW).runs == 15
    (asked,) = selections(study, tmp_path, categories=["screw"])
    assert status(asked, (), now=NOW).runs == 1


def test_the_command_says_it_in_lines_and_as_json(tmp_path, capsys):
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "no run of any study" in capsys.readouterr().out
    with Claims(tmp_path) as claims:
        claims.signs.say(study="kernels", command="harness run kernels", doing="training")
        claims.signs.beat()
        assert (
            main(["status", "kernels", "--dataset", "mvtec_ad", "--results", str(tmp_path)]) == 0
        )
        said = capsys.readouterr().out
        assert main(["status", "kernels", "--dataset", "mvtec_ad", "--results", str(tmp_path),
                     "--json"]) == 0  # fmt: skip
    assert said.startswith("at work: harness run kernels: training; ")
    assert "kernels on mvtec_ad: 0 of 90 runs recorded, 0 running, 0 failed, 90 waiting" in said
    read = json.loads(capsys.readouterr().out)
    assert read["starts"][0]["command"] == "harness run kernels"
    assert read["studies"][0]["waiting"] == 90


def test_it_needs_neither_torch_nor_pandas(tmp_path):
    code = (
        "import sys; from harness.cli.main import main\n"
        f"main(['status', 'kernels', '--results', {str(tmp_path)!r}])\n"
        "raise SystemExit(any(m in sys.modules for m in ('torch', 'pandas', 'numpy')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ran.returncode == 0

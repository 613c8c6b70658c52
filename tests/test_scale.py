"""docs/scale.md: its tables follow from the rates that it states, its commands from the parser."""

import re
import shlex
import subprocess
from pathlib import Path

import counted
import pytest

from benchmarks import scale
from harness.cli.main import make_parser
from harness.experiment.settings import Shard
from harness.run import estimate, shards

PAGE = (Path(__file__).parents[1] / scale.PAGE).read_text(encoding="utf-8")


def block(name):
    return re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)[1]


def test_tables_follow_from_the_rates_that_are_stated(monkeypatch):
    for module in (shards, estimate):
        monkeypatch.setattr(module, "measure", counted.measure)
    assert scale.with_tables(PAGE) == PAGE


def test_rates_are_those_of_the_benchmarks():
    """164.1 and 207.2 GFLOP/s of two threads in training; six operations a multiply-accumulate."""
    assert scale.rates_table(scale.measured()) in PAGE
    assert scale.stated_rates(PAGE).train == pytest.approx(
        12 / ((164.1e9 + 207.2e9) / 2), rel=1e-3
    )


@pytest.fixture
def said(tmp_path):
    """Run lines of bash where `harness` writes down what it is given; a list of that."""
    log, stub = tmp_path / "log", tmp_path / "harness"
    stub.write_text(f'#!/bin/bash\nprintf "%q " "$@" >> {log}\necho >> {log}\n')
    stub.chmod(0o755)

    def ran(script, **variables):
        path = f"{tmp_path}:/usr/bin:/bin"
        checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0
        subprocess.run(
            ["bash", "-eu"], input=script, text=True, check=True, cwd=tmp_path,
            env={"PATH": path, **variables},
        )  # fmt: skip
        return [shlex.split(line) for line in log.read_text().splitlines()]

    return ran


def test_the_array_runs_every_shard_once(said):
    for number in map(str, range(1, 9)):
        words = said(block("sbatch"), SLURM_ARRAY_TASK_ID=number, SLURM_ARRAY_TASK_COUNT="2",
                     MVTEC="/data")  # fmt: skip
    assert "--array=1-8" in block("sbatch")
    given = [make_parser().parse_args(line) for line in words]
    assert [Shard.parse(g.shard) for g in given] == [Shard(n, 8) for n in range(1, 9)]
    assert [str(g.results) for g in given] == [f"parts/{n}" for n in range(1, 9)]


def test_the_parts_are_merged(said, tmp_path):
    (tmp_path / "parts" / "1").mkdir(parents=True)
    merge, status = map(make_parser().parse_args, said(block("merge")))
    assert (merge.folders, merge.into) == ([Path("parts/1")], status.results)


def test_the_indexed_job_runs_every_shard_once(said):
    job = block("kubernetes")
    script = re.search(r"args:\n\s*- (.*?)\n\s*volumeMounts", job, re.DOTALL)[1]
    for index in range(8):
        words = said(" ".join(script.split()), JOB_COMPLETION_INDEX=str(index))
    given = [make_parser().parse_args(line) for line in words]
    assert [Shard.parse(g.shard) for g in given] == [Shard(n, 8) for n in range(1, 9)]
    assert "completions: 8" in job


def test_every_other_command_of_the_page_can_be_parsed():
    text = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    lines = list(filter(None, text.splitlines()))
    assert len(lines) == 8
    for line in lines:
        assert shlex.split(line)[0] == "harness"
        make_parser().parse_args(shlex.split(line)[1:])

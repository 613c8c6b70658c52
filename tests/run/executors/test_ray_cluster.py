"""Runs on a real Ray cluster of two nodes on one machine; nodes and drivers are killed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from faults.starts import STUDY, leftovers, pids, records, send, start, trainings
from tiny import write_category

from harness.run.cluster import SHORT

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.cluster
may_blind = pytest.mark.skipif(
    not hasattr(os, "getuid") or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="this user may give a process no mounts of its own",
)
TESTS = Path(__file__).parents[2]
MANY = STUDY.replace("epochs=24", "epochs=150")  # long enough to be disturbed
assert MANY != STUDY


class Nodes:
    """The cluster, which does as it is told."""

    def __init__(self, folder):
        environ = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, str(TESTS / "two_nodes.py")]
        self.process = subprocess.Popen(command, cwd=folder, env=environ, **pipes)
        self.folder = folder
        self.address = self.process.stdout.readline().strip()
        assert ":" in self.address, "the cluster did not start"

    def do(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.end()


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with the study and its photos, and the records of worker processes."""
    folder = tmp_path_factory.mktemp("ground")
    for seed, name in enumerate(("bottle", "cable")):
        write_category(folder / "data" / name, good=8, bad=4, seed=seed)
    (folder / "faulty.py").write_text(MANY)
    assert start(folder, "local", "--jobs", "2").wait() == 0
    return folder


def on(nodes, folder, results, *options):
    return start(
        folder, results, "--executor", "ray", "--ray-address", nodes.address, *options,
        environ={"RAY_enable_metrics_collection": "0"},
    )  # fmt: skip


def until_trained(begun, results, recorded=0, seconds=400.0):
    """Wait until so many runs are recorded and another training is under way."""
    until = time.monotonic() + seconds
    while len(records(results)) < recorded or not growing(results):
        assert begun.process.poll() is None, begun.text
        assert time.monotonic() < until, begun.text
        time.sleep(0.05)


def growing(results):
    return list(results.glob("runs/*/*/*/*.checkpoint-*.npz"))


def end_of(folder, seconds=30.0):
    """Wait until no process is left that a task of the cluster runs in, or started."""
    mark, until = str(folder).encode(), time.monotonic() + seconds
    names = (b"ray::bottle", b"ray::cable")

    def working():
        for pid in pids():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                about = Path(f"/proc/{pid}/environ").read_bytes()
                if words.startswith(names) or (b"forkserver" in words and mark in about):
                    return True
        return False

    while working():
        assert time.monotonic() < until, "tasks of a dead driver go on"
        time.sleep(0.2)


def ran(begun):
    """Node → runs recorded there."""
    line = next(s for s in begun.text.splitlines() if s.startswith("runs by node: "))
    return {at: int(n) for at, n in re.findall(r"\((\w+)\) (\d+)", line)}


def trained(results):
    return {k: v for k, v in trainings(results).items() if "checkpoint" not in k}


def written(results):
    return {p: p.read_bytes() for p in results.glob("runs/*/*/*/seed-0.json")}


def same(ground, results):
    ours, theirs = records(ground / results), records(ground / "local")
    assert len(theirs) == 6
    assert ours == theirs
    assert not leftovers(ground, ground / results)


def test_both_nodes_run_and_the_records_are_the_local_executors(nodes, ground):
    begun = on(nodes, ground, "both")
    assert begun.wait() == 0, begun.text
    assert sum(ran(begun).values()) == 6
    assert len(ran(begun)) == 2
    assert not begun.orphans()
    same(ground, "both")


def test_a_node_that_is_killed_costs_nothing(nodes, ground):
    begun = on(nodes, ground, "killed")
    until_trained(begun, ground / "killed", 1)
    nodes.do("kill")
    assert begun.wait() == 0, begun.text
    nodes.do("add")
    same(ground, "killed")


def test_a_driver_that_is_killed_comes_back_and_trains_nothing_twice(nodes, ground):
    begun = on(nodes, ground, "back")
    until_trained(begun, ground / "back", 1)
    begun.process.kill()
    begun.wait()
    end_of(nodes.folder)
    before = trained(ground / "back")
    again = on(nodes, ground, "back")
    assert again.wait() == 0, again.text
    after = trained(ground / "back")
    assert before
    assert {k: after[k] for k in before} == before
    assert f"trained {len(after) - len(before)}, " in again.text
    assert len(after) == 4
    same(ground, "back")


@may_blind
def test_a_node_that_does_not_see_the_folder_sends_what_runs_leave(nodes, ground):
    (ground / "apart").mkdir()
    nodes.do("kill")
    nodes.do(f"blind {ground / 'apart'}")
    try:
        begun = on(nodes, ground, "apart", "--keep")
        assert begun.wait() == 0, begun.text
        assert len(ran(begun)) == 2
        own = next(nodes.folder.glob("fastflow-harness-*/*/features"))
        assert list(own.glob("*/meta.json"))
        assert not list(own.glob(".*.tmp"))
        assert len(list((ground / "apart").glob("runs/*/*/*/*.safetensors"))) == 6
        same(ground, "apart")
        before = written(ground / "apart")
        for weights in (ground / "apart").glob("runs/*/*/*/*.safetensors"):
            weights.unlink()
        again = on(nodes, ground, "apart", "--keep")
        assert again.wait() == 0, again.text
        assert len(ran(again)) == 2
        assert len(list((ground / "apart").glob("runs/*/*/*/*.safetensors"))) == 6
        assert written(ground / "apart") == before
    finally:
        nodes.do("see")
        nodes.do("add")


@may_blind
def test_what_a_node_without_the_photos_refuses_goes_to_the_other(nodes, ground):
    nodes.do("kill")
    nodes.do(f"blind {ground / 'data'}")
    try:
        begun = on(nodes, ground, "refused")
        assert begun.wait() == 0, begun.text
        assert begun.text.count("expected the photos of") == 1
        assert "other nodes are asked" in begun.text
        assert list(ran(begun).values()) == [6]
        same(ground, "refused")
    finally:
        nodes.do("see")
        nodes.do("add")


def test_ctrl_c_ends_what_runs_and_the_next_start_goes_on(nodes, ground):
    begun = on(nodes, ground, "stopped")
    until_trained(begun, ground / "stopped")
    asked = time.monotonic()
    send(begun.process.pid, signal.SIGINT)
    assert begun.wait() == 130, begun.text
    assert time.monotonic() - asked < 30
    assert list((ground / "stopped").glob("runs/*/*/*/*.checkpoint"))
    assert not list((ground / "stopped").rglob("*.tmp"))
    again = on(nodes, ground, "stopped")
    assert again.wait() == 0, again.text
    same(ground, "stopped")


def test_a_run_that_fails_is_not_run_again(nodes, ground):
    for run in (ground / "local").glob("runs/*/*/bottle"):  # what is in a file's way stays there
        way = ground / "failed" / run.relative_to(ground / "local") / "seed-0.gallery.npz" / "way"
        way.mkdir(parents=True)
    begun = on(nodes, ground, "failed", "--category", "bottle")
    assert begun.wait() == 1, begun.text
    failed = [s for s in begun.text.splitlines() if s.startswith("failed: ")]
    assert len(failed) == 3
    assert all("a folder is in its place" in s for s in failed)
    assert "given to another" not in begun.text
    assert len(trained(ground / "failed")) == 2


def test_a_cluster_of_its_own_goes_with_the_start(ground):
    folders = (ground / "tmp", *map(Path, SHORT))  # where TMPDIR is too long for Ray's sockets
    before = {p for f in folders for p in f.glob("ray-*")}
    begun = start(ground, "own", "--executor", "ray", "--category", "bottle")
    until_trained(begun, ground / "own")
    os.killpg(begun.process.pid, signal.SIGINT)  # as a terminal does
    assert begun.wait() == 130, begun.text
    assert not begun.orphans()
    assert {p for f in folders for p in f.glob("ray-*")} == before

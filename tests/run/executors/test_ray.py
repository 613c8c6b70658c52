"""The Ray executor's driver and its nodes, without Ray: over a stand-in that runs them here."""

import pickle
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import TINY, Here

from harness.cli.main import main
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study, one_factor
from harness.run import cluster, node
from harness.run.assigned import Assigned
from harness.run.cluster import Share, share_of
from harness.run.executors import ray as pool
from harness.run.plan import make_plan
from harness.run.share import Shares
from harness.run.sweep import run_study

NODE = {"CPU": 2.0, "memory": 2.0**33}


class RayError(Exception):
    pass


class Lost(RayError):
    pass


class RayTaskError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class Fake:
    """What the driver asks of Ray; tasks run in this process when they are asked for news.

    Args:
        faults: for each task in turn, after how many words what is raised; None: nothing.
    """

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, OutOfMemoryError=OutOfMemoryError
    )
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda at, soft: ("at", at),
            NodeLabelSchedulingStrategy=lambda hard: hard["ray.io/node-id"],
            NotIn=lambda *nodes: ("not", *nodes),
        )
    )

    def __init__(self, *faults):
        self.faults, self.given, self.cancelled, self.orders = list(faults), [], [], []
        self.names, self.refusing, self.turns = ["n1"], {}, 0

    def nodes(self):
        return [{"Alive": True, "Resources": NODE, "NodeID": name} for name in self.names]

    def remote(self, function=None, **given):
        return self if function else self.remote

    def options(self, **given):
        self.given.append(given)
        return SimpleNamespace(remote=self.begin)

    def begin(self, expected, order):
        self.orders.append(pickle.loads(order))
        asked = self.given[-1]["scheduling_strategy"]
        return self.told(expected, order, self.faults.pop(0) if self.faults else None, asked)

    def told(self, expected, order, fault, asked="SPREAD"):
        can = [n for n in self.names if asked[0] != "not" or n not in asked[1:]]
        at, self.turns = can[self.turns % len(can)], self.turns + 1
        yield at, "host"
        if reason := self.refusing.get(at):
            yield node.News("refused", text=reason)
            return
        for number, news in enumerate(node.work(expected, order)):
            if fault and fault[0] == number:
                raise fault[1]
            yield news

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, said):
        return said

    def cancel(self, told, force):
        self.cancelled.append((told, force))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Ray, and a node that does not see the driver's folder unless a test says so."""
    fake = Fake()
    monkeypatch.setattr(pool, "connected", lambda settings: fake)
    monkeypatch.setattr(node, "open_executor", lambda settings: Here())
    monkeypatch.setattr(node.tempfile, "gettempdir", lambda: str(tmp_path))
    node._checked.cache_clear()
    return fake


@pytest.fixture
def blind(monkeypatch):
    """The node does not see the driver's claims; the driver does."""
    seen = node._work

    def work(order):
        jobs = [replace(job, claim=None) for job in order.jobs]
        return seen(replace(order, jobs=jobs))

    monkeypatch.setattr(node, "_work", work)


def run(study, settings):
    there = replace(settings, executor="ray", jobs=0, speed=False)
    said = []
    return run_study(make_plan(study, there), there, said.append), said


@pytest.fixture
def small():
    """On each category, two runs of one training."""
    vary = one_factor(score_map=("nll",))
    return Study(name="small", asks="?", bases={"base": TINY}, vary=vary, seeds=(0,))


def records(folder):
    found = {(r.digest, r.category, r.seed): r for r in read_records(folder)}
    for r in found.values():
        r.measured = r.environment = None
    return found


@pytest.mark.whole
def test_records_are_those_of_worker_processes_wherever_the_folder_is(
    fake, blind, small, settings, tmp_path
):
    outcome, said = run(small, settings)
    assert (outcome.recorded, outcome.failed) == (4, [])
    assert "runs by node: host (n1) 4" in said
    assert all(o.trained is False and not o.energies for o in fake.orders)
    elsewhere = replace(settings, results=tmp_path / "here")
    run_study(make_plan(small, elsewhere), elsewhere, lambda text: None, executor=Here())
    assert len(records(settings.results)) == 4
    assert records(settings.results) == records(elsewhere.results)
    files = [{p.relative_to(f) for p in (f / "runs").rglob("*") if p.is_file()}
             for f in (settings.results, elsewhere.results)]  # fmt: skip
    assert files[0] == files[1]
    kept = next(tmp_path.glob("fastflow-harness-*/*/features"))
    assert len(list(kept.glob("*/meta.json"))) == 2
    assert not list(kept.glob(".*.tmp"))


def test_a_run_is_said_to_be_on_its_node_from_the_node_s_first_word(
    fake, small, settings, monkeypatch
):
    seen, note = [], Shares.note

    def noted(shares, event):
        counts = note(shares, event)
        seen.append((event.kind, [r.host for r in shares.claims.signs.said.running]))
        return counts

    monkeypatch.setattr(Shares, "note", noted)
    run(small, replace(settings, categories=("left",)))
    assert seen[0] == ("begun", ["host"])
    assert ("epoch", ["host"]) in seen


def test_features_are_made_by_nodes_in_the_shared_cache(fake, small, settings):
    outcome, _ = run(small, settings)
    assert outcome.recorded == 4
    assert outcome.passes == 2 * 16
    assert len(list((settings.cache / "features").glob("*/meta.json"))) == 2
    given = [g["scheduling_strategy"] for g in fake.given]
    assert given[0] == "SPREAD"
    assert not list((settings.results / "claims").iterdir())


def test_only_lost_workers_are_tried_again_and_epochs_count_once(fake, small, settings):
    fake.faults = [(3, Lost("gone")), None]
    outcome, said = run(small, settings)
    assert (outcome.recorded, outcome.failed) == (4, [])
    assert len(fake.orders) == 3
    assert [s for s in said if "its worker on node host was lost (Lost)" in s]


def test_a_worker_that_is_lost_again_and_again_is_a_failure(fake, small, settings):
    fake.faults = [(1, Lost("gone"))] * (2 * (pool.RETRIES + 1))
    outcome, _ = run(small, settings)
    assert len(outcome.failed) == 4
    assert len(fake.orders) == 2 * (pool.RETRIES + 1)
    assert f"{pool.RETRIES + 1} times in all" in outcome.failed[0][1]


def test_a_node_that_refuses_is_asked_for_no_more_while_others_can(fake, small, settings):
    fake.names, fake.refusing = ["n1", "n2"], {"n1": "node host: no photos here"}
    outcome, said = run(small, settings)
    assert (outcome.recorded, outcome.failed) == (4, [])
    assert "runs by node: host (n2) 4" in said
    assert len([s for s in said if "no photos here; other nodes are asked" in s]) == 1
    strategies = [g["scheduling_strategy"] for g in fake.given]
    assert strategies == ["SPREAD", "SPREAD", ("not", "n1")]  # the first two at once


def test_what_every_node_refuses_fails_and_the_nodes_are_asked_for_the_rest(fake, small, settings):
    fake.names = ["n1", "n2"]
    told = fake.told

    def of_left_alone(expected, order, *given):
        left = pickle.loads(order).jobs[0].category.name == "left"
        fake.refusing = dict.fromkeys(fake.names, "node host: no photos") if left else {}
        yield from told(expected, order, *given)

    fake.told = of_left_alone
    outcome, _ = run(small, settings)
    assert [reason for _, reason in outcome.failed] == ["node host: no photos"] * 2
    assert outcome.recorded == 2


def test_a_run_that_was_killed_for_memory_is_given_a_nodes_own_once(fake, small, settings):
    settings = replace(settings, categories=("left",))
    fake.faults = [(1, OutOfMemoryError("killed")), None]
    outcome, _ = run(small, settings)
    assert (outcome.recorded, outcome.failed) == (2, [])
    assert fake.given[0]["memory"] < fake.given[1]["memory"] == NODE["memory"]


def test_a_run_that_needs_more_than_a_node_has_is_named(fake, small, settings):
    settings = replace(settings, categories=("left",))
    fake.faults = [(1, OutOfMemoryError("killed"))] * 2
    outcome, _ = run(small, settings)
    assert len(fake.orders) == 2
    assert "node host ran out of memory, with all of it for this run" in outcome.failed[0][1]


def test_an_error_of_a_task_is_named_and_not_tried_again(fake, small, settings):
    fake.faults = [(1, RayTaskError("Traceback\n  a line\nKeyError: 'x'"))]
    outcome, _ = run(small, settings)
    assert [reason for _, reason in outcome.failed] == ["KeyError: 'x'"] * 2
    assert (outcome.recorded, len(fake.orders)) == (2, 2)


def test_energies_go_to_a_node_that_asks_for_them(fake, blind, small, settings):
    run(small, settings)
    for record in settings.results.glob("runs/*/*/*/seed-0.json"):
        record.unlink()
    before = {p: p.stat().st_mtime_ns for p in settings.results.glob("runs/*/*/*/seed-0.npz")}
    fake.orders.clear()
    outcome, _ = run(small, settings)
    assert (outcome.trained, outcome.recorded) == (0, 4)
    assert [bool(o.energies) for o in fake.orders] == [False, False, True, True]
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"photos": "moved"}, "node {host}: expected the photos of left at "),
        ({"photos": "other"}, "node {host}: expected the driver's photos of left below "),
        ({"weights": "0" * 64}, "node {host}: expected the driver's weights of "),
        ({"arithmetic": "cuda tf32"}, "node {host}: expected to compute in cuda tf32; got cpu f"),
        ({"versions": True}, "node {host}: expected torch 1.0; got torch "),
    ],
)
def test_a_node_that_cannot_run_a_task_says_why(
    change, reason, fake, blind, small, settings, monkeypatch
):
    def begin(expected, order):
        told = pickle.loads(order)
        if change.get("photos") == "moved":
            settings.data.rename(settings.data.with_name("elsewhere"))
        elif change.get("photos") == "other":
            photo = next(settings.data.glob("left/train/good/000.png"))
            photo.write_bytes(next(settings.data.glob("left/train/good/001.png")).read_bytes())
        elif "weights" in change:
            weights = {"sha256": change["weights"], "source": "folder"}
            told = replace(told, jobs=[replace(j, weights=weights) for j in told.jobs])
        elif "arithmetic" in change:
            key = replace(told.jobs[0].key, arithmetic=change["arithmetic"])
            told = replace(told, jobs=[replace(j, key=key) for j in told.jobs])
        else:
            expected = {**expected, "torch": "1.0"}
        return fake.told(expected, pickle.dumps(told), None)

    monkeypatch.setattr(fake, "begin", begin)
    settings = replace(settings, categories=("left",))
    outcome, _ = run(small, settings)
    assert len(outcome.failed) == 2
    assert outcome.failed[0][1].startswith(reason.format(host=socket.gethostname()))
    assert not list(settings.results.glob("runs/*/*/*/seed-0.json"))


def test_a_training_that_another_start_took_over_is_not_written(
    fake, blind, small, settings, monkeypatch
):
    lost = RunFailed("another start took this training over")

    def check(job):
        raise lost

    monkeypatch.setattr(Assigned, "take", lambda run, job, news: check(job))
    outcome, _ = run(replace(small), replace(settings, categories=("left",)))
    assert [reason for _, reason in outcome.failed] == [str(lost)] * 2
    assert [force for _, force in fake.cancelled] == [True]
    assert not list(settings.results.rglob("seed-0*.npz"))


def test_the_next_task_is_one_whose_features_are_near():
    def job(category, work):
        return SimpleNamespace(key=SimpleNamespace(digest=category), training_work=work)

    class Mine(Shares):
        def __init__(self, left):
            self.left, self.held = left, {}
            self.claims = SimpleNamespace(taken=set, take=lambda name: name)

        def _is_ended(self, name):
            return False

        def _start(self, name, claim):
            return self.left.pop(name)

    left = {f"{c}{w}": [job(c, w)] for w, c in ((9, "a"), (8, "b"), (7, "a"), (6, "b"))}
    tasks = Mine(left).tasks()
    assert next(tasks)[0].training_work == 9
    assert tasks.send({"b"})[0].training_work == 8
    assert tasks.send({"b"})[0].training_work == 6
    assert tasks.send({"b"})[0].training_work == 7


@pytest.mark.parametrize(
    ("nodes", "jobs", "device", "share"),
    [
        ([{"CPU": 8}, {"CPU": 4}], 0, "cpu", (1, 0.0, 12)),
        ([{"CPU": 8}, {"CPU": 4}], 2, "cpu", (4, 0.0, 2)),  # no more than the smallest node has
        ([{"CPU": 8}, {"CPU": 4}], 100, "cpu", (1, 0.0, 12)),
        ([{"CPU": 8}, {"CPU": 8}], 3, "cpu", (4, 0.0, 3)),  # with five, two would fit
        ([{"CPU": 16}] * 3, 7, "cpu", (5, 0.0, 7)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 4}], 0, "cuda", (4, 1.0, 2)),
        ([{"CPU": 8, "GPU": 2}], 6, "cuda", (1, 0.3333, 6)),
        ([{"CPU": 2, "GPU": 4}], 0, "cuda", (1, 1.0, 2)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 4, "GPU": 2}], 0, "cuda", (2, 1.0, 10)),
    ],
)
def test_a_cluster_is_shared_out(nodes, jobs, device, share):
    assert share_of(nodes, jobs=jobs, device=device) == Share(*share, memory=0)


def test_a_cluster_without_what_is_needed_is_named():
    with pytest.raises(RunFailed, match="expected a node with a GPU; the cluster has none"):
        share_of([NODE], jobs=0, device="cuda")


def test_devices_are_the_nodes(fake):
    for device, message in (("cuda", "a node with a GPU"), ("cuda:1", "cpu or cuda with")):
        with pytest.raises(InputError, match=message):
            cluster.device_there(fake, Settings(device=device), [NODE])
    assert cluster.device_there(fake, Settings(device="auto"), [NODE]).device == "cpu"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://there:10001", "--ray-address: expected HOST:PORT"),
        ("there", "--ray-address: expected HOST:PORT"),
        (
            "127.0.0.1:1",
            "--ray-address: expected a Ray cluster at 127.0.0.1:1; it does not answer",
        ),
    ],
)
def test_an_address_that_is_none_is_named_at_once(address, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(InputError, match=message):
        cluster.connected(Settings(ray_address=address))


def test_without_ray_a_line_says_how_to_get_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("run", "kernels", "--data", str(data), "--results", str(tmp_path / "r"))
    assert main([*words, "--random-weights", "--executor", "ray"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("expected Ray; found none; pip install 'fastflow-harness[ray]'")


def test_somebody_elses_folder_is_not_used(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(node.os, "getuid", lambda: 4242)
    with pytest.raises(InputError, match="expected a folder of this user"):
        node.own_folder("driver")


def test_the_set_that_comes_along_is_drawn_on_a_node_that_lacks_it(data, tmp_path, monkeypatch):
    category = MvtecAd(data, name="tiny", drawn="tiny 1").load("left")
    key = SimpleNamespace(data_digest=category.digest)
    job = SimpleNamespace(category=pickle.loads(pickle.dumps(category)), key=key)
    drawn = data.rename(tmp_path / "own")
    asked = []

    def draw(name, *, folder, cache):
        asked.append((name, cache))
        return SimpleNamespace(root=drawn)

    monkeypatch.setattr(node, "open_dataset", draw)
    here = node.photos_here(job, tmp_path)
    assert asked == [("surfaces", tmp_path)]
    assert here.names == category.names
    assert all(s.path.is_relative_to(drawn) and s.image() for s in (*here.train, *here.test))
    assert all(m.is_file() for s in here.test for m in s.masks)
    assert here.digest == category.digest

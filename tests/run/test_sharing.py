"""Several starts of one study in one folder, as real processes: nothing is done twice or lost."""

import json
import multiprocessing as mp
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import Here, lasting

from harness import claims, heartbeat
from harness.claims import Claims
from harness.experiment.place import Place
from harness.experiment.store import read_records, write_failure
from harness.features import cache
from harness.features.cache import FeatureCache
from harness.run import job, share
from harness.run.plan import make_plan
from harness.run.share import Shares
from harness.run.sweep import run_study

LONG = 600  # seconds, after which a test has failed
TRAININGS, RUNS = 8, 12  # of the study, which has a scoring variant


def begin(study, settings, out, fault):
    """A start of its own, which says at the end what it did."""
    torch.set_num_threads(1)
    FAULTS[fault](out)
    outcome = run_study(make_plan(study, settings), settings, lambda text: None, executor=Here())
    out.write_text(json.dumps(asdict(outcome)))


def none(out):
    claims.PAUSE = 0.02


def same_number(out):
    """Containers have the same process ids."""
    none(out)
    os.getpid = lambda: 4242


def in_training(out):
    """Say that the second training has begun its second epoch, and stand still."""
    seen = []
    run = job.run_job

    def progress(epoch, loss):
        seen.append(epoch)
        if len(seen) == 5:
            out.with_suffix(".there").touch()
            time.sleep(LONG)

    job.run_job = lambda one, told, say: run(one, progress)


def in_features(out):
    """Stand still with an entry half written."""
    extract = cache.extract

    def half(folder, split, *rest):
        done = extract(folder, split, *rest)
        if split.name == "test":
            out.with_suffix(".there").touch()
            time.sleep(LONG)
        return done

    cache.extract = half


def far_away(out):
    """The same on what others take for another machine."""
    heartbeat._machine = lambda: ("elsewhere", "boot", "space")
    in_training(out)


def asleep(out):
    """Be stopped in the middle of a training, until somebody lets it go on."""
    none(out)
    run, seen = job.run_job, []

    def progress(epoch, loss):
        seen.append(epoch)
        if len(seen) == 2:
            out.with_suffix(".there").touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    job.run_job = lambda one, told, say: run(one, progress)


FAULTS = {f.__name__: f for f in (none, same_number, in_training, in_features, far_away, asleep)}


@pytest.fixture
def started(study, settings, tmp_path):
    """Begin a start; all are ended at the end."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["harness.run.sweep"])
    processes = []

    def start(fault="none", **changes):
        out = tmp_path / f"{len(processes)}.json"
        asked = replace(settings, speed=False, **changes)
        process = context.Process(target=begin, args=(study, asked, out, fault))
        process.start()
        processes.append(process)
        return process, out

    yield start
    for process in processes:
        process.kill()
        process.join()


def reached(out, process):
    until = time.monotonic() + LONG
    while not out.with_suffix(".there").exists():
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.02)


def go_on(study, settings):
    """Start in this process."""
    there = replace(settings, speed=False)
    said = []
    outcome = run_study(make_plan(study, there), there, said.append, executor=Here())
    assert said[-1] == outcome.line
    return outcome


def left_over(results):
    """Files that a finished start leaves beside results and features."""
    found = [p for p in results.rglob("*") if p.name.endswith(".tmp")]
    return found + [p for p in results.rglob("claims/*") if p.is_file()]


def same_as_undisturbed(study, settings, tmp_path):
    alone = replace(settings, results=tmp_path / "alone")
    assert go_on(study, alone).line == f"trained {TRAININGS}, took up 0, recorded {RUNS}"
    assert [*map(lasting, read_records(settings.results))] == [
        *map(lasting, read_records(alone.results))
    ]
    assert left_over(settings.results) == []


@pytest.mark.parametrize(
    ("starts", "fault"), [(3, "same_number"), pytest.param(8, "none", marks=pytest.mark.long)]
)
@pytest.mark.whole
def test_starts_at_once_do_every_training_once(study, settings, started, tmp_path, starts, fault):
    running = [started(fault) for _ in range(starts)]
    for process, _ in running:
        process.join(LONG)
        assert process.exitcode == 0
    said = [json.loads(out.read_text()) for _, out in running]
    assert sum(s["trained"] for s in said) == TRAININGS
    assert sum(s["recorded"] for s in said) == RUNS
    assert sum(s["passes"] for s in said) == 32
    assert [s["failed"] for s in said] == [[]] * starts
    for s in said:  # of those that were missing when it began
        assert s["already"] + s["recorded"] + s["taken_up"] == RUNS
    same_as_undisturbed(study, settings, tmp_path)


@pytest.mark.parametrize("fault", ["in_training", "in_features"])
@pytest.mark.long
def test_what_a_killed_start_held_is_taken_over_at_once(
    study, settings, started, tmp_path, fault, monkeypatch
):
    monkeypatch.setattr(claims, "PAUSE", 0.02)
    process, out = started(fault)
    reached(out, process)
    assert left_over(settings.results)
    process.kill()
    process.join()
    recorded = len(list(read_records(settings.results)))
    assert (recorded > 0) == (fault == "in_training")  # the first of its trainings was done
    began = time.monotonic()
    outcome = go_on(study, settings)
    assert time.monotonic() - began < 60
    assert outcome.failed == []
    assert (outcome.already, outcome.recorded) == (recorded, RUNS - recorded)
    assert outcome.passes == {"in_training": 0, "in_features": 32}[fault]
    same_as_undisturbed(study, settings, tmp_path)


@pytest.mark.long
def test_one_that_dies_on_another_machine_is_waited_for_and_taken_over(
    study, settings, started, tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "PAUSE", 0.02)
    process, out = started("far_away")
    reached(out, process)
    process.kill()
    process.join()
    monkeypatch.setattr(heartbeat, "PERIOD", 0.1)
    monkeypatch.setattr(heartbeat, "LIMIT", 1.0)
    outcome = go_on(study, settings)
    assert outcome.failed == []
    assert outcome.already + outcome.recorded == RUNS
    same_as_undisturbed(study, settings, tmp_path)


@pytest.mark.long
def test_one_that_wakes_after_it_was_taken_for_dead_drops_its_work(
    study, settings, started, tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "PAUSE", 0.02)
    process, out = started("asleep")
    reached(out, process)
    monkeypatch.setattr(heartbeat, "PERIOD", 0.1)
    monkeypatch.setattr(heartbeat, "LIMIT", 0.5)
    ours = go_on(study, settings)
    os.kill(process.pid, signal.SIGCONT)
    process.join(LONG)
    theirs = json.loads(out.read_text())
    assert (ours.failed, theirs["failed"]) == ([], [])
    assert ours.recorded == RUNS
    assert (theirs["trained"], theirs["recorded"], theirs["taken_up"]) == (0, 0, RUNS)
    same_as_undisturbed(study, settings, tmp_path)


def test_a_run_that_fails_elsewhere_is_not_tried_here_too(tmp_path, monkeypatch):
    """Eight starts would else train eight times what cannot be trained."""
    monkeypatch.setattr(share, "work_of", lambda one: "training")
    one = SimpleNamespace(
        place=Place(tmp_path, "v", "d", "c", 0), is_recorded=lambda: False, training_work=1
    )
    write_failure(one.place, "an earlier start's")  # is tried again
    other, ended, waited = Claims(tmp_path, token="e" * 16), [], []
    held = other.take("training")
    shares = Shares(
        Claims(tmp_path), [one], lambda job, reason: ended.append(reason), waited.append
    )
    tasks = shares.tasks()
    assert (next(tasks), waited, ended) == (None, [["training"]], [])
    write_failure(one.place, "the loss became nan")
    other.release(held)
    assert list(tasks) == []
    assert ended == ["the loss became nan (in another start)"]


def job_of(name, results, work=1):
    """Stands for a job that nobody has recorded."""
    return SimpleNamespace(
        name=name, training_work=work, place=Place(results, name, "d", "c", 0), epochs=1,
        is_recorded=lambda: False,
    )  # fmt: skip


def test_the_longest_trainings_come_first(tmp_path, monkeypatch):
    """Else the last one may keep a core busy for long while the others have nothing to do."""
    monkeypatch.setattr(share, "work_of", lambda one: one.name)
    works = (("a", 3), ("b", 7), ("c", 7), ("a", 3), ("d", 9))
    jobs = [job_of(name, tmp_path, work) for name, work in works]
    assert list(Shares(Claims(tmp_path), jobs, print, print).left) == ["d", "b", "c", "a"]


def test_what_runs_here_alone_is_nothing_to_wait_for(tmp_path, monkeypatch):
    """An empty task lets idle cores be granted; what is lost to another start comes again."""
    monkeypatch.setattr(share, "work_of", lambda one: "training")
    tasks = Shares(
        Claims(tmp_path), [job_of("training", tmp_path)], print, print
    ).tasks()  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "replace", lambda one, **changes: one)
        (task,) = next(tasks)
    assert task.name == "training"
    assert [next(tasks), next(tasks)] == [(), ()]


def test_one_that_loses_a_training_to_a_faster_start_takes_the_next(tmp_path, monkeypatch):
    """None would say that others hold all that is left, and grant its cores to what runs."""
    monkeypatch.setattr(share, "work_of", lambda one: one.name)
    monkeypatch.setattr(share, "replace", lambda one, **changes: one)
    here, other = Claims(tmp_path), Claims(tmp_path, token="e" * 16)
    tasks = Shares(here, [job_of("a", tmp_path, 2), job_of("b", tmp_path)], print, print).tasks()
    with other:
        held = other.take("a")
        monkeypatch.setattr(here, "taken", set)  # read before the other took it
        assert [task and task[0].name for task in (next(tasks), next(tasks))] == ["b", None]
        other.release(held)
        assert next(tasks)[0].name == "a"


def test_a_run_is_said_to_be_where_it_has_begun(tmp_path, monkeypatch):
    """On a cluster: there, and since then, not where and when the driver claimed it."""
    monkeypatch.setattr(share, "work_of", lambda one: one.name)
    monkeypatch.setattr(share, "replace", lambda one, **changes: one)
    shares = Shares(Claims(tmp_path), [job_of("a", tmp_path)], print, print)
    monkeypatch.setattr(share, "now", lambda: "at eleven")
    (job,) = next(shares.tasks())
    monkeypatch.setattr(share, "now", lambda: "at noon")
    assert shares.note(share.Event(job, "begun", host="n1"))
    shares.note(share.Event(job, "epoch", epoch=1))
    (said,) = shares.claims.signs.said.running
    assert (said.host, said.since, said.epoch) == ("n1", "at noon", 1)


def test_entries_in_use_are_neither_cleared_nor_evicted(tmp_path):
    folder = tmp_path / "features"
    for name in ("used", "free"):
        (folder / name).mkdir(parents=True)
        (folder / name / "meta.json").write_text('{"key": {}, "images": 1}')
    user = Claims(folder, token="a" * 16)
    with user, user.using(["used"]):
        store = FeatureCache(folder, limit=0)
        with store.claims:
            assert [p.name for p in store.evict()] == ["free"]
            assert store.clear() == 0
            assert store.claims.users("used") == ["a" * 16]
    assert store.clear() > 0
    assert [p.name for p in folder.iterdir()] == ["claims"]


def test_an_entry_that_somebody_begins_to_use_is_put_back(tmp_path, monkeypatch):
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "meta.json").write_text('{"key": {}, "images": 1}')
    store = FeatureCache(tmp_path)
    user = Claims(tmp_path, token="a" * 16)
    rename, marks = Path.rename, []

    def begin_to_use(self, target):
        if not marks:
            marks.append(user.using(["entry"]))
            marks[0].__enter__()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", begin_to_use)
    assert store.clear() == 0
    assert entry.is_dir()

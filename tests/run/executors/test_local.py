"""The worker pool: what is told of workers that die, fail or wait."""

import multiprocessing as mp
import subprocess
import sys
from dataclasses import dataclass

import pytest

from harness.run.executors import local
from harness.run.executors.local import LocalPool


@dataclass(frozen=True)
class Work:
    """Stands for a job: of it the pool asks only whether its energies are saved."""

    name: str
    trained: bool = False

    def is_trained(self):
        return self.trained


class Dead:
    """Stands for a process that the system killed."""

    exitcode = -9
    ended = 0

    def terminate(self):
        pass

    def kill(self):
        self.ended += 1

    def join(self):
        pass


@pytest.fixture
def workers(monkeypatch):
    """Workers that say what the list holds for each of them and are gone by then."""
    said, started = [], []

    def start(there):
        ours, its = mp.Pipe()
        for message in said[len(started)]:
            its.send(message)
        its.close()
        there[ours] = local._Worker(Dead())
        started.append(there[ours])
        return ours

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "_fits", lambda worker: "try less")
    return said, started


def told(tasks, parallel=1):
    return [(e.job.name, e.kind, e.reason) for e in LocalPool(parallel).run(tasks)]


KILLED = "the process ended by signal SIGKILL; out of memory? try less"


def test_what_a_killed_worker_had_sent_is_read_and_the_rest_fails(workers):
    said, started = workers
    said += [[("epoch", 1, True), ("done", True), ("epoch", 1, True)], [("done", True)]]
    task = [Work("a"), Work("b"), Work("c")]
    assert told([task, [Work("d")]]) == [
        ("a", "epoch", ""), ("a", "done", ""), ("b", "epoch", ""),
        ("b", "failed", KILLED), ("c", "failed", KILLED), ("d", "done", ""),
    ]  # fmt: skip
    assert len(started) == 2


def test_what_waits_for_saved_energies_is_run_by_another_worker(workers):
    """However often: every death ends one job."""
    said, started = workers
    said += [[("done", True)], [], [("done", True)]]
    task = [Work(name, trained=True) for name in "abcd"]
    assert told([task]) == [
        ("a", "done", ""), ("b", "failed", KILLED), ("c", "failed", KILLED), ("d", "done", ""),
    ]  # fmt: skip
    assert len(started) == 3


@pytest.mark.parametrize("trained", [True, False])
def test_an_unexpected_failure_of_scoring_fails_only_itself(workers, trained):
    said, _ = workers
    said += [[("failed", 0, "KeyError: 'x'", "Traceback …", False)], [("done", True)]]
    ends = told([[Work("a", trained=trained), Work("b", trained=trained)]])
    assert [(n, k) for n, k, _ in ends] == [
        ("a", "failed"),
        ("b", "done" if trained else "failed"),
    ]


def test_a_task_of_a_worker_that_died_idle_goes_to_another(workers):
    said, started = workers
    said += [[("done", True)], [("done", True)]]
    assert told([[Work("a")], [Work("b")]]) == [("a", "done", ""), ("b", "done", "")]
    assert len(started) == 2


def test_after_an_unexpected_failure_the_worker_is_ended(workers):
    said, started = workers
    failed = ("failed", 0, "KeyError: 'x'", "Traceback …", False)
    said += [[failed, ("done", True)], [("done", True)]]
    tasks = [[Work("a"), Work("b")], [Work("c")]]
    assert [(n, k) for n, k, _ in told(tasks)] == [
        ("a", "failed"), ("b", "failed"), ("c", "done")
    ]  # fmt: skip
    assert started[0].process.ended


def test_after_an_expected_failure_the_worker_goes_on(workers):
    said, started = workers
    said += [[("failed", 0, "the loss became nan", True), ("done", True)]]
    # Its end of the pipe is closed, so the second task cannot be sent to this stand-in.
    assert told([[Work("a")]]) == [("a", "failed", "the loss became nan")]
    assert len(started) == 1


def test_workers_that_cannot_start_fail_their_tasks(workers):
    said, started = workers
    said += [[], []]
    assert told([[Work("a")], [Work("b")]]) == [("a", "failed", KILLED), ("b", "failed", KILLED)]
    assert len(started) == 2


START = """
from importlib import import_module
from harness.run.executors import local

if __name__ == "__main__":
    worker = local._context().Process(target=import_module, args=("statistics",))
    worker.start()
    worker.join()
    raise SystemExit(worker.exitcode)
"""


@pytest.mark.long
def test_a_study_in_this_folder_is_no_module_to_the_workers(tmp_path):
    """Started as the command ``harness`` is: by a script that lies elsewhere."""
    (tmp_path / "statistics.py").write_text("raise RuntimeError('a study was imported')\n")
    script = tmp_path / "bin" / "start.py"
    script.parent.mkdir()
    script.write_text(START)
    ran = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")

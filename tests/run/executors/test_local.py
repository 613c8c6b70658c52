"""The worker pool: what is told of workers that die, fail or wait."""

import gc
import multiprocessing as mp
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, popen_forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hungry import Hungry

from harness.errors import RunFailed
from harness.run import forking
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
    ended = told = 0

    def terminate(self):
        self.told += 1

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
    monkeypatch.setattr(local, "_fits", lambda job, short: f"try less of {short}")
    return said, started


def told(tasks, parallel=1):
    return [(e.job.name, e.kind, e.reason) for e in LocalPool(parallel).run(tasks)]


HOW = "the process ended by signal SIGKILL (out of memory?)"
AGAIN, KILLED = f"{HOW}; {local.AGAIN}", f"{HOW}; try less of cpu"


def test_what_a_killed_worker_had_sent_is_read_and_it_is_tried_once_more_at_the_end(workers):
    said, started = workers
    said += [[("epoch", 1, True), ("done", True), ("epoch", 1, True)], [("done", True)], []]
    task = [Work("a"), Work("b"), Work("c")]
    assert told([task, [Work("d")]]) == [
        ("a", "epoch", ""), ("a", "done", ""), ("b", "epoch", ""), ("b", "said", AGAIN),
        ("d", "done", ""), ("b", "failed", KILLED), ("c", "failed", KILLED),
    ]  # fmt: skip
    assert len(started) == 3
    assert all(worker.process.ended for worker in started)


def test_what_waits_for_saved_energies_is_run_by_another_worker(workers):
    """However often: every second death ends one job."""
    said, started = workers
    said += [[("done", True)], [], [], [("done", True), ("done", True)]]
    task = [Work(name, trained=True) for name in "abcd"]
    assert told([task]) == [
        ("a", "done", ""), ("b", "said", AGAIN), ("b", "failed", KILLED), ("c", "said", AGAIN),
        ("c", "done", ""), ("d", "done", ""),
    ]  # fmt: skip
    assert len(started) == 4


@pytest.mark.parametrize(("where", "fits"), [("cpu", "of cpu"), ("cuda:1", "of cuda:1")])
def test_a_run_without_memory_is_tried_once_more_and_then_named(workers, where, fits):
    said, started = workers
    short = [("memory", where, False)]
    said += [short, [("epoch", 1, True), ("done", True)], short, [("done", True)], short, short]
    ends = told([[Work("a")], [Work("b")], [Work("c")], [Work("d")]])
    again = f"out of memory; {local.AGAIN}"
    assert ends == [
        ("a", "said", again), ("b", "epoch", ""), ("b", "done", ""), ("c", "said", again),
        ("d", "done", ""), ("a", "failed", f"out of memory; try less {fits}"),
        ("c", "failed", f"out of memory; try less {fits}"),
    ]  # fmt: skip
    assert len(started) == 6


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


def test_workers_write_where_they_are_when_nothing_more_can_be_claimed(workers):
    """They are told to end, which is when a training writes its checkpoint, before a kill."""
    said, started = workers
    said += [[]]

    def tasks():
        yield [Work("a")]
        raise RunFailed("the disk is full")

    with pytest.raises(RunFailed, match="the disk is full"):
        told(tasks(), parallel=2)
    assert [(w.process.told, w.process.ended > 0) for w in started] == [(1, True)]


def test_a_worker_of_a_killed_start_ends_without_a_word():
    ours, its = mp.Pipe()
    its.send("read by nobody")  # so that the system says that the pipe was cut
    ours.close()
    before = signal.getsignal(signal.SIGTERM)
    try:
        local._work(its)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_server_of_workers_is_started_anew_where_it_was_killed(tmp_path):
    forking.context()
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    forking.apart(os.mkdir, tmp_path / "made")
    assert (tmp_path / "made").is_dir()


def test_what_cannot_be_started_is_one_line(monkeypatch):
    def gone(*given):
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(popen_forkserver.Popen, "_launch", gone)
    with pytest.raises(RunFailed, match=r"3 times \(unexpected EOF; .* --jobs$"):
        forking.start(os.getpid)


def open_files():
    return {file.name for file in Path("/dev/fd").iterdir()}


@contextmanager
def room_to_open(files):
    """As by `ulimit -n`, with so many more than are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_files()) - 1 + files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ended(started):
    """End workers, whose pipes are closed with them."""
    for process, _ in started:
        process.kill()
        process.join()


def test_as_many_workers_can_be_started_as_there_is_room_for():
    forking.context()
    started = []
    with room_to_open(forking.SPARE + 4 * forking.EACH):
        room = forking.room_for(30)
        try:
            for _ in range(room):
                started.append(forking.start(local._work))
            more = [os.open(os.devnull, os.O_RDONLY) for _ in range(forking.SPARE - 2)]
            for one in more:
                os.close(one)
        finally:
            ended(started)
    assert 3 <= room <= 4
    assert forking.room_for(2) == 2


def test_a_worker_beyond_the_open_files_is_one_line_and_leaves_none_open():
    ended([forking.start(local._work)])  # whose server stays
    gc.collect()
    before = open_files()
    with room_to_open(12):
        started = [forking.start(local._work)]
        says = r"^a worker process: Too many open files; raise the limit, as by `ulimit -n 1024`$"
        with pytest.raises(RunFailed, match=says):
            started.extend(forking.start(local._work) for _ in range(12))
    assert len(started) > 1
    ended(started)
    started.clear()
    gc.collect()
    # Two may be Python's own: it leaves its first pipe to the server where a second has no room.
    assert len(open_files() - before) <= 2


def test_workers_that_cannot_start_fail_their_tasks(workers):
    said, started = workers
    said += [[], [], [], []]
    assert told([[Work("a")], [Work("b")]]) == [
        ("a", "said", AGAIN), ("b", "said", AGAIN), ("a", "failed", KILLED),
        ("b", "failed", KILLED),
    ]  # fmt: skip
    assert len(started) == 4


# --- lanes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed(Work):
    """Stands for a job that knows where it runs."""

    device: str = "cpu"
    threads: int = 1


class Line(Connection):
    """To a stand-in for a worker, which notes what it is given; ``its``: what it says by."""

    def __init__(self, pipe):
        ours, self.its = pipe
        self.given = []
        super().__init__(os.dup(ours.fileno()))

    def send(self, what):
        self.given.append(what)

    def say(self, *messages):
        for message in messages:
            self.its.send(message)


@pytest.fixture
def lines(monkeypatch):
    """Workers, in the order in which they were started, and what they say at once; more later."""
    started, first = [], {}

    def start(there):
        started.append(Line(mp.Pipe()))
        started[-1].say(*first.get(len(started) - 1, ()))
        there[started[-1]] = local._Worker(Dead())
        return started[-1]

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "_fits", lambda job, short: f"try less of {short}")
    return started, first


def given(line):
    """What a worker was given: names and devices of jobs, numbers of threads."""
    return [
        what if isinstance(what, int) else [(job.name, job.device) for job in what]
        for what in line.given
    ]


def test_runs_are_dealt_to_devices_and_named_as_they_came(lines):
    lines, first = lines
    first[1] = [("done", True)]
    events = LocalPool(3, ("cuda:0", "cuda:1")).run([[Placed(name)] for name in "abcde"])
    event = next(events)
    assert (event.job, event.kind) == (Placed("b"), "done")  # as it was asked for: on "cpu"
    assert [given(line) for line in lines] == [
        [[("a", "cuda:0")]], [[("b", "cuda:1")]], [[("c", "cuda:0")]],
    ]  # fmt: skip
    lines[0].say(("done", True))
    assert next(events).job.name == "a"
    assert given(lines[1]) == [[("b", "cuda:1")], [("d", "cuda:1")]]
    for line in lines:
        line.say(("done", True))
    assert sorted(event.job.name for event in events) == ["c", "d", "e"]
    assert given(lines[0])[1:] == [[("e", "cuda:0")]]


def test_alone_is_when_nothing_else_runs_on_its_device(lines):
    lines, first = lines
    first |= {0: [("memory", "cuda:0", False)], 4: [("done", True)]}
    events = LocalPool(4, ("cuda:0", "cuda:1")).run([[Placed(name)] for name in "abcd"])
    assert next(events).kind == "said"
    lines[1].say(("done", True))
    assert next(events).job.name == "b"  # of cuda:1, where d still runs
    assert len(lines) == 4
    lines[3].say(("done", True))
    assert next(events).job.name == "d"
    assert next(events).job.name == "a"
    assert given(lines[4]) == [[("a", "cuda:1")]]
    lines[2].say(("done", True))
    assert [event.job.name for event in events] == ["c"]


@pytest.mark.parametrize(("grow", "device"), [(True, "cpu"), (False, "cpu"), (True, "cuda")])
def test_idle_cores_are_granted_when_nothing_is_left_to_start(lines, monkeypatch, grow, device):
    lines, first = lines
    monkeypatch.setattr(local, "cores", lambda: 4)
    first[0] = [("done", True)]
    events = LocalPool(3, grow=grow).run([[Placed(name, device=device)] for name in "abcd"])
    assert next(events).job.name == "a"
    lines[1].say(("done", True))
    assert next(events).job.name == "b"  # d runs where a did
    lines[0].say(("epoch", 1, True))
    assert next(events).kind == "epoch"
    lines[0].say(("done", True))
    assert next(events).job.name == "d"
    lines[2].say(("done", True))
    assert next(events).job.name == "c"
    assert list(events) == []
    numbers = [[n for n in given(line) if isinstance(n, int)] for line in lines]
    grows = grow and device == "cpu"
    assert numbers == ([[2], [], [2, 4]] if grows else [[], [], []])


def test_idle_cores_are_granted_while_other_starts_hold_the_rest(lines, monkeypatch):
    lines, first = lines
    monkeypatch.setattr(local, "cores", lambda: 4)
    first |= {0: [("done", True)], 1: [("epoch", 1, True)]}

    def tasks():
        yield [Placed("a")]
        yield [Placed("b")]
        yield None  # others hold all that is left
        yield [Placed("c")]  # another start gave it up

    events = LocalPool(2, grow=True).run(tasks())
    assert {(e.job.name, e.kind) for e in (next(events), next(events))} == {
        ("a", "done"), ("b", "epoch"),
    }  # fmt: skip
    lines[1].say(("epoch", 2, True))
    assert next(events).epoch == 2
    assert given(lines[1])[1:] == [4]
    lines[1].say(("epoch", 3, True))
    assert next(events).epoch == 3
    assert given(lines[0])[1:] == [[("c", "cpu")]]
    for line in lines:
        line.say(("done", True))
    assert sorted(e.job.name for e in events) == ["b", "c"]
    assert given(lines[1])[1:] == [4]


# --- real workers --------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("how", ["error", "killed"])
def test_of_two_that_do_not_fit_side_by_side_both_are_done(how, tmp_path):
    tasks = [[Hungry(name, tmp_path, how, others=1)] for name in "ab"]
    events = [(e.job.name, e.kind, e.reason) for e in LocalPool(2).run(tasks)]
    ends = [(name, kind) for name, kind, _ in events if kind != "epoch"]
    tried = [name for name, kind in ends if kind == "said"]
    assert 1 <= len(tried) == len(set(tried))
    assert sorted(name for name, kind in ends if kind == "done") == ["a", "b"]
    assert ends[-1] == (tried[-1], "done")
    said = {reason for _, kind, reason in events if kind == "said"}
    assert said == {AGAIN if how == "killed" else f"out of memory; {local.AGAIN}"}


@pytest.mark.long
def test_what_does_not_fit_alone_either_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_fits", lambda job, short: f"try less of {short}")
    tasks = [[Hungry(name, tmp_path, how, others=1)] for name, how in (("a", "always"), ("b", ""))]
    events = list(LocalPool(2).run(tasks))
    assert [(e.job.name, e.reason) for e in events if e.kind == "failed"] == [
        ("a", "out of memory; try less of cpu")
    ]
    assert [e.job.name for e in events if e.kind == "done"] == ["b"]


START = """
from importlib import import_module
from harness.run import forking

if __name__ == "__main__":
    worker = forking.context().Process(target=import_module, args=("statistics",))
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

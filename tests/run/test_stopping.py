"""A study that is told to end, killed or halted: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from faults.starts import hear

from harness.experiment.store import read_record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

EPOCHS = 500


def command(settings, results, *more, epochs=EPOCHS):
    return [
        sys.executable, "-m", "harness", "run", "kernels", "--data", str(settings.data),
        "--results", str(results), "--epochs", str(epochs), "--random-weights", "--no-speed",
        "--set", "image_size=32", "--set", "flow_steps=1", "--set", "eval_every=50",
        "--set", "ema=0.5", "--set", "feature_noise=0.1", "--set", "holdout=0.2",
        "--where", "kernels=3", "--category", "left", "--seed", "0", "--jobs", "1", *more,
    ]  # fmt: skip


def started(arguments, *, until="epoch", delay=0.0):
    """A process that has said so much, its group its own."""
    errors = subprocess.PIPE
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        start_new_session=True,
        preexec_fn=hear,
    )
    read = ""
    while until not in read:
        read += (text := process.stderr.readline())
        assert text, read
    time.sleep(delay)
    return process


def below(pid):
    """The processes that it has started, and those that they have."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            found += [int(folder.name), *below(int(folder.name))]
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids, seconds=60.0):
    until = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_running, pids))


def left(results):
    """Names of what a run has left, beside its record."""
    return sorted(p.name for p in (results / "runs").rglob("*") if p.is_file())


def outcome(results):
    """The record but for its times, and every array of the energies."""
    (path,) = (results / "runs").rglob("seed-0.json")
    record = msgspec.to_builtins(read_record(path))
    del record["measured"]
    with np.load(path.with_suffix(".npz")) as file:
        return record, {n: file[n].tobytes() for n in file.files if n != "about"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an unbroken run of the same leaves."""
    from tiny import write_category

    from harness.experiment.settings import Settings

    folder = tmp_path_factory.mktemp("whole")
    write_category(folder / "data" / "left", seed=1)
    settings = Settings(results=folder / "results", data=folder / "data")
    subprocess.run(command(settings, settings.results), check=True, capture_output=True)
    return settings, outcome(settings.results)


@pytest.mark.long
def test_500_epochs_killed_five_times_are_500_unbroken_ones(whole, tmp_path):
    settings, wanted = whole
    arguments = command(settings, tmp_path / "r", "--checkpoint-minutes", "0.002")
    kills, lengths = 0, []
    while kills < 5:
        process = started(arguments, until="training", delay=0.2 + 0.15 * kills)
        others = below(process.pid)
        process.kill()
        process.wait()
        process.stderr.close()
        assert all_gone(others), "workers end with their parent"
        assert not list((tmp_path / "r").rglob("seed-0.json")), "slower, please: it was done"
        kills += 1
        lengths += [len(left(tmp_path / "r"))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "not taken up" not in done.stdout
    assert outcome(tmp_path / "r") == wanted
    assert not [n for n in left(tmp_path / "r") if "checkpoint" in n or n.endswith(".tmp")]


@pytest.mark.long
@pytest.mark.parametrize("to", ["process", "group"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_by_its_number_and_nothing_is_lost(name, to, whole, tmp_path):
    """To the process alone, as by kill; to its whole group, as by a terminal or a scheduler."""
    settings, wanted = whole
    process = started(command(settings, tmp_path / "r"), until="epoch", delay=0.3)
    others = below(process.pid)
    assert others
    (process.send_signal if to == "process" else lambda n: os.killpg(process.pid, n))(
        signal.Signals[name]
    )
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(70) == 128 + signal.Signals[name]
    assert "Traceback" not in said
    assert "stopping 1 run, which the next start takes up" in said
    assert "harness: stopped; the same command goes on where it was" in said
    assert all_gone(others)
    there = left(tmp_path / "r")
    assert len(there) == 2, there
    assert there[0].startswith("seed-0.checkpoint")
    assert there[1].startswith("seed-0.checkpoint-")
    before = position(tmp_path / "r")
    assert 0 < before["epoch"] < EPOCHS
    done = subprocess.run(
        command(settings, tmp_path / "r"), capture_output=True, text=True, check=True
    )
    assert "not taken up" not in done.stdout
    assert outcome(tmp_path / "r") == wanted


def position(results):
    """What a checkpoint says of itself."""
    (file,) = (results / "runs").rglob("seed-0.checkpoint")
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["about"])


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.5, 1.0, 2.0, 4.0])
def test_a_second_ctrl_c_ends_it_at_once_whenever_it_comes(delay, whole, tmp_path):
    settings, _ = whole
    process = subprocess.Popen(
        command(settings, tmp_path / "r"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear,
    )  # fmt: skip
    time.sleep(delay)
    others = below(process.pid)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) in (130, -signal.SIGINT), said  # before anything was imported
    assert "Traceback" not in said, said
    assert all_gone(others)


@pytest.mark.long
def test_a_halt_changes_nothing(whole, tmp_path):
    settings, wanted = whole
    process = started(command(settings, tmp_path / "r"), until="epoch", delay=0.2)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGCONT)
    process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 0
    assert outcome(tmp_path / "r") == wanted


def workers_of(process):
    return [p for child in below(process.pid) for p in below(child)]


def killed(process, how, times=1):
    """End its one worker by a signal, so many times, once it is there; what it said, its exit."""
    before = []
    for _ in range(times):
        while not (there := [p for p in workers_of(process) if p not in before]):
            time.sleep(0.02)
            assert process.poll() is None
        time.sleep(0.3)
        os.kill(there[0], signal.Signals[how])
        before += there
    said = process.stderr.read()
    process.stderr.close()
    return said, process.wait(60)


@pytest.mark.long
def test_a_worker_that_is_killed_once_is_replaced(whole, tmp_path):
    settings, wanted = whole
    arguments = command(settings, tmp_path / "r", "--checkpoint-minutes", "0.001")
    said, code = killed(started(arguments, until="epoch", delay=0.3), "SIGKILL")
    assert code == 0, said
    assert outcome(tmp_path / "r") == wanted


@pytest.mark.long
@pytest.mark.parametrize(("how", "times"), [("SIGKILL", 2), ("SIGTERM", 1)])
def test_a_worker_that_is_killed_is_named_with_what_fits(how, times, whole, tmp_path):
    settings, wanted = whole
    arguments = command(settings, tmp_path / "r", "--checkpoint-minutes", "0.001")
    said, code = killed(started(arguments, until="epoch", delay=0.3), how, times)
    assert code == 1
    assert "Traceback" not in said
    if how == "SIGKILL":
        assert "ended by signal SIGKILL (out of memory?); a run takes about 0." in said
        assert "a smaller batch_size" in said
    else:
        assert "told to end by SIGTERM; the next start takes it up where it is" in said
    subprocess.run(arguments, capture_output=True, check=True)
    assert outcome(tmp_path / "r") == wanted
    assert "seed-0.failed.json" not in left(tmp_path / "r")

"""The kinds of faults: each does one to a start, and counts what became of it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from faults.ground import every_file
from faults.starts import records, send, trainings

STOPPED = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}


def kill(ground, tally, times):
    """SIGKILL of the main process at a random moment; then of the next start, until it is done."""
    results = ground.fresh()
    for _ in range(times):
        one, before = ground.start(results), trainings(results)
        ground.moment(one)
        done = one.process.poll() is not None
        tally.phases[one.phase] += 1
        send(one.process.pid, signal.SIGKILL)
        ground.ended(one, tally, expected=(0, -9))
        ground.look(results, tally)
        after = trainings(results)
        tally.twice += sum(after.get(name) != made for name, made in before.items())
        tally.tried += 1
        if done or len(records(results)) == len(ground.records):
            ground.complete(results, tally)
            results = ground.fresh()
    ground.complete(results, tally)


def each(once):
    """Do a fault so often, each to a study of its own, which the next start has to complete."""

    def fault(ground, tally, times):
        for _ in range(times):
            results = ground.fresh()
            once(ground, tally, results)
            ground.complete(results, tally)
            tally.tried += 1

    return fault


@each
def kill_worker(ground, tally, results):
    """SIGKILL of a random child process: its run is tried once more, by this start or the next."""
    one = ground.start(results)
    ground.moment(one)
    if family := [p for p in one.family() if p != one.process.pid]:
        send(ground.random.choice(family), signal.SIGKILL)
        tally.phases[one.phase] += 1
    ground.ended(one, tally, expected=(0, 1))


def signalled(name, *, again=False):
    """A signal that asks for an end: the exit code says which, and the next start completes."""

    @each
    def fault(ground, tally, results):
        one = ground.start(results)
        ground.moment(one)
        tally.phases[one.phase] += 1
        number = getattr(signal, name)
        send(one.process.pid, number)
        if again:
            time.sleep(ground.random.uniform(0, 0.5))
            send(one.process.pid, number)
        ground.ended(one, tally, expected=(0, STOPPED[name], -number))
        ground.look(results, tally)

    return fault


@each
def stop_and_continue(ground, tally, results):
    """SIGSTOP of the whole family, SIGCONT two seconds later: nothing happens."""
    one = ground.start(results)
    ground.moment(one)
    family = one.family()
    for pid in family:
        send(pid, signal.SIGSTOP)
    time.sleep(2)
    for pid in family:
        send(pid, signal.SIGCONT)
    ground.ended(one, tally)


def together(starts):
    """Several starts at once on one folder of results: every training is made once."""

    @each
    def fault(ground, tally, results):
        begun = [ground.start(results) for _ in range(starts)]
        trained = 0
        for one in begun:
            one.wait()
            trained += said_trained(one.text)
            ground.ended(one, tally)
        expected = len(trainings(results))
        tally.twice += abs(trained - expected)
        if trained != expected:
            tally.notes.append(f"{trained} trainings said, {expected} there")

    return fault


@each
def one_of_two_killed(ground, tally, results):
    """Two starts, one killed at a random moment: the other takes its claims over and completes."""
    one, other = ground.start(results), ground.start(results)
    ground.moment(one)
    tally.phases[one.phase] += 1
    send(one.process.pid, signal.SIGKILL)
    ground.ended(one, tally, expected=(0, -9))
    ground.ended(other, tally)
    there = records(results)
    tally.lost += len(ground.records.keys() - there.keys())


def damaged(change):
    """A file of a finished study is changed, each kind in turn: it is made anew, or named."""

    def fault(ground, tally, times):
        for _ in range(times):
            results = ground.fresh()
            shutil.copytree(ground.folder / "whole", results)
            kinds = every_file(results)
            kinds.pop("other", None)
            kind = sorted(kinds)[tally.tried % len(kinds)]  # after those that were tried before
            tally.phases[kind] += 1
            file = ground.random.choice(kinds[kind])
            change(ground.random, file)
            if kind.startswith("features"):  # which are looked at only where there is training
                for path in (results / "runs").rglob("seed-*"):
                    path.unlink()
            one = ground.start(results)
            ground.ended(one, tally, expected=(0, 2))
            ground.complete(results, tally)
            tally.tried += 1

    return fault


def truncate(random, file):
    os.truncate(file, random.randrange(file.stat().st_size))


def flip(random, file):
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def full_disk(ground, tally, times):
    """A disk that fills up at some point, and then has room: the next start completes."""
    used = sum(p.stat().st_size for p in (ground.folder / "whole").rglob("*") if p.is_file())
    for i in range(times):
        disk = ground.folder / "disk"
        disk.mkdir(exist_ok=True)
        size = max(4096, used * (i + 1) // (times + 1))
        mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk))
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            tally.notes.append("not tried: a small disk can't be mounted here")
            return
        try:
            results = disk / "results"
            one = ground.start(results)
            one.wait()
            tally.phases[one.phase] += 1
            ground.ended(one, tally, expected=(0, 1, 2))
            ground.look(results, tally)
            again = ("mount", "-o", f"remount,size={4 * used + 2**26}", str(disk))
            subprocess.run(again, check=True)
            ground.complete(results, tally, remove=False)
        finally:
            subprocess.run(("umount", "-l", str(disk)), check=True)
        tally.tried += 1


@each
def few_descriptors(ground, tally, results):
    """`ulimit -n 64`: it runs, or one line says what it needs."""
    one = ground.start(results, before=("prlimit", "--nofile=64:64"))
    ground.ended(one, tally, expected=(0, 1, 2))


@each
def vanished_data(ground, tally, results):
    """The data set disappears at a random moment, and is there again at the next start."""
    data, away = ground.folder / "data", ground.folder / "away"
    one = ground.start(results)
    ground.moment(one)
    tally.phases[one.phase] += 1
    data.rename(away)
    try:
        ground.ended(one, tally, expected=(0, 1, 2))
    finally:
        away.rename(data)
    ground.look(results, tally)


def clock_jumps(ground, tally, times):
    """The clock of one of two starts jumps by over a year, forward or back, as they run."""
    library = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"), None)
    if library is None:
        tally.notes.append("not tried: it needs libfaketime, as Debian's package faketime has it")
        return
    for i in range(times):
        results, clock = ground.fresh(), ground.folder / "clock"
        clock.write_text("+0d\n")
        jumping = {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        one, other = ground.start(results, environ=jumping), ground.start(results)
        ground.moment(one)
        tally.phases[one.phase] += 1
        clock.write_text(f"{'+-'[i % 2]}400d\n")
        ground.ended(one, tally)
        ground.ended(other, tally)
        ground.complete(results, tally)
        tally.tried += 1


def said_trained(text):
    """How many trainings a start says that it made, in its last line."""
    words = text.replace(",", " ").split()
    return int(words[words.index("trained") + 1]) if "trained" in words else 0


# Kind → (fault, how often).
KINDS = {
    "SIGKILL of the run": (kill, 200),
    "SIGKILL of one of its processes": (kill_worker, 20),
    "SIGTERM": (signalled("SIGTERM"), 20),
    "SIGINT": (signalled("SIGINT"), 20),
    "SIGINT twice": (signalled("SIGINT", again=True), 20),
    "SIGHUP": (signalled("SIGHUP"), 10),
    "SIGSTOP, then SIGCONT": (stop_and_continue, 5),
    "eight starts at once": (together(8), 3),
    "two starts at once": (together(2), 10),
    "two starts, one killed": (one_of_two_killed, 10),
    "a file truncated": (damaged(truncate), 24),
    "a bit flipped": (damaged(flip), 24),
    "a full disk": (full_disk, 16),
    "64 open files at most": (few_descriptors, 2),
    "the data set vanishes": (vanished_data, 6),
    "a clock that jumps": (clock_jumps, 6),
}

"""The kinds of faults: each does one to a start, and counts what became of it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.ground import STAGES, every_file
from faults.starts import records, send, trainings

STOPPED = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}
ALL = "from its beginning"  # when there is no moment
DISKS = 16  # sizes of a disk, up to what a whole study takes


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        once: does it to a start on a folder of results; returns what was going on, empty where it
            found nothing to disturb, None where it can't be tried here.
        times: how often it is done.
        in_a_row: whether the next one is done to the start that has to complete the study, until
            every run is recorded.
    """

    once: Callable
    times: int
    in_a_row: bool = False

    def attempt(self, ground, tally, times):
        """Do it so often; the next start has to complete the study."""
        results, wanted = ground.fresh(), tally.tried + times
        for _ in range(2 * times):  # what finds nothing to disturb is done again
            phase = self.do(ground, tally, results)
            if phase is None:
                return
            if not (self.in_a_row and phase and len(records(results)) < len(ground.records)):
                ground.complete(results, tally)
                results = ground.fresh()
            if tally.tried == wanted:
                break
        if results.exists():
            ground.complete(results, tally)

    def do(self, ground, tally, results):
        """Do it once, and count that."""
        phase = self.once(ground, tally, results)
        if phase:
            tally.tried += 1
            tally.phases[phase] += 1
        elif phase is not None:
            tally.missed += 1
        return phase


def kill(ground, tally, results, among=tuple(STAGES)):
    """SIGKILL of the main process at a random moment."""
    one, before = ground.start(results), trainings(results)
    phase = ground.moment(one, among)
    send(one.process.pid, signal.SIGKILL)
    ground.ended(one, tally, expected=(0, -9))
    ground.look(results, tally)
    after = trainings(results)
    tally.twice += sum(after.get(name) != made for name, made in before.items())
    return phase


def kill_reporting(ground, tally, results):
    """SIGKILL of a start that has nothing to do but its pages."""
    shutil.copytree(ground.whole, results)
    shutil.rmtree(results / "reports")
    return kill(ground, tally, results, among=("pages",))


def kill_worker(ground, tally, results):
    """SIGKILL of a random child process: its run is tried once more, by this start or the next."""
    one = ground.start(results)
    among = [stage for stage in STAGES if stage != "pages"]  # which the main process makes
    phase = ground.moment(one, among, before="pages")
    if phase and (family := [p for p in one.family() if p != one.process.pid]):
        send(ground.random.choice(family), signal.SIGKILL)
    else:
        phase = ""
    ground.ended(one, tally, expected=(0, 1))
    return phase


def signalled(name, *, again=False):
    """A signal that asks for an end: the exit code says which, and the next start completes."""

    def once(ground, tally, results):
        one = ground.start(results)
        phase = ground.moment(one)
        number = getattr(signal, name)
        send(one.process.pid, number)
        if again:
            time.sleep(ground.random.uniform(0, 0.5))
            send(one.process.pid, number)
        ground.ended(one, tally, expected=(0, STOPPED[name], -number))
        ground.look(results, tally)
        return phase

    return once


def stop_and_continue(ground, tally, results):
    """SIGSTOP of the whole family, SIGCONT two seconds later: nothing happens."""
    one = ground.start(results)
    phase = ground.moment(one)
    family = one.family()
    send_all(family, signal.SIGSTOP)
    time.sleep(2)
    send_all(family, signal.SIGCONT)
    ground.ended(one, tally)
    return phase


def stop_for_long(ground, tally, results):
    """SIGSTOP in a training, until another start has taken it over and completed the study."""
    one = ground.start(results)
    if not (phase := ground.moment(one, ("training",), before="tables")):
        ground.ended(one, tally)
        return phase
    family = one.family()
    send_all(family, signal.SIGSTOP)
    try:
        ground.ended(ground.start(results), tally)
        there = trainings(results)
        tally.lost += len(ground.records.keys() - records(results).keys())
    finally:
        send_all(family, signal.SIGCONT)
    ground.ended(one, tally)
    after = trainings(results)
    tally.twice += sum(after.get(name) != made for name, made in there.items())
    return phase


def together(starts):
    """Several starts at once on one folder of results: every training is made once."""

    def once(ground, tally, results):
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
        return ALL

    return once


def one_of_two_killed(ground, tally, results):
    """Two starts, one killed at a random moment: the other takes its claims over and completes."""
    one, other = ground.start(results), ground.start(results)
    phase = ground.moment(one)
    send(one.process.pid, signal.SIGKILL)
    ground.ended(one, tally, expected=(0, -9))
    ground.ended(other, tally)
    tally.lost += len(ground.records.keys() - records(results).keys())
    return phase


def damaged(change):
    """A file of a finished study is changed, each kind in turn: it is made anew, or named."""

    def once(ground, tally, results):
        shutil.copytree(ground.whole, results)
        kinds = every_file(results)
        kinds.pop("other", None)
        kind = sorted(kinds)[tally.tried % len(kinds)]  # after those that were tried before
        change(ground.random, ground.random.choice(kinds[kind]))
        if kind.startswith("features"):  # which are looked at only where there is training
            for path in (results / "runs").rglob("seed-*"):
                path.unlink()
        ground.ended(ground.start(results), tally, expected=(0, 2))
        return kind

    return once


def truncate(random, file):
    os.truncate(file, random.randrange(file.stat().st_size))


def flip(random, file):
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def full_disk(ground, tally, results):
    """A disk that fills up at some point; the next start is on one that has room."""
    used = sum(p.stat().st_size for p in ground.whole.rglob("*") if p.is_file())
    size = max(4096, used * (tally.tried % DISKS + 1) // DISKS)
    disk = ground.folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk))
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        tally.notes.append("not tried: a small disk can't be mounted here")
        return None
    try:
        one = ground.start(disk / "results")
        one.wait()
        full = "on its disk; got" in one.text
        ground.ended(one, tally, expected=(1, 2) if full else (0,))
        if (disk / "results").exists():
            ground.look(disk / "results", tally)
            shutil.copytree(disk / "results", results)
    finally:
        subprocess.run(("umount", "-l", str(disk)), check=True)
    return f"{100 * size // used} % of the room" if full else ""


def few_descriptors(ground, tally, results):
    """`ulimit -n 64`: it runs, or one line says what it needs."""
    one = ground.start(results, before=("prlimit", "--nofile=64:64"))
    ground.ended(one, tally, expected=(0, 1))
    return ALL


def vanished_data(ground, tally, results):
    """The data set disappears at a random moment, and is there again at the next start."""
    data, away = ground.folder / "data", ground.folder / "away"
    one = ground.start(results)
    phase = ground.moment(one)
    data.rename(away)
    try:
        ground.ended(one, tally, expected=(0, 1, 2))
    finally:
        away.rename(data)
    ground.look(results, tally)
    return phase


def clock_jumps(ground, tally, results):
    """The clock of one of two starts jumps by over a year, forward or back, as they run."""
    library = next(Path("/usr/lib").rglob("libfaketimeMT.so.1"), None)
    if library is None:
        tally.notes.append("not tried: it needs libfaketime, as Debian's package faketime has it")
        return None
    clock = ground.folder / "clock"
    clock.write_text("+0d\n")
    jumping = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    one, other = ground.start(results, environ=jumping), ground.start(results)
    phase = ground.moment(one)
    clock.write_text(f"{'+-'[tally.tried % 2]}400d\n")
    ground.ended(one, tally)
    ground.ended(other, tally)
    return phase


def send_all(family, number):
    for pid in family:
        send(pid, number)


def said_trained(text):
    """How many trainings a start says that it made, in its last line."""
    words = text.replace(",", " ").split()
    return int(words[words.index("trained") + 1]) if "trained" in words else 0


KINDS = {
    "SIGKILL of the run": Kind(kill, 200, in_a_row=True),
    "SIGKILL as it reports": Kind(kill_reporting, 20),
    "SIGKILL of one of its processes": Kind(kill_worker, 20),
    "SIGTERM": Kind(signalled("SIGTERM"), 20),
    "SIGINT": Kind(signalled("SIGINT"), 20),
    "SIGINT twice": Kind(signalled("SIGINT", again=True), 20),
    "SIGHUP": Kind(signalled("SIGHUP"), 10),
    "SIGSTOP, then SIGCONT": Kind(stop_and_continue, 5),
    "SIGSTOP until it is taken for dead": Kind(stop_for_long, 3),
    "eight starts at once": Kind(together(8), 3),
    "two starts at once": Kind(together(2), 10),
    "two starts, one killed": Kind(one_of_two_killed, 10),
    "a file truncated": Kind(damaged(truncate), 24),
    "a bit flipped": Kind(damaged(flip), 24),
    "a full disk": Kind(full_disk, DISKS),
    "64 open files at most": Kind(few_descriptors, 2),
    "the data set vanishes": Kind(vanished_data, 6),
    "a clock that jumps": Kind(clock_jumps, 6),
}

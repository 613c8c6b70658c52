"""Claims: of many that try one has the work, the dead lose it, and what they left is removed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from refused import REASONS, refuse

from harness import claims, heartbeat
from harness.claims import OLD, RESULTS, Claim, Claims, TakenOver
from harness.errors import InputError, RunFailed, no_room
from harness.files import temporary, token, written_whole
from harness.heartbeat import LIMIT, PERIOD, Heartbeats, holders

A, B, C = (letter * 16 for letter in "abc")


class Clock:
    """Stands for a machine's clock, moved by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def of(folder, token, clock=time.monotonic):
    return Claims(folder, RESULTS, token=token, clock=clock)


def die(folder, token, *work, **said):
    """Leave what a start leaves that is killed on another machine."""
    start = of(folder, token)
    there = {"host": "elsewhere", "process": 1} | said
    start.signs.say(**there)
    start.signs.beat()
    return [start.take(name) for name in work]


def watch(start, token, seconds, clock):
    """Look as often as a start does by itself."""
    for _ in range(int(seconds / PERIOD)):
        start.signs.is_dead(token)
        clock.now += PERIOD
    return start.signs.is_dead(token)


def test_what_one_holds_no_other_takes(tmp_path):
    with of(tmp_path, A) as a, of(tmp_path, B) as b:
        claim = a.take("w")
        assert (b.take("w"), a.take("w")) == (None, None)
        assert b.holder("w").host == a.signs.said.host
        assert (b.taken(), b.take("other").work) == ({"w"}, "other")
        a.release(claim)
        assert b.take("w").is_held()
    assert [p.name for p in (tmp_path / "claims").iterdir()] == []


def test_the_dead_are_known_by_watching_alone(tmp_path):
    """No clock is compared: the other machine's may say anything."""
    die(tmp_path, A, "w", started="2999-01-01T00:00:00+00:00")
    os.utime(tmp_path / "claims" / f"{A}.json", (1, 1))
    clock = Clock()
    b = of(tmp_path, B, clock)
    assert b.take("w") is None
    assert not watch(b, A, LIMIT - PERIOD, clock)
    assert b.take("w") is None
    assert watch(b, A, PERIOD, clock)
    claim = b.take("w")
    assert claim.file.name.split(".")[1] == "1"
    b.release(claim)
    assert list((tmp_path / "claims").glob("*.claim")) == []  # those below went too


def test_a_sign_that_moves_is_alive_whatever_the_clocks_say(tmp_path):
    die(tmp_path, A, "w")
    clock = Clock()
    b = of(tmp_path, B, clock)
    for moment in (9e9, 5, 7e9, 1):  # a clock that jumps
        assert not watch(b, A, LIMIT - PERIOD, clock)
        os.utime(tmp_path / "claims" / f"{A}.json", (moment, moment))


def test_who_stood_still_itself_does_not_take_others_for_dead(tmp_path):
    """Both stopped, as a container is: the watcher wakes first and finds an hour gone."""
    die(tmp_path, A, "w")
    clock = Clock()
    b = of(tmp_path, B, clock)
    assert b.take("w") is None
    clock.now += 3600
    assert b.take("w") is None


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(tmp_path):
    script = (
        "import sys; from pathlib import Path; from harness.claims import Claims\n"
        "c = Claims(Path(sys.argv[1])); c.__enter__(); c.take('w'); print(flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.readline()
    with of(tmp_path, B) as b:
        assert b.take("w") is None
        process.kill()
        if Path("/proc/self/stat").exists():
            while b.take("w") is None:  # not even waited for: a zombie counts as gone
                assert process.poll() in (None, -9)
        process.communicate()


def test_a_number_of_a_process_says_nothing_on_another_machine(tmp_path):
    here = heartbeat.this_process()
    for change in ({"boot": "x"}, {"space": "pid:[0]"}, {"host": "x"}, {"born": ""}):
        said = msgspec.structs.replace(here, **{"process": 2**30, **change})
        assert not said.is_gone()
    assert not here.is_gone()
    assert not here.born or msgspec.structs.replace(here, process=2**30).is_gone()
    assert not here.born or msgspec.structs.replace(here, born="1").is_gone()  # a new one's number


@pytest.mark.parametrize("reason", ["EACCES", "ENOENT", "EMFILE"])
def test_a_process_that_is_hidden_is_not_gone(monkeypatch, reason):
    """As those of other users are by hidepid, 1 or 2; and any, where no file can be opened."""
    here = heartbeat.this_process()
    for process in (here.process, 2**22 + 1, 2**70):  # the last ones are nobody's
        refuse(monkeypatch, Path(f"/proc/{process}/stat"), getattr(errno, reason))
    assert not here.is_gone()
    for nobody in (2**22 + 1, 2**70):
        gone = msgspec.structs.replace(here, process=nobody).is_gone()
        assert gone or not here.born


@pytest.mark.parametrize("reason", REASONS)
def test_a_sign_that_may_not_be_read_is_watched_like_any(tmp_path, monkeypatch, reason):
    die(tmp_path, A, "w")
    sign = tmp_path / "claims" / f"{A}.json"
    refuse(monkeypatch, sign, getattr(errno, reason))
    clock = Clock()
    b = of(tmp_path, B, clock)
    for moment in (1, 2, 3):
        assert not watch(b, A, LIMIT - PERIOD, clock)
        os.utime(sign, (moment, moment))
    assert not watch(b, A, LIMIT - PERIOD, clock)
    assert watch(b, A, PERIOD, clock)  # which moves no more


def test_nobody_is_dead_as_the_system_does_not_answer(tmp_path, monkeypatch):
    die(tmp_path, A, "w")
    clock = Clock()
    b = of(tmp_path, B, clock)

    def answer(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Heartbeats, "stat", answer)
    assert not watch(b, A, 10 * LIMIT, clock)


@pytest.mark.parametrize("reason", REASONS)
def test_a_claim_that_may_not_be_read_is_not_lost_and_not_free(tmp_path, monkeypatch, reason):
    """It is nobody's guess who holds it, however long one waits; and others are not concerned."""
    (claim,) = die(tmp_path, A, "w")
    clock = Clock()
    b = of(tmp_path, B, clock)
    refuse(monkeypatch, claim.file, getattr(errno, reason))
    watch(b, A, LIMIT, clock)
    watch(b, claim.file.name, LIMIT, clock)
    for look in (lambda: b.take("w"), claim.is_held, claim.check):
        with pytest.raises((InputError, RunFailed), match=f"{claim.file.name}: ") as error:
            look()
        assert not isinstance(error.value, TakenOver)
    assert isinstance(error.value, InputError)  # a training that fails by RunFailed fails for good
    if reason == "EACCES":
        b.clean()
        assert b.taken() == set()
        assert b.take("other").is_held()
    assert claim.file.exists()


@pytest.mark.parametrize("dead", [0, 1, 3])
def test_of_many_that_take_over_exactly_one_has_it(tmp_path, monkeypatch, dead):
    """Whatever the generation, round after round; none is held twice at any moment."""
    monkeypatch.setattr(Heartbeats, "is_dead", lambda self, token: token.startswith("dead"))
    for n in range(dead):
        of(tmp_path, f"dead{n:012}").take("w")
    starts = [of(tmp_path, f"{n:016}") for n in range(8)]
    held, most, took = set(), [], []
    ready = threading.Barrier(len(starts))

    def work(start):
        ready.wait()
        for _ in range(12):
            while (claim := start.take("w")) is None:
                time.sleep(0)
            held.add(start.token)
            most.append(len(held))
            took.append(claim.is_held())
            held.discard(start.token)
            start.release(claim)

    with ThreadPoolExecutor(len(starts)) as pool:
        list(pool.map(work, starts))
    assert set(most) == {1}
    assert took == [True] * 96


def test_a_slow_decision_does_not_stand(tmp_path, monkeypatch):
    """Another took over and gave back, a third began: what was seen is so no more."""
    monkeypatch.setattr(Heartbeats, "is_dead", lambda self, token: token == A)
    of(tmp_path, A).take("w")
    slow, fast, third = (of(tmp_path, t) for t in (B, C, "d" * 16))
    create, taken = claims.create, []

    def later(file, content):
        monkeypatch.setattr(claims, "create", create)
        fast.release(fast.take("w"))
        taken.append(third.take("w"))
        return create(file, content)

    monkeypatch.setattr(claims, "create", later)
    assert slow.take("w") is None
    assert taken[0].is_held()


def test_who_was_taken_for_dead_notices_and_removes_nothing_of_the_others(tmp_path):
    clock = Clock()
    (old,) = die(tmp_path, A, "w")
    slept = of(tmp_path, A)
    slept._held.append(old)
    b = of(tmp_path, B, clock)
    watch(b, A, LIMIT, clock)
    new = b.take("w")
    assert (old.is_held(), new.is_held()) == (False, True)
    slept.release(old)
    assert new.is_held()
    assert not of(tmp_path, C).take("w")


def test_a_claim_that_says_nothing_is_taken_over_in_time(tmp_path):
    clock = Clock()
    b = of(tmp_path, B, clock)
    claim = b.take("w")
    b.release(claim)
    claim.file.write_bytes(b"")  # made where there are no links, and killed before it was written
    assert b.take("w") is None
    watch(b, claim.file.name, LIMIT, clock)
    assert b.take("w").is_held()


def test_without_links_a_claim_is_as_exclusive(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(PermissionError()))
    with of(tmp_path, A) as a, of(tmp_path, B) as b:
        assert a.take("w").is_held()
        assert b.take("w") is None


def test_free_work_comes_first_and_what_others_hold_when_they_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PAUSE", 0.001)
    with of(tmp_path, A) as a, of(tmp_path, B) as b:
        first, waited = a.take("1"), []

        def waiting(work, holder):
            waited.append((work, holder is not None))
            if len(waited) == 3:
                a.release(first)

        assert list(b.each("123", waiting)) == ["2", "3", "1"]
        assert waited == [("1", True)] * 3


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path):
    runs = tmp_path / "runs" / "v" / "d" / "c"
    names = (runs / "seed-0.json", tmp_path / "reports" / "a.html")
    with of(tmp_path, A) as a, of(tmp_path, B) as b:
        written = {}
        for start in (A, B, C):
            for name in names:
                path = temporary(name)
                path = path.with_name(path.name.replace(token(), start))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                written[path] = start
        os.link(a.take("w").file, tmp_path / "claims" / "kept")
        a.signs.say(born="1")  # as if the process were gone
        a.signs.beat()
        if not a.signs.said.is_gone():
            pytest.skip("this system does not say which processes are gone")
        assert b.clean() == 3
        assert {written[p] for p in written if p.exists()} == {B, C}  # nothing is known of C
        hour = (tmp_path / "claims" / f"{B}.json").stat().st_mtime - OLD - 1
        for path, start in written.items():
            if start != A:
                os.utime(path, (hour, hour))
        assert b.clean() == 2
        assert {written[p] for p in written if p.exists()} == {B}
        assert list((tmp_path / "claims").glob("*.claim")) == []


@pytest.mark.parametrize("whole", [True, False])
def test_the_first_sign_that_a_killed_start_was_writing_goes_if_it_says_whose_it_is(
    tmp_path, whole
):
    here = heartbeat.this_process()
    gone = msgspec.structs.replace(here, process=2**30)
    if not gone.is_gone():
        pytest.skip("this system does not say which processes are gone")
    b = of(tmp_path, B)
    b.folder.mkdir()
    written = {}
    for start, said in ((A, gone), (C, here)):
        path = temporary(b.signs.file(start))
        written[start] = path.with_name(path.name.replace(token(), start))
        written[start].write_bytes(msgspec.json.encode(said)[: None if whole else 9])
    with b:
        assert written[A].exists() is not whole  # half a sign does not say whose it is
        assert written[C].exists()
        assert b.signs.tokens() == [B]


def test_two_that_clean_at_once_do_not_hinder_each_other(tmp_path, monkeypatch):
    die(tmp_path, A)
    left = temporary(tmp_path / "runs" / "v" / "d" / "c" / "seed-0.json")
    left = left.with_name(left.name.replace(token(), A))
    (left / "inside").mkdir(parents=True)
    monkeypatch.setattr(Heartbeats, "is_dead", lambda self, token: token == A)
    rmtree, unlink = shutil.rmtree, Path.unlink

    def slower(path, *args, **kwargs):
        rmtree(path)  # as the other start does
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", slower)
    assert of(tmp_path, B).clean() == 1
    assert not left.exists()
    left.touch()

    def forbidden(path, missing_ok=False):
        if path == left:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", forbidden)
    die(tmp_path, A)
    assert of(tmp_path, B).clean() == 0  # another user's, in a folder of everybody's


def test_a_folder_that_goes_while_one_cleans_is_no_error(tmp_path, monkeypatch):
    """Features are renamed into their place by one start as another looks for what is left."""
    (tmp_path / ".features.tmp").mkdir()
    list_folder, asked = Path.iterdir, []

    def renamed(folder):
        asked.append(folder.name)
        if folder.name == ".features.tmp":
            folder.rename(tmp_path / "features")
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", renamed)
    with Claims(tmp_path, ["*/.*.tmp"]):
        assert ".features.tmp" in asked
        assert (tmp_path / "features").is_dir()


def test_a_start_that_cannot_clean_is_not_known_to_live(tmp_path, monkeypatch):
    start, threads = of(tmp_path, A), threading.active_count()
    monkeypatch.setattr(start, "clean", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start.__enter__()
    assert list((tmp_path / "claims").iterdir()) == []
    assert threading.active_count() <= threads


def test_what_is_taken_over_meanwhile_is_done_again_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "PAUSE", 0.001)
    monkeypatch.setattr(Heartbeats, "is_dead", lambda self, token: token == A != self.token)
    with of(tmp_path, A) as a, of(tmp_path, B) as b:
        works, taken = [], []

        def waiting(*_):
            b.release(taken.pop())

        for work in a.each("12", waiting):
            works.append(work)
            if len(works) == 1:
                taken.append(b.take(work))
                with pytest.raises(TakenOver, match="took this work over"), a.still(work):
                    pass
                with pytest.raises(TakenOver), a.still(work):
                    raise FileNotFoundError  # what the other removed
            else:
                with a.still(work), a.still("nobody's"):
                    pass
        assert works == ["1", "2", "1"]


def test_a_full_disk_still_shows_that_one_lives(tmp_path, monkeypatch):
    signs = Heartbeats(tmp_path, A)
    signs.beat()
    before = signs._seen(A)
    os.utime(signs.file(A), (1, 1))
    beats = []

    def full(file, content):
        beats.append(file)
        raise no_room(file)  # as files.write_whole says it

    signs.begin()
    monkeypatch.setattr(heartbeat, "write_whole", full)
    with pytest.raises(RunFailed, match="the disk is full"):
        signs.beat()
    assert signs._seen(A) != before
    signs.end()
    monkeypatch.setattr(heartbeat, "PERIOD", 0.01)
    thread = threading.Thread(target=signs._go_on, daemon=True)
    signs._ended.clear()
    thread.start()
    while len(beats) < 4 and thread.is_alive():
        time.sleep(0.01)
    assert thread.is_alive()  # and goes on to show it
    signs._ended.set()
    thread.join()


def test_a_sign_is_written_again_where_somebody_took_it_away(tmp_path):
    signs = Heartbeats(tmp_path, A)
    signs.beat()
    signs.file(A).unlink()
    signs.say(study="kernels")
    signs.beat()
    assert [h.study for h in holders(tmp_path)] == ["kernels"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"process": "x"}', b"\xff\xfe"])
def test_a_damaged_sign_is_nobodys_and_is_watched_like_any(tmp_path, damage):
    die(tmp_path, A, "w")
    (tmp_path / "claims" / f"{A}.json").write_bytes(damage)
    b = of(tmp_path, B)
    assert list(holders(tmp_path / "claims")) == []
    assert (b.take("w"), b.holder("w")) == (None, None)


def test_two_processes_of_one_number_write_different_temporary_files(tmp_path):
    script = (
        "import os, sys; os.getpid = lambda: 7\n"
        "from pathlib import Path; from harness.files import temporary\n"
        "print(temporary(Path('a')), temporary(Path('a')))"
    )
    names = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len({name for ran in names for name in ran.stdout.split()}) == 4


def test_a_worker_signs_as_its_start(tmp_path, monkeypatch):
    from harness import files

    monkeypatch.setattr(files, "_token", [])
    files.sign_as(C)
    with written_whole(tmp_path / "a") as path:
        path.touch()
        assert f".{C}-" in path.name


def test_a_claim_says_what_it_is_of(tmp_path):
    with of(tmp_path, A) as a:
        claim = a.take("runs/|<$(x)>\n/é")
        assert json.loads(claim.file.read_text())["work"] == claim.work
        assert claim == Claim(claim.file, claim.work, A)

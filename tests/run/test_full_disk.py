"""Real disks that are full or can only be read: one line, nothing half-written, tried again."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest
import torch
from handmade import record
from tiny import TINY, Here

from harness.cli.main import main
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.errors import InputError, RunFailed
from harness.experiment.place import Place
from harness.experiment.store import read_records, write_failure, write_record
from harness.features.cache import FeatureCache
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.files import create, write_whole
from harness.heartbeat import this_process
from harness.methods.contract import Energies
from harness.run.history import load_energies, writing_energies
from harness.run.kept import Kept, kept_of, read_tensors, write_tensors
from harness.run.plan import make_plan
from harness.run.sweep import run_study

SOURCE = {"data": "d", "weights": "w", "arithmetic": "cpu float32"}


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk, *, left):
    """Leave so many bytes of the disk."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - left))
    yield
    filler.unlink()


@contextmanager
def limited(most):
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def place(results):
    return Place.of(results, TINY, "d", "a", 0)


def energies(results):
    with writing_energies(place(results).energies, **SOURCE) as history:
        history.energies.save(1, [Energies(images=torch.ones(20_000))])
        history.loss.append(1.0)
    assert load_energies(place(results).energies, **SOURCE, images=20_000)


def weights(results):
    file, kept = place(results).weights, kept_of(record(TINY, "a", 0, 0.9), ((1, 2, 3),))
    write_tensors(file, kept, {"a": torch.ones(20_000), "b": torch.tensor(3)})
    assert read_tensors(file, Kept)[1]["a"].sum() == 20_000


WRITERS = {
    "record": lambda results: write_record(
        place(results), record(TINY.replace(), "a" * 20_000, 0, 0.9)
    ),
    "failure": lambda results: write_failure(place(results), "x" * 20_000),
    "energies": energies,
    "weights": weights,
    "page": lambda results: write_whole(results / "reports" / "a.html", "x" * 20_000),
}


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("how", ["full", "limit"])
def test_what_does_not_fit_is_one_line_and_leaves_nothing(kind, how, request, tmp_path):
    results = request.getfixturevalue("disk") if how == "full" else tmp_path
    full = filled(results, left=8192) if how == "full" else limited(4096)
    with full:
        before = files(results)
        with pytest.raises(RunFailed, match=r"expected .*room on its disk; got .* MiB free") as e:
            WRITERS[kind](results)
        assert files(results) == before
    assert "\n" not in str(e.value)
    WRITERS[kind](results)
    assert len(files(results)) == 1


def test_a_claim_that_does_not_fit_leaves_none_where_there_are_no_links(tmp_path, monkeypatch):
    def link(*_):  # the disk is full by then
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY))
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    with limited(4096), pytest.raises(RunFailed, match=r"a\.claim: expected .*room on its disk"):
        create(tmp_path / "a.claim", b"12345678")
    assert files(tmp_path) == []


@pytest.mark.parametrize("how", ["full", "limit", "late"])
def test_features_that_do_not_fit_leave_nothing(how, disk, data):
    category = MvtecAd(data).load("left")
    extractor = Extractor.load(TINY.feature_spec)
    cache, key = FeatureCache(disk / "cache"), FeatureKey.of(extractor, category)
    late = {}

    def fill_up(images):  # after the room was counted, as by another process
        if how == "late" and not late:
            late["filled"] = filled(disk, left=4096)
            late["filled"].__enter__()

    full = filled(disk, left=2**18) if how == "full" else limited(2**16 if how == "limit" else -1)
    with full, pytest.raises(RunFailed, match=r"expected .*room on its disk"):
        cache.ensure(key, extractor, category, progress=fill_up)
    assert files(disk / "cache") == []
    (disk / "filler").unlink(missing_ok=True)
    assert len(cache.ensure(key, extractor, category).train) == 2
    assert cache.open(key)


@pytest.mark.parametrize("left", [2**16, 600_000, 700_000])
def test_a_study_on_a_full_disk_goes_on_when_there_is_room(left, disk, study, settings):
    """Whatever is the first that does not fit."""
    only = replace(study, vary=({},))
    settings = replace(settings, results=disk, categories=("left",), speed=False)
    said = []
    with filled(disk, left=left):
        try:
            outcome = run_study(make_plan(only, settings), settings, said.append, executor=Here())
            reasons = [reason for _, reason in outcome.failed]
        except RunFailed as error:
            reasons = [str(error)]
        assert reasons
        assert all("room on its disk" in reason and "\n" not in reason for reason in reasons)
        list(read_records(disk))  # those that are there are whole
        assert [f for f in files(disk) if ".tmp" in f] == []
    again = run_study(make_plan(only, settings), settings, said.append, executor=Here())
    assert again.failed == []
    assert again.recorded + again.already == 2
    assert len(list(read_records(disk))) == 2


def test_a_folder_that_can_only_be_read_is_named(disk, study, settings):
    only = replace(study, vary=({},), seeds=(0,))
    settings = replace(settings, results=disk, categories=("left",), speed=False)
    (disk / "cache").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises((InputError, RunFailed, OSError), match=r"Read-only") as error:
        run_study(make_plan(only, settings), settings, lambda text: None, executor=Here())
    assert str(disk) in str(error.value)


@pytest.mark.long  # a start of its own
def test_few_open_files_are_fewer_runs_at_a_time_and_a_line(tmp_path, data):
    study = tmp_path / "few.py"
    study.write_text(
        "from harness.experiment.study import Study\n"
        "from harness.experiment.variant import Variant\n"
        "BASE = Variant(backbone='tf_efficientnet_lite0.pypi_in1k', image_size=64, taps=(1,),\n"
        "               flow_steps=1, epochs=1)\n"
        "STUDY = Study(name='few', asks='?', bases={'base': BASE}, vary=({},), seeds=range(14))\n"
    )
    command = [
        *(sys.executable, "-m", "harness", "run", str(study), "--data", str(data)),
        *("--results", str(tmp_path / "r"), "--no-speed", "--jobs", "14", "--category", "left"),
    ]
    limit = (48, 48)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert "runs at a time, not 14: the limit of open files has room for no more" in done.stdout
    assert "trained 14, took up 0, recorded 14" in done.stdout


def test_a_data_root_that_vanishes_is_a_line_for_each_run(study, settings, capsys):
    class Gone(Here):
        def run(self, tasks):
            settings.data.rename(settings.data.with_name("elsewhere"))
            yield from super().run(tasks)

    only = replace(study, vary=({},))
    there = replace(settings, categories=("left",), speed=False)
    outcome = run_study(make_plan(only, there), there, lambda text: None, executor=Gone())
    assert len(outcome.failed) == 2
    for _, reason in outcome.failed:
        assert str(settings.data) in reason
        assert "expected a readable file" in reason
    settings.data.with_name("elsewhere").rename(settings.data)
    again = run_study(make_plan(only, there), there, lambda text: None, executor=Here())
    assert (again.recorded, again.failed) == (2, [])


def test_a_full_disk_is_freed_of_the_features_that_fill_it(disk, capsys):
    """A sign of life has no room there; where another start shows one, nothing is removed."""
    cache = FeatureCache(disk / "results" / "cache" / "features")
    for name, size in (("a" * 16, 3 * 2**20), ("b" * 16, 2**20)):
        (cache.folder / name).mkdir(parents=True)
        (cache.folder / name / "train-0.npy").write_bytes(bytes(size))
    sign = cache.claims.signs.file("0123456789abcdef")
    sign.parent.mkdir()
    sign.write_text("{}")
    clear = ["cache", "--clear", "--results", str(disk / "results")]
    with filled(disk, left=0):
        assert main(clear) == 1
        assert "of room on its disk" in capsys.readouterr().err
        assert len(list(cache.folder.glob("*/train-0.npy"))) == 2
        gone = msgspec.structs.replace(this_process(), process=2**22 + 1)
        sign.write_bytes(msgspec.json.encode(gone))  # of a start that was killed
        assert main(clear) == 0
    assert list(cache.folder.glob("*/train-0.npy")) == []
    assert "4.0 MiB" in capsys.readouterr().out

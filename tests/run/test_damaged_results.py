"""Every kind of file of a results folder × every kind of damage: named, and made anew."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from refused import refuse
from tiny import Here, write_category

from harness.cli.main import main
from harness.experiment.store import read_records
from harness.run import sweep
from harness.run.kept import Kept, read_tensors

STUDY = """
from harness.experiment.study import Study
from harness.experiment.variant import Variant

BASE = Variant(
    backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1, 2), flow_steps=1,
    epochs=2, batch_size=4, holdout=0.5, eval_every=1,
)
STUDY = Study(name="damaged", asks="?", bases={"base": BASE}, vary=({},), seeds=(0,))
"""
COMMANDS = {
    "plan": ["plan"],
    "run": ["run", "--no-speed", "--jobs", "1", "--keep"],
    "rescore": ["rescore"],
    "images": ["images"],
    "common": ["images", "--common", "RESULTS"],
    "best": ["best"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study that was run, with everything that it leaves."""
    folder = tmp_path_factory.mktemp("made")
    write_category(folder / "data" / "left", good=4, bad=2)
    (folder / "study.py").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "open_executor", lambda settings: Here())
        assert command(folder, "run") == 0
    record = next(folder.rglob("seed-0.json"))
    shutil.copy(record, record.with_name("before-0123-seed-0.json"))
    record.with_name("seed-0.failed.json").write_text(json.dumps({"reason": "once"}))
    return folder


@pytest.fixture
def there(made, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    shutil.copytree(made, tmp_path / "there", symlinks=True)
    return tmp_path / "there"


def command(folder, name):
    results = str(folder / "results")
    given = [results if a == "RESULTS" else a for a in COMMANDS[name]]
    given.insert(1, str(folder / "study.py"))
    return main([*given, "--data", str(folder / "data"), "--results", results])


def flip(file):
    content = bytearray(file.read_bytes())
    for at in range(len(content) // 2, len(content), max(1, len(content) // 7)):
        content[at] ^= 0x55
    file.write_bytes(content)


def replaced(file, make):
    file.unlink()
    make(file)


def edit(change):
    def damage(file):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


BYTES = {
    "nothing": lambda f: f.write_bytes(b""),
    "half": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "flipped": flip,
    "foreign": lambda f: f.write_text("a text"),
    "dangling": lambda f: replaced(f, lambda p: p.symlink_to("nowhere")),
}
HOLES = {
    "a hole": edit(lambda c: c["data"].pop("test")),
    "a wrong type": edit(lambda c: c["measured"].update(speed=[])),
    "another digest": edit(lambda c: c.update(digest="0" * 12)),
    "another seed": edit(lambda c: c.update(seed=7)),
    "another category": edit(lambda c: c.update(category="right")),
    "another data set": edit(lambda c: c.update(dataset="other")),
    "no schema": edit(lambda c: c.pop("schema")),
    "an old schema": edit(lambda c: c.update(schema=0)),
    "too few images": edit(lambda c: c["images"]["score"].pop()),
}


def energies(change):
    """Energies that load but do not fit, with right checksums."""

    def damage(file):
        with np.load(file) as npz:
            arrays = {name: npz[name] for name in npz.files}
        about = json.loads(str(arrays["about"]))
        arrays = change(arrays, about) or arrays
        np.savez(file, **arrays | {"about": np.array(json.dumps(about))})

    return damage


def few(arrays, about):
    return {k: a[:2] if k[0].isdigit() else a for k, a in arrays.items()}


def no_epochs(arrays, about):
    return {k: a for k, a in arrays.items() if not k[0].isdigit()}


def not_numbers(arrays, about):
    return {k: a * np.float32(np.nan) if k[0].isdigit() else a for k, a in arrays.items()}


UNFIT = {
    "too few images": energies(few),
    "no epochs": energies(no_epochs),
    "not numbers": energies(not_numbers),
    "another shape": energies(
        lambda arrays, about: {k: a[:, :1] if k[0] == "1" else a for k, a in arrays.items()}
    ),
    "too few losses": energies(lambda arrays, about: about.update(loss=[])),
    "losses that are none": energies(lambda arrays, about: about.update(loss="abc")),
}


def of(folder, pattern):
    (file,) = folder.rglob(pattern)
    return file


@pytest.mark.parametrize("damage", [*BYTES, *HOLES])
@pytest.mark.whole
def test_a_damaged_record_is_named_and_made_anew(there, capsys, damage):
    file = of(there, "seed-0.json")
    wanted = next(read_records(there / "results")).metrics
    (BYTES | HOLES)[damage](file)
    for name in ("plan", "images", "common", "best", "rescore", "run"):
        capsys.readouterr()
        code = command(there, name)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        if damage == "dangling":  # there is none
            continue
        assert f"{file}: expected" in printed.err, name
        assert code == (2 if name == "best" else 0)
        if name == "plan":
            assert "1 to run" in printed.out
    assert next(read_records(there / "results")).metrics == wanted
    assert command(there, "plan") == 0
    assert "0 to run" in capsys.readouterr().out


def test_a_record_of_a_newer_version_stays(there, capsys):
    file = of(there, "seed-0.json")
    edit(lambda c: c.update(schema=99, more=1))(file)
    before = file.read_bytes()
    for name in COMMANDS:
        assert command(there, name) == 2
        assert f"{file}: expected record schema 3; got 99" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", [*BYTES, *UNFIT])
def test_damaged_energies_are_made_anew(there, capsys, damage):
    record, file = of(there, "seed-0.json"), of(there, "seed-0.npz")
    wanted = next(read_records(there / "results"))
    (BYTES | UNFIT)[damage](file)
    assert command(there, "rescore") == 1
    assert f"expected its energies, of these images, in {file}" in capsys.readouterr().err
    record.unlink()
    assert command(there, "run") == 0
    if damage != "dangling":
        assert f"{file}: expected energies of this run" in capsys.readouterr().out
    (now,) = read_records(there / "results")
    assert (now.loss, now.images.score) == (wanted.loss, wanted.images.score)


@pytest.mark.parametrize("damage", BYTES)
def test_damaged_weights_are_made_anew(there, capsys, damage):
    file = of(there, "seed-0.safetensors")
    about, tensors = read_tensors(file, Kept)
    BYTES[damage](file)
    assert command(there, "run") == 0
    if damage != "dangling":
        assert f"{file}: expected" in capsys.readouterr().err
    now, made = read_tensors(file, Kept)
    assert now == about
    assert {name: t.tolist() for name, t in made.items()} == {
        name: t.tolist() for name, t in tensors.items()
    }


@pytest.mark.parametrize("kind", ["seed-0.gallery.npz", "seed-0.failed.json", "before-*.json"])
@pytest.mark.parametrize("damage", BYTES)
def test_what_a_report_reads_may_be_damaged(there, capsys, kind, damage):
    from harness.report import photos, sentences, tables
    from harness.report.selection import Selection
    from harness.studies import get_study

    file = of(there, kind)
    BYTES[damage](file)
    for name in COMMANDS:
        assert command(there, name) == 0, name
        err = capsys.readouterr().err
        assert "Traceback" not in err
        if name == "common" and kind.startswith("before") and damage != "dangling":
            assert f"left out: {file}: expected" in err
    study = get_study(str(there / "study.py"))
    (record,) = read_records(there / "results")
    selection = Selection(study, there / "results", record.dataset, ("left",))
    list(sentences.warnings(tables.runs(selection), selection))
    assert photos.shots(selection, record) or "gallery" in kind


@pytest.mark.parametrize(
    "kind", ["seed-0.json", "seed-0.npz", "seed-0.gallery.npz", "seed-0.safetensors"]
)
def test_a_folder_in_a_files_place_is_a_line(there, capsys, kind):
    file = of(there, kind)
    file.unlink()
    (file / "inside").mkdir(parents=True)
    if kind == "seed-0.npz":
        of(there, "seed-0.json").unlink()
    for name in COMMANDS:
        command(there, name)
        err = capsys.readouterr().err
        assert "Traceback" not in err
    assert [p.name for p in file.iterdir()] == ["inside"]


@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [
        ("seed-0.json", "EACCES", 2), ("seed-0.json", "EMFILE", 1), ("seed-0.npz", "EIO", 1),
        ("seed-0.npz", "EMFILE", 1), ("train-0.npy", "EACCES", 2), ("meta.json", "EMFILE", 1),
    ],
)  # fmt: skip
def test_what_may_not_be_read_stays_and_nothing_is_made_anew(
    there, capsys, monkeypatch, kind, reason, code
):
    if kind != "seed-0.json":
        of(there, "seed-0.json").unlink()
    file = of(there, kind)
    before = file.read_bytes(), file.stat().st_ino
    refuse(monkeypatch, file, getattr(errno, reason))
    assert command(there, "run") == code
    monkeypatch.undo()
    printed = capsys.readouterr()
    said = [line for line in (printed.out + printed.err).splitlines() if str(file) in line]
    assert os.strerror(getattr(errno, reason)) in said[0]
    assert "anew" not in printed.out + printed.err
    assert (file.read_bytes(), file.stat().st_ino) == before

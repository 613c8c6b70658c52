"""The file of energies: written as training goes on, whole or not there, read in chunks."""

import gc
import json
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch

from harness.methods.contract import Energies
from harness.run.energies import CHUNK, SavedEnergies
from harness.run.history import load_energies, writing_energies

SOURCE = {"data": "d", "weights": "w", "arithmetic": "cpu float32"}


def draw(images, seed, *, taps=2, own=True):
    generator = torch.Generator().manual_seed(seed)
    maps = [tuple(torch.rand(images, s, s, generator=generator) for _ in range(2)) for s in (4, 2)]
    return Energies(maps[:taps], torch.rand(images, generator=generator) if own else None)


def equal(one, two):
    assert len(one.taps) == len(two.taps)
    pairs = [*zip(one.taps, two.taps, strict=True), ((one.images,), (two.images,))]
    for a, b in pairs:
        for x, y in zip(a, b, strict=True):
            assert (x is y is None) or torch.equal(x, y)


def write(path, epochs):
    with writing_energies(path, **SOURCE) as history:
        for epoch, parts in epochs.items():
            history.energies.save(epoch, parts)
        history.loss += [1 / epoch for epoch in range(1, max(epochs) + 1)]
        history.holdout[max(epochs)] = 0.5
        history.bank_bytes = 7
    return history


@pytest.mark.parametrize("kind", [{}, {"own": False}, {"taps": 0}])
def test_what_is_written_is_read(tmp_path, kind):
    whole = {2: draw(2 * CHUNK + 30, 0, **kind), 10: draw(2 * CHUNK + 30, 1, **kind)}
    parts = {
        e: [w.rows(slice(i, i + 100)) for i in range(0, len(w), 100)] for e, w in whole.items()
    }
    written = write(tmp_path / "seed-0.npz", parts)
    read = load_energies(tmp_path / "seed-0.npz", **SOURCE)
    assert [p.name for p in tmp_path.iterdir()] == ["seed-0.npz"]
    for history in (written, read):  # the one that wrote goes on reading
        assert list(history.energies) == [2, 10]
        assert history.loss == [1 / epoch for epoch in range(1, 11)]
        assert (history.holdout, history.bank_bytes) == ({10: 0.5}, 7)
        for epoch, energies in whole.items():
            equal(history.energies[epoch], energies)
            assert [len(c) for c in history.energies.chunks(epoch)] == [300, 242]
            equal(history.energies.rows(epoch, [541, 3, 300]), energies.rows([541, 3, 300]))


def test_an_epoch_is_read_while_others_are_still_to_come(tmp_path):
    energies = [draw(5, e) for e in range(3)]
    with writing_energies(tmp_path / "there.npz", **SOURCE) as history:
        for epoch, wanted in enumerate(energies):
            history.energies.save(epoch, [wanted])
            equal(history.energies[epoch], wanted)
            equal(history.energies[0], energies[0])
            assert not (tmp_path / "there.npz").exists()


def test_energies_of_other_images_are_kept_apart(tmp_path):
    path, wanted, held = tmp_path / "there.npz", draw(5, 0), [draw(3, 1), draw(4, 2)]
    with writing_energies(path, **SOURCE) as written:
        written.loss += [1.0] * 12
        for epoch in (1, 12):
            written.energies.save(epoch, [wanted])
            written.energies.part("validation").save(epoch, held)
        written.energies.write("validation/masks", np.arange(3))
        written.energies.write("reference/1/tap-0", np.arange(3))  # of somebody else
    for history in (written, load_energies(path, **SOURCE)):
        assert list(history.energies) == list(history.energies.part("validation")) == [1, 12]
        assert list(history.energies.part("valid")) == []
        equal(history.energies[12], wanted)
        equal(history.energies.part("validation")[12], Energies.join(held))
        np.testing.assert_array_equal(history.energies.read("validation/masks.npy"), np.arange(3))


def test_files_of_one_chunk_an_epoch_are_read_as_before(tmp_path):
    wanted = draw(5, 0)
    arrays = {f"3/energy-{i}": e.numpy() for i, (e, _) in enumerate(wanted.taps)}
    arrays |= {f"3/log_det-{i}": j.numpy() for i, (_, j) in enumerate(wanted.taps)}
    about = {**SOURCE, "loss": [3.0, 2.0, 1.0], "holdout": {"3": 2.0}}
    np.savez(
        tmp_path / "old.npz",
        about=np.array(json.dumps(about)), **arrays, **{"3/images": wanted.images.numpy()},
    )  # fmt: skip
    history = load_energies(tmp_path / "old.npz", **SOURCE)
    assert (history.loss, history.holdout, history.bank_bytes) == ([3.0, 2.0, 1.0], {3: 2.0}, 0)
    equal(history.energies[3], wanted)


def test_it_is_an_npz_that_numpy_reads(tmp_path):
    wanted = draw(5, 0)
    write(tmp_path / "there.npz", {1: [wanted]})
    with np.load(tmp_path / "there.npz") as file:
        np.testing.assert_array_equal(file["1/0/energy-1"], wanted.taps[1][0].numpy())
        assert json.loads(str(file["about"]))["data"] == "d"


@pytest.mark.parametrize("changed", ["data", "weights", "arithmetic"])
def test_energies_of_another_source_are_none(tmp_path, changed):
    write(tmp_path / "there.npz", {1: [draw(5, 0)]})
    assert load_energies(tmp_path / "there.npz", **SOURCE | {changed: "other"}) is None
    assert load_energies(tmp_path / "not there.npz", **SOURCE) is None


def test_a_damaged_file_is_none(tmp_path):
    path = tmp_path / "there.npz"
    write(path, {1: [draw(300, 0)], 2: [draw(300, 1)]})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        inside = file.getinfo("2/0/energy-0.npy").header_offset + 1000
    for damaged in (
        whole[:500], whole[:-10], b"", whole[: len(whole) // 2],
        whole[:inside] + b"\0\1\2\3" + whole[inside + 4 :],  # a checksum tells
    ):  # fmt: skip
        path.write_bytes(damaged)
        assert load_energies(path, **SOURCE) is None


def test_what_fails_leaves_nothing(tmp_path):
    path = tmp_path / "runs" / "v" / "d" / "c" / "seed-0.npz"

    def fail():
        with writing_energies(path, **SOURCE) as history:
            history.energies.save(1, [draw(5, 0)])
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        fail()
    assert list(path.parent.iterdir()) == []


def test_without_a_file_they_are_in_memory():
    saved = SavedEnergies()
    saved.save(1, [draw(5, 0)])
    equal(saved[1], draw(5, 0))
    assert 1 in saved
    assert 2 not in saved


@pytest.mark.parametrize("file", ["there.npz", None])
def test_what_is_forgotten_unfinished_is_not_finished_then(tmp_path, monkeypatch, file):
    gc.collect()  # what others forgot
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    saved = SavedEnergies(file and (tmp_path / file).open("w+b"))
    saved.save(1, [draw(5, 0)])
    saved.cycle = [saved._zip.fp, saved]  # as an error's frames hold a run's: the file goes first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the file itself
        del saved
        gc.collect()
    assert said == []
    assert file is None or not zipfile.is_zipfile(tmp_path / file)


def test_what_is_read_and_forgotten_is_closed(tmp_path):
    write(tmp_path / "there.npz", {1: [draw(5, 0)]})
    saved = SavedEnergies(tmp_path / "there.npz", "r")
    file = saved._zip.fp
    del saved
    assert file.closed


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 9 bytes")]
)
def test_a_lack_of_memory_says_nothing_of_a_file(tmp_path, monkeypatch, error):
    write(tmp_path / "there.npz", {1: [draw(5, 0)]})

    def fits(*_):
        raise error

    monkeypatch.setattr(SavedEnergies, "fits", fits)
    with pytest.raises(type(error)):
        load_energies(tmp_path / "there.npz", **SOURCE)

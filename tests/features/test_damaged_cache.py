"""Cached features that changed on disk: found, named, made anew, never used."""

import errno
import io
import json
import os
import shutil
import zlib
from zipfile import ZipFile

import numpy as np
import pytest
from refused import REASONS, refuse

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.errors import InputError, RunFailed
from harness.features import checked
from harness.features.cache import FeatureCache
from harness.features.checked import ArrayWriter, DamagedFeatures, check_files
from harness.features.defective import all_there, ensure_all, ensure_defective, open_defective
from harness.features.key import FeatureKey


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def misshape(file):
    np.save(file, np.load(file)[:-1])


def in_place(file, make):
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    make(file)


FILES = {
    "one bit": lambda f: flip(f, -1),
    "one bit of the header": lambda f: flip(f, 70),
    "half": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "nothing": lambda f: f.write_bytes(b""),
    "zeros": lambda f: np.save(f, np.zeros_like(np.load(f))),
    "misshapen": misshape,
    "missing": lambda f: f.unlink(),
    "a text": lambda f: f.write_text("hello"),
    "a folder": lambda f: in_place(f, lambda p: p.mkdir()),
    "a dangling link": lambda f: in_place(f, lambda p: p.symlink_to("nowhere")),
}


def rewrite(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))


METAS = {
    **{k: FILES[k] for k in ("half", "nothing", "missing", "a text", "a folder")},
    "without sums, as before": lambda f: rewrite(f, sums=None),
    "another's": lambda f: rewrite(f, key={"category": "right"}),
    "a list": lambda f: f.write_text("[]"),
    "sums of nothing": lambda f: rewrite(f, sums={"train-0.npy": []}),
}
DAMAGES = [("train-0.npy", k, d) for k, d in FILES.items()] + [
    ("meta.json", k, d) for k, d in METAS.items()
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An entry with defective copies, and all that it is made of."""
    from tiny import SPEC, write_category

    from harness.features.extractor import Extractor

    folder = tmp_path_factory.mktemp("damaged")
    write_category(folder / "data" / "left", good=3, bad=1)
    category, extractor = MvtecAd(folder / "data").load("left"), Extractor.load(SPEC)
    cache, key = FeatureCache(folder / "cache"), FeatureKey.of(extractor, category)
    cache.ensure(key, extractor, category)
    ensure_defective(cache, key, "synthetic", extractor, category)
    return folder, key, extractor, category


@pytest.fixture
def cache(made, tmp_path):
    folder, *_ = made
    shutil.copytree(folder / "cache", tmp_path / "cache")
    return FeatureCache(tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "kind", "damage"), DAMAGES, ids=[f"{n} {k}" for n, k, _ in DAMAGES]
)
def test_damage_is_named_and_made_anew(made, cache, capsys, name, kind, damage):
    folder, key, extractor, category = made
    wanted = np.load(folder / "cache" / key.digest / "train-0.npy")
    file = cache.folder / key.digest / name
    damage(file)
    with pytest.raises(DamagedFeatures, match=f"{name}: expected .*; got .*; the next start"):
        cache.open(key)
    cache.entries()  # `harness cache` shows what is whole
    features = cache.ensure(key, extractor, category)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(file) in said
    np.testing.assert_allclose(features.train[0], wanted, atol=1e-6)
    assert cache.passes == len(category.train) + len(category.test)
    assert cache.open(key) is not None


@pytest.mark.parametrize("place", ["in the place of the entry", "of the entry, dangling"])
def test_what_is_foreign_in_an_entrys_place_is_replaced(made, cache, capsys, place):
    _, key, extractor, category = made
    entry = cache.folder / key.digest
    shutil.rmtree(entry)
    entry.write_text("foreign") if "in" in place.split()[:1] else entry.symlink_to("nowhere")
    cache.ensure(key, extractor, category)
    assert cache.open(key)
    assert str(entry) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["synthetic.npz", "synthetic-1.npy"])
@pytest.mark.parametrize("kind", ["one bit", "half", "nothing", "a text"])
def test_damaged_defective_copies_are_named_and_made_anew(made, cache, capsys, name, kind):
    _, key, extractor, category = made
    file = cache.folder / key.digest / name
    FILES[kind](file) if (name, kind) != ("synthetic.npz", "one bit") else flip(file, 600)
    with pytest.raises(DamagedFeatures, match=f"{name}: expected"):
        open_defective(cache, key, "synthetic")
    ensure_defective(cache, key, "synthetic", extractor, category)
    assert str(file) in capsys.readouterr().err
    assert open_defective(cache, key, "synthetic") is not None
    assert cache.passes == len(category.train)


def test_a_file_is_read_through_once_in_a_process(made, cache, monkeypatch):
    _, key, *_ = made
    cache.open(key)
    monkeypatch.setattr("harness.features.checked.sums_of", None)  # would be an error
    assert cache.open(key) is not None


def test_every_block_has_a_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "BLOCK", 1000)
    rows = np.arange(300, dtype=np.float32).reshape(10, -1)  # with its header, 1.3 blocks
    with ArrayWriter(tmp_path / "a.npy", "float32", rows.shape) as writer:
        for row in rows:
            writer.append(row[None])
    assert len(writer.sums) == 2
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
    check_files(tmp_path, {"a.npy": writer.sums})
    checked._SOUND.clear()  # a file system's clock may not tell the two times apart
    flip(tmp_path / "a.npy", 1005)
    with pytest.raises(DamagedFeatures, match="from byte 1000; got"):
        check_files(tmp_path, {"a.npy": writer.sums})


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("name", ["meta.json", "train-0.npy", "synthetic.npz", "synthetic-0.npy"])
def test_what_may_not_be_read_is_left_as_it_is(made, cache, monkeypatch, name, reason):
    _, key, extractor, category = made
    file = cache.folder / key.digest / name
    refuse(monkeypatch, file, getattr(errno, reason))
    with pytest.raises((InputError, RunFailed), match=f"{name}: .*") as error:
        ensure_all(cache, key, ["synthetic"], extractor, category)
    assert not isinstance(error.value, DamagedFeatures)
    monkeypatch.undo()
    assert all_there(cache, key, ["synthetic"])
    assert cache.passes == 0


def test_an_entry_that_may_not_be_read_is_no_hindrance_to_clearing(made, cache, monkeypatch):
    refuse(monkeypatch, cache.folder / made[1].digest / "meta.json", errno.EACCES)
    assert cache.entries() == []
    assert cache.clear() > 0


def test_all_threads_read_through_one_descriptor(tmp_path, monkeypatch):
    """As many as cores: with few descriptors left, what is sound would be taken for damaged."""
    monkeypatch.setattr(checked, "BLOCK", 1000)
    file = tmp_path / "a"
    file.write_bytes(os.urandom(9500))
    wanted = [zlib.crc32(file.read_bytes()[i : i + 1000]) for i in range(0, 9500, 1000)]
    opened, real = [], io.open
    monkeypatch.setattr(io, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert checked.sums_of(file) == wanted
    assert len(opened) == 1


def test_an_array_is_as_long_as_its_header_says(tmp_path):
    with ZipFile(tmp_path / "a.npz", "w") as file:
        content = io.BytesIO()
        np.save(content, np.arange(9))
        file.writestr("a.npy", content.getvalue()[:-8])
        file.writestr("b.npy", content.getvalue() + bytes(8))
        file.writestr("c.npy", content.getvalue().replace(b"(9,), }", b"(9%s,), }" % (b"0" * 20)))
        file.writestr("d.npy", content.getvalue())
    with ZipFile(tmp_path / "a.npz") as file:
        for name in ("a.npy", "b.npy", "c.npy"):
            with pytest.raises(ValueError, match=f"{name}: expected .* bytes; got"):
                checked.read_array(file, name)
        assert checked.read_array(file, "d.npy").tolist() == list(range(9))

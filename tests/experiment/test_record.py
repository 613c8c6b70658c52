"""Records: whole or not at all."""

import errno
import json
import os
from pathlib import Path

import msgspec
import pytest
from handmade import record
from refused import REASONS, refuse

from harness.bundled import bundled
from harness.errors import InputError, RunFailed
from harness.experiment import record as records
from harness.experiment import store
from harness.experiment.measured import finite
from harness.experiment.place import Place
from harness.experiment.record import Images
from harness.experiment.store import read_record, read_records, write_record
from harness.experiment.variant import Variant


def example(seed=0, **changes):
    return msgspec.structs.replace(record(Variant(), "thing", seed, 0.5), **changes)


def as_json(made):
    return json.loads(json.dumps(msgspec.to_builtins(made)))


def place(folder, seed=0):
    return Place.of(folder, Variant(), "d", "thing", seed)


def test_what_is_held_twice_is_held_until_the_last_end():
    with store.held():
        with store.held():
            pass
        assert len(store._KEPT) == 1
    assert store._KEPT == []


def test_what_was_read_while_records_are_held_stays_as_it_was(tmp_path):
    write_record(place(tmp_path), example())
    with store.held():
        before = read_record(place(tmp_path).record)
        write_record(place(tmp_path), example(loss=[3.0]))
        write_record(place(tmp_path, 1), example(seed=1))
        assert [r.seed for r in read_records(tmp_path)] == [0, 1]
        assert read_record(place(tmp_path).record) is before
    assert read_record(place(tmp_path).record).loss == [3.0]


def test_place(tmp_path):
    expected = tmp_path / "runs" / Variant().digest / "d" / "thing" / "seed-3.json"
    assert place(tmp_path, 3).record == expected


def test_round_trip_and_order(tmp_path):
    for seed in (1, 0):
        write_record(place(tmp_path, seed), example(seed=seed))
    assert [r.seed for r in read_records(tmp_path)] == [0, 1]
    assert as_json(read_record(place(tmp_path).record)) == as_json(example(seed=0))


def test_records_of_the_same_images_list_them_once(tmp_path):
    images = Images(
        path=["a.png", "b.png"], sha256=["0" * 12, "1" * 12], defect=["good", "scratch"],
        score=[0.1, 0.7], defect_pixels=[0, 9], pixels=64,
    )  # fmt: skip
    for seed in (0, 1):
        write_record(place(tmp_path, seed), example(seed=seed, images=images))
    one, other = read_records(tmp_path)
    for name in ("path", "sha256", "defect", "defect_pixels"):
        assert getattr(one.images, name) is getattr(other.images, name)
    assert one.images == other.images == images
    assert one.images.score is not other.images.score


def test_a_record_without_an_arithmetic_is_read(tmp_path):
    made = as_json(example())
    del made["environment"]["arithmetic"]
    path = place(tmp_path).record
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made))
    assert read_record(path).environment.arithmetic == ""


def test_a_record_removes_the_failure_note_and_notes_are_not_records(tmp_path):
    store.write_failure(place(tmp_path), "because", epoch=3)
    assert json.loads(place(tmp_path).failure.read_text())["reason"] == "because"
    assert list(read_records(tmp_path)) == []
    write_record(place(tmp_path), example())
    assert not place(tmp_path).failure.exists()


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    write_record(place(tmp_path), example(seed=1))

    def crash(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_record(place(tmp_path), example(seed=2))
    assert read_record(place(tmp_path).record).seed == 1
    assert [p.name for p in place(tmp_path).record.parent.iterdir()] == ["seed-0.json"]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(place(tmp_path), example(metrics={"image_auroc": float("nan")}))
    assert not place(tmp_path).record.exists()


def test_undefined_metrics_are_absent():
    values = {"a": 0.5, "b": float("nan"), "c": 0.0}
    assert finite(values) == {"a": 0.5, "c": 0.0}


def old(**changes):
    """A record of schema 1, as the first ones were."""
    content = msgspec.to_builtins(example())
    content["data"] = {k: content["data"][k] for k in ("digest", "train", "test", "defective")}
    content["data"]["masks"] = 6
    del content["measured"]["bank_bytes"], content["training_digest"]
    return content | {"schema": 1} | changes


def test_an_old_record_is_read_as_one_of_today(tmp_path):
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps(old()))
    found = read_record(path)
    assert (found.schema, found.data.official, found.data.copy) == (records.SCHEMA, None, "")
    assert found.training_digest == Variant().digest
    assert found.measured.bank_bytes == 0
    assert found.metrics == example().metrics


def test_the_accepted_records_are_read_whole():
    """Every record of the baseline: what is written back has all that was there."""
    paths = sorted(bundled("results", "baseline").glob("runs/*/*/*/seed-*.json"))
    assert len(paths) == 81
    for path in paths:
        before, after = json.loads(path.read_text()), msgspec.to_builtins(read_record(path))
        assert _lost(before | {"schema": records.SCHEMA}, after) == []


def _lost(before, after, where=""):
    """What of a record is not in another, or differs there."""
    if not isinstance(before, dict):
        return [] if before == after else [where]
    return [
        name
        for key, value in before.items()
        for name in (_lost(value, after.get(key), f"{where}.{key}"))
    ]


def test_a_record_that_lies_elsewhere_is_not_counted_twice(tmp_path):
    write_record(place(tmp_path, 0), example(0))
    path = place(tmp_path, 0).record
    said = []
    for name in ("seed-1.json", "seed-0 (copy).json", "seed-00.json"):
        path.with_name(name).write_bytes(path.read_bytes())
    assert [r.seed for r in read_records(tmp_path, damaged=said.append)] == [0]
    assert len(said) == 3


def test_a_damaged_record_is_skipped_where_that_is_asked_for(tmp_path):
    for seed in (0, 1):
        write_record(place(tmp_path, seed), example(seed))
    place(tmp_path, 0).record.write_text("{")
    said = []
    assert [r.seed for r in read_records(tmp_path, damaged=said.append)] == [1]
    assert str(place(tmp_path, 0).record) in str(said[0])
    with pytest.raises(InputError, match="it cannot be read"):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it cannot be read"),
        ("[]", "missing required field `schema`"),
        ('{"schema": 3}', "missing required field `digest`"),
        ('{"schema": 1}', "expected a run record; 'variant'"),
        (json.dumps(old(data=[])), "expected a run record"),
        (json.dumps(msgspec.to_builtins(example()) | {"data": []}), "Expected `object`"),
        (json.dumps(old(schema=99)), "expected record schema 3; got 99"),
        (json.dumps(old(schema="x")), "expected record schema 3; got x"),
        (json.dumps(msgspec.to_builtins(example()) | {"seed": "0"}), "Expected `int`, got `str`"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, content, message):
    path = tmp_path / "seed-0.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


KEPT = sorted(
    path
    for folder in ("baseline", "reference")
    for path in (Path(__file__).parents[2] / "results" / folder / "runs").glob("*/*/*/seed-*.json")
)


def test_the_fast_reading_gives_what_the_close_one_gives():
    assert len(KEPT) > 200
    for path in KEPT:
        fast, close = store._read_sound(path), store._read_closely(path)
        assert fast is not None
        assert repr(fast) == repr(close)  # of every field, and of its type


def without(name, of=""):
    def changed(made):
        del (made[of] if of else made)[name]

    return changed


def with_(name, value, of=""):
    def changed(made):
        (made[of] if of else made)[name] = value

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        without("metrics"),
        without("digest", "data"),
        with_("schema", 3.0),
        with_("schema", True),
        with_("schema", "3"),
        with_("schema", 1),
        with_("schema", 2),
        with_("seed", 0.0),
        with_("seed", "0"),
        with_("metrics", {"image_auroc": "1"}),
        with_("metrics", {"image_auroc": float("nan")}),
        with_("digest", "0" * 12),
        with_("training_digest", "0" * 12),
        with_("epoch", 99, "selection"),
        with_("learning_rate", float("nan"), "variant"),
        with_("learning_rate", float("inf"), "variant"),
        with_("learning_rate", 10**400, "variant"),
        with_("hidden_channels", float("nan"), "variant"),
        with_("flow_steps", 8.0, "variant"),
        with_("flow_steps", True, "variant"),
        with_("kernels", "3,1", "variant"),
        with_("unheard", 1, "variant"),
        with_("method", "unheard", "variant"),
        with_("score", [0.5], "images"),
        with_("unheard", 1),
        with_("category", "\ud800"),
    ],
)
def test_the_fast_reading_takes_nothing_that_the_close_one_refuses(tmp_path, damage):
    made = json.loads(KEPT[0].read_text())
    damage(made)
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps(made))

    def said_by(read):
        try:
            return repr(read(path))
        except InputError as error:
            return type(error), str(error)

    close = said_by(store._read_closely)
    assert said_by(read_record) == close
    assert isinstance(close, str) or store._read_sound(path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"\xef\xbb\xbf{}", b"{}\n{}", b"[" * 5000]
)
def test_what_is_no_json_is_said_as_ever(tmp_path, content):
    path = tmp_path / "seed-0.json"
    path.write_bytes(content)
    with pytest.raises(store.DamagedRecord) as caught:
        read_record(path)
    with pytest.raises(store.DamagedRecord) as close:
        store._read_closely(path)
    assert str(caught.value) == str(close.value)


def test_a_record_that_was_written_anew_is_read_anew(tmp_path):
    write_record(place(tmp_path), example(seed=0))
    first = read_record(place(tmp_path).record)
    assert read_record(place(tmp_path).record) is first  # while it is in use
    write_record(place(tmp_path), example(seed=1))
    assert read_record(place(tmp_path).record).seed == 1
    place(tmp_path).record.unlink()
    with pytest.raises(store.DamagedRecord, match="cannot be read"):
        read_record(place(tmp_path).record)


@pytest.mark.parametrize("reason", REASONS)
def test_what_the_system_does_not_let_be_read_is_not_damaged(tmp_path, monkeypatch, reason):
    write_record(place(tmp_path), example())
    refuse(monkeypatch, place(tmp_path).record, getattr(errno, reason))
    said = []
    with pytest.raises((InputError, RunFailed), match=os.strerror(getattr(errno, reason))) as e:
        store.read_sound(place(tmp_path), damaged=said.append)
    assert not isinstance(e.value, store.DamagedRecord)
    assert said == []
    if reason != "EMFILE":  # with which nothing else is read either
        assert list(read_records(tmp_path, damaged=said.append)) == []
        assert len(said) == 1

"""Records: whole or not at all."""

import json
import os

import pytest

from harness.errors import InputError
from harness.experiment import record as records
from harness.experiment.record import Place, read_record, read_records, write_record
from harness.experiment.variant import Variant
from harness.files import remove_leftovers


def example(**changes):
    return {**{key: {} for key in records.REQUIRED}, "schema": records.SCHEMA, **changes}


def place(folder, seed=0):
    return Place.of(folder, Variant(), "set", "thing", seed)


def test_place(tmp_path):
    expected = tmp_path / "runs" / Variant().digest / "set" / "thing" / "seed-3.json"
    assert place(tmp_path, 3).record == expected


def test_round_trip_and_order(tmp_path):
    for seed in (1, 0):
        write_record(place(tmp_path, seed), example(seed=seed))
    assert [r["seed"] for r in read_records(tmp_path)] == [0, 1]
    assert read_record(place(tmp_path).record) == example(seed=0)


def test_a_record_removes_the_failure_note_and_notes_are_not_records(tmp_path):
    records.write_failure(place(tmp_path), "because", epoch=3)
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
    assert read_record(place(tmp_path).record)["seed"] == 1
    assert [p.name for p in place(tmp_path).record.parent.iterdir()] == ["seed-0.json"]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(place(tmp_path), example(metrics={"image_auroc": float("nan")}))
    assert not place(tmp_path).record.exists()


def test_undefined_metrics_are_absent():
    values = {"a": 0.5, "b": float("nan"), "c": 0.0}
    assert records.finite(values) == {"a": 0.5, "c": 0.0}


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path):
    folder = place(tmp_path).record.parent
    folder.mkdir(parents=True)
    dead = folder / ".seed-0.json.99999999.tmp"
    live = folder / f".seed-0.json.{os.getpid()}.tmp"
    dead.touch()
    live.touch()
    assert remove_leftovers(tmp_path) == 1
    assert live.exists()
    assert not dead.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it cannot be read"),
        ("[]", "it lacks schema"),
        ('{"schema": 1}', "it lacks digest"),
        (json.dumps(example(data=[])), "data is no block"),
        (json.dumps(example(schema=99)), "expected record schema 1; got 99"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, content, message):
    path = tmp_path / "seed-0.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)

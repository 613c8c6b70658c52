"""Folders of results joined: whole, twice over, with conflicts, with damage."""

import json

import pytest
from handmade import record

from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.record import read_records, write_record
from harness.experiment.variant import Variant
from harness.run.merge import merge

ONE, OTHER = Variant(), Variant(flow_steps=4)


def write(results, variant, seed, auroc, **changes):
    made = record(variant, "c", seed, auroc, **changes)
    place = Place.of(results, variant, "d", "c", seed)
    write_record(place, made)
    place.energies.write_bytes(b"energies of " + str(results.name).encode())
    return place


def test_runs_are_joined_with_what_belongs_to_them(tmp_path):
    here, there, into = (tmp_path / name for name in ("a", "b", "all"))
    write(here, ONE, 0, 0.9)
    place = write(there, OTHER, 1, 0.8)
    place.weights.write_bytes(b"weights")
    merged = merge([here, there], into)
    assert (merged.copied, merged.same, merged.damaged) == (2, 0, [])
    assert len(list(read_records(into))) == 2
    moved = Place.of(into, OTHER, "d", "c", 1)
    assert moved.energies.read_bytes() == b"energies of b"
    assert moved.weights.read_bytes() == b"weights"
    again = merge([here, there], into)
    assert (again.copied, again.same) == (0, 2)


def test_a_run_that_failed_elsewhere_is_no_longer_failed(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    failure = Place.of(tmp_path / "all", ONE, "d", "c", 0).failure
    failure.parent.mkdir(parents=True)
    failure.write_text("{}")
    merge([tmp_path / "a"], tmp_path / "all")
    assert not failure.exists()


@pytest.mark.parametrize("first", ["into", "source"])
def test_other_content_is_named_and_nothing_copied(tmp_path, first):
    before = tmp_path / ("all" if first == "into" else "b")
    write(before, ONE, 0, 0.9)
    write(tmp_path / "a", ONE, 0, 0.8)
    write(tmp_path / "a", OTHER, 0, 0.7)
    sources = [tmp_path / "a"] if first == "into" else [tmp_path / "b", tmp_path / "a"]
    with pytest.raises(InputError, match=r"seed-0.json: expected what another.*nothing was"):
        merge(sources, tmp_path / "all")
    assert not Place.of(tmp_path / "all", OTHER, "d", "c", 0).record.exists()


def test_other_times_are_the_same_content(tmp_path):
    place = write(tmp_path / "a", ONE, 0, 0.9)
    write(tmp_path / "b", ONE, 0, 0.9)
    content = json.loads(place.record.read_text())
    content["measured"]["fit_seconds"] = 77.0
    content["environment"]["device_name"] = "another chip"
    place.record.write_text(json.dumps(content))
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all").same == 1


def test_damaged_records_are_named_and_left_out(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    write(tmp_path / "a", ONE, 1, 0.9).record.write_text("{")
    merged = merge([tmp_path / "a"], tmp_path / "all")
    assert merged.copied == 1
    assert "seed-1.json" in merged.damaged[0]


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder of results"):
        merge([tmp_path], tmp_path / "all")
    write(tmp_path / "a", ONE, 0, 0.9)
    with pytest.raises(InputError, match="got the same"):
        merge([tmp_path / "a"], tmp_path / "a")

"""Folders of results joined: whole, twice over, with conflicts, with damage."""

import json
from types import SimpleNamespace

import pytest
from handmade import record

from harness.claims import Claims
from harness.cli.main import main
from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.record import Images
from harness.experiment.store import (
    read_at,
    read_record,
    read_records,
    write_failure,
    write_record,
)
from harness.experiment.variant import Variant
from harness.run.merge import _Join, merge
from harness.run.share import work_of

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


def test_a_part_without_a_run_yet_is_named_and_the_others_are_joined(tmp_path, capsys):
    write(tmp_path / "a", ONE, 0, 0.9)
    (tmp_path / "b" / "claims").mkdir(parents=True)
    (tmp_path / "c" / "runs").mkdir(parents=True)
    words = ["merge", *(str(tmp_path / n) for n in "abc"), "--into", str(tmp_path / "all")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "1 runs copied" in said.out
    assert [s.rpartition(": ")[2] for s in said.err.splitlines()] == ["no runs there yet"] * 2


def test_a_damaged_record_there_is_named_and_replaced_by_a_sound_one(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    there = write(tmp_path / "all", ONE, 0, 0.9)
    there.record.write_text("{")
    merged = merge([tmp_path / "a"], tmp_path / "all")
    assert (merged.copied, merged.damaged) == (1, [])
    assert [str(there.record) in line for line in merged.mended] == [True]
    assert read_at(there).metrics["image_auroc"] == 0.9


def test_a_record_there_of_a_newer_version_is_left_alone(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    there = write(tmp_path / "all", ONE, 0, 0.9)
    there.record.write_text('{"schema": 999}')
    with pytest.raises(InputError, match="newer version"):
        merge([tmp_path / "a"], tmp_path / "all")
    assert there.record.read_text() == '{"schema": 999}'


def test_energies_come_along_where_only_a_scoring_variant_is_recorded(tmp_path):
    nll = ONE.replace(score_map="nll")
    here = write(tmp_path / "a", nll, 0, 0.9)
    trained = Place.of(tmp_path / "a", ONE, "d", "c", 0).energies
    trained.parent.mkdir(parents=True)
    here.energies.rename(trained)
    merge([tmp_path / "a"], tmp_path / "all")
    assert Place.of(tmp_path / "all", ONE, "d", "c", 0).energies.is_file()


def test_trainings_that_another_start_holds_are_waited_for(tmp_path, monkeypatch):
    """It records one of the two meanwhile: what is there is not written again."""
    write(tmp_path / "a", ONE, 0, 0.9)
    write(tmp_path / "a", OTHER, 0, 0.8)
    into = tmp_path / "all"
    other = Claims(into, token="e" * 16)
    work = f"{ONE.digest}/d/c/seed-0.npz"  # as a job names its training
    with other:
        held, waited = other.take(work), []

        def pause(seconds):
            waited.append(Place.of(into, OTHER, "d", "c", 0).record.is_file())
            write(into, ONE, 0, 0.9)
            other.release(held)

        monkeypatch.setattr("harness.claims.time.sleep", pause)
        merged = merge([tmp_path / "a"], into)
    assert waited == [True]  # the free one came first
    assert (merged.copied, merged.same) == (1, 1)
    assert Place.of(into, ONE, "d", "c", 0).energies.read_bytes() == b"energies of all"
    assert not list((into / "claims").glob("*.claim"))


def test_another_content_that_comes_meanwhile_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a", ONE, 0, 0.9)
    other = Claims(tmp_path / "all", token="e" * 16)
    with other:
        held = other.take(f"{ONE.digest}/d/c/seed-0.npz")

        def pause(seconds):
            write(tmp_path / "all", ONE, 0, 0.5)
            other.release(held)

        monkeypatch.setattr("harness.claims.time.sleep", pause)
        with pytest.raises(InputError, match="recorded by another start meanwhile"):
            merge([tmp_path / "a"], tmp_path / "all")


def test_work_is_named_as_a_job_names_it(tmp_path):
    nll = ONE.replace(score_map="nll")
    place, training = (Place.of(tmp_path, v, "d", "c", 0) for v in (nll, ONE))
    job = SimpleNamespace(training_place=training, results=tmp_path)
    join = _Join(tmp_path)
    join.wanted[place] = place, nll.training.digest
    assert list(join.works()) == [work_of(job)]


def test_notes_of_failures_come_along_unless_the_run_is_recorded_somewhere(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    for seed in (0, 1):
        place = Place.of(tmp_path / "b", ONE, "d", "c", seed)
        write_failure(place, "the loss became nan")
    merged = merge([tmp_path / "b", tmp_path / "a"], tmp_path / "all")
    assert (merged.copied, merged.failed) == (1, 1)
    notes = [Place.of(tmp_path / "all", ONE, "d", "c", seed).failure for seed in (0, 1)]
    assert [note.is_file() for note in notes] == [False, True]
    assert merge([tmp_path / "b"], tmp_path / "all").failed == 0


@pytest.mark.parametrize("older_first", [True, False])
def test_a_record_of_fewer_images_gives_way_where_it_was_set_aside(tmp_path, older_first):
    older = write(tmp_path / "a", ONE, 0, 0.8)
    newer = write(tmp_path / "b", ONE, 0, 0.9)
    newer.before("x").write_bytes(older.record.read_bytes())
    order = ["a", "b"] if older_first else ["b", "a"]
    merge([tmp_path / order[0]], tmp_path / "all")
    merge([tmp_path / order[1]], tmp_path / "all")
    both = merge([tmp_path / n for n in order], tmp_path / "both")
    assert both.copied == 1
    for into in ("all", "both"):
        there = Place.of(tmp_path / into, ONE, "d", "c", 0)
        assert read_at(there).metrics["image_auroc"] == 0.9
        assert read_record(there.before("x")).metrics["image_auroc"] == 0.8
        assert there.energies.read_bytes() == b"energies of b"


def test_a_record_of_an_older_schema_is_the_same_where_it_is_silent(tmp_path):
    place = write(tmp_path / "a", ONE, 0, 0.9)
    content = json.loads(place.record.read_text())
    content["schema"] = 1
    del content["data"]["layout"], content["training_digest"], content["measured"]["bank_bytes"]
    content["variant"].pop("tile_size")  # a field that is newer than the record
    place.record.write_text(json.dumps(content))
    images = Images(path=["a.png"], defect=["good"], score=[0.5])
    there = write(tmp_path / "all", ONE, 0, 0.9)
    made = record(ONE, "c", 0, 0.9)
    made.images, made.data.layout = images, "mvtec"
    write_record(there, made)
    assert merge([tmp_path / "a"], tmp_path / "all").same == 1
    assert read_at(there).images == images


def test_a_checkpoint_of_what_is_now_recorded_goes(tmp_path):
    write(tmp_path / "a", ONE, 0, 0.9)
    there = Place.of(tmp_path / "all", ONE, "d", "c", 0)
    there.checkpoint.parent.mkdir(parents=True)
    growing = there.checkpoint.with_name("seed-0.checkpoint-1.npz")
    for path in (there.checkpoint, growing):
        path.write_bytes(b"")
    merge([tmp_path / "a"], tmp_path / "all")
    assert not there.checkpoint.exists()
    assert not growing.exists()


def test_notes_are_left_where_a_start_is_at_work(tmp_path):
    """It would take them for news of runs that it has before it, and never run these."""
    write(tmp_path / "a", ONE, 0, 0.9)
    write_failure(Place.of(tmp_path / "a", ONE, "d", "c", 1), "the loss became nan")
    with Claims(tmp_path / "all", token="e" * 16):
        merged = merge([tmp_path / "a"], tmp_path / "all")
        assert (merged.failed, merged.left) == (0, 1)
    merged = merge([tmp_path / "a"], tmp_path / "all")
    assert (merged.failed, merged.left) == (1, 0)


def test_a_damaged_record_that_nothing_replaces_is_not_called_replaced(tmp_path):
    write_failure(Place.of(tmp_path / "a", ONE, "d", "c", 0), "the loss became nan")
    there = Place.of(tmp_path / "all", ONE, "d", "c", 0).record
    there.parent.mkdir(parents=True)
    there.write_text("{")
    merged = merge([tmp_path / "a"], tmp_path / "all")
    assert merged.mended == []
    assert [str(there) in line for line in merged.damaged] == [True]


def test_energies_that_records_there_are_of_stay(tmp_path):
    """Of a training that only scoring variants are recorded of, in both folders."""
    scored, other = ONE.replace(smoothing=1.0), ONE.replace(smoothing=2.0)
    for results, variant in ((tmp_path / "a", scored), (tmp_path / "all", other)):
        write(results, variant, 0, 0.9)
        Place.of(results, ONE, "d", "c", 0).energies.parent.mkdir(parents=True, exist_ok=True)
        Place.of(results, ONE, "d", "c", 0).energies.write_text(results.name)
    assert merge([tmp_path / "a"], tmp_path / "all").copied == 1
    assert Place.of(tmp_path / "all", ONE, "d", "c", 0).energies.read_text() == "all"

"""The command `merge`, as a person calls it."""

import json

from handmade import record

from harness.claims import Claims
from harness.cli.main import main
from harness.experiment.place import Place
from harness.experiment.store import write_failure, write_record
from harness.experiment.variant import Variant


def test_merge_counts_names_what_is_damaged_and_joins_the_rest(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        place = Place.of(tmp_path / name, Variant(), "d", "c", seed)
        write_record(place, record(Variant(), "c", seed, 0.9))
    command = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--into", str(tmp_path / "all")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'all'}: 2 runs copied, 0 were there\n"
    place.record.write_text("{")
    assert main([*command, "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["same"] == 1
    assert said.err.count("\n") == 1
    assert f"left out: {place.record}" in said.err


def test_merge_says_what_it_leaves_beside_a_start_at_work(tmp_path, capsys):
    place = Place.of(tmp_path / "a", Variant(), "d", "c", 0)
    write_record(place, record(Variant(), "c", 0, 0.9))
    write_failure(Place.of(tmp_path / "a", Variant(), "d", "c", 1), "the loss became nan")
    with Claims(tmp_path / "all", token="e" * 16):
        assert main(["merge", str(tmp_path / "a"), "--into", str(tmp_path / "all")]) == 0
    assert capsys.readouterr().err.startswith("1 note of failed runs left where they are, as")


def test_merge_of_no_results_is_one_line(tmp_path, capsys):
    assert main(["merge", str(tmp_path), "--into", str(tmp_path / "all")]) == 2
    assert "expected a folder of results" in capsys.readouterr().err

"""Records with holes, wrong types and foreign parts: named and left out, never a traceback."""

import copy
import json
from contextlib import suppress

import msgspec
import pytest
from handmade import record
from tiny import TINY

from harness.errors import InputError, warn
from harness.experiment.place import Place
from harness.experiment.record import Images
from harness.experiment.store import read_records, read_sound
from harness.experiment.study import Study
from harness.paper.gap import gaps
from harness.paper.ledger import ledger
from harness.report import images, sentences, tables
from harness.report.best import best
from harness.report.cautions import cautions
from harness.report.selection import Selection

WRONG = (None, "x", -1, 0.5, [], {}, [None], True, "<missing>")
STUDY = Study(
    name="tiny", asks="Does it hold?", bases={"base": TINY}, vary=({},), categories=("a",),
    seeds=(0, 1), dataset="d",
)  # fmt: skip


def written(results, seed=0):
    made = record(TINY, "a", seed, 0.9)
    listed = Images(
        path=list("abcdefgh"), sha256=list("abcdefgh"), defect=["good", *["hole"] * 7],
        score=[0.1 * i for i in range(8)], defect_pixels=[0] + [3] * 7, pixels=16,
        found=[None] + [0.5] * 7, clear=[0.5] * 8,
    )  # fmt: skip
    content = msgspec.to_builtins(msgspec.structs.replace(made, images=listed))
    place = Place.of(results, TINY, "d", "a", seed)
    place.record.parent.mkdir(parents=True, exist_ok=True)
    place.record.write_text(json.dumps(content))
    return place, content


def places(value, path=()):
    """Every place in a record; of a list the first."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def edited(content, path, wrong):
    content = copy.deepcopy(content)
    inside = content
    for step in path[:-1]:
        inside = inside[step]
    if wrong == "<missing>":
        del inside[path[-1]]
    else:
        inside[path[-1]] = wrong
    return content


def read_everything(results):
    selection = Selection(STUDY, results, "d", ("a",))
    frame = tables.runs(selection)
    tables.as_text(tables.summary(frame, STUDY), selection.runs_of_a_variant)
    tables.epochs(selection)
    tables.by_defect(selection, frame)
    list(sentences.warnings(frame, selection))
    images.images(selection)
    images.on_common(selection, results)
    list(cautions(selection))
    with suppress(InputError):  # as where the only variant is an oracle
        best(selection, "image_auroc")


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 20])
@pytest.mark.whole
def test_edited_records_are_sound_or_named(tmp_path, capsys, every):
    """Every place × every wrong value: it is refused with its name, or every reader takes it."""
    written(tmp_path, seed=1)
    place, content = written(tmp_path)
    read_everything(tmp_path)
    assert capsys.readouterr().err == ""
    refused, taken, said = 0, 0, []
    for path in places(content):
        for wrong in WRONG:
            place.record.write_text(json.dumps(edited(content, path, wrong)))
            if read_sound(place, damaged=said.append) is None:
                refused += 1
                continue
            taken += 1
            if taken % every == 0:
                read_everything(tmp_path)
    assert {str(error).partition(" expected")[0] for error in said} == {f"{place.record}:"}
    assert refused > 1000
    assert taken < 0.2 * refused


@pytest.mark.parametrize(
    ("field", "value"),
    [("digest", "0" * 12), ("training_digest", "0" * 12), ("seed", 3), ("category", "b"),
     ("dataset", "e")],
)  # fmt: skip
def test_a_record_that_is_not_of_its_place_is_in_no_table_and_named(
    tmp_path, capsys, field, value
):
    place, content = written(tmp_path)
    place.record.write_text(json.dumps(content | {field: value}))
    selection = Selection(STUDY, tmp_path, "d", ("a",))
    assert selection.records == ()
    assert f"left out: {place.record}: expected" in capsys.readouterr().err
    gaps(ledger()[:1], read_records(tmp_path, damaged=warn), {})
    assert f"left out: {place.record}: expected" in capsys.readouterr().err

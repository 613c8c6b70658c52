"""Inputs that nobody thought of: one line for a person, or what is sound; never a traceback.

``HYPOTHESIS_PROFILE=long`` tries a hundred times as many, and others each time.
"""

import json
import os
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args
from unittest.mock import patch

import counted
import msgspec
import pytest
from handmade import record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import write_category

from harness.cli.main import main
from harness.data.datasets import open_dataset
from harness.errors import InputError, RunFailed
from harness.experiment.choices import METHODS
from harness.experiment.record import Record
from harness.experiment.store import read_record
from harness.experiment.values import parsed, show
from harness.experiment.variant import FIELDS, HINTS, Variant, parse
from harness.paper.ledger import Published, read_published
from harness.run import estimate, shards, simulate
from harness.studies import get_study

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, database=None,
                          suppress_health_check=SLOW)  # fmt: skip
settings.register_profile("long", settings.get_profile("ci"), max_examples=2500, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

BASES = tuple(Variant().replace(method=method) for method in METHODS)
NUMBERS = st.one_of(
    st.integers(-3, 70), st.integers(), st.floats(), st.sampled_from([10**26, 10**400, 1e300])
).map(lambda n: "1" + "0" * 400 if n == 10**400 else str(n))
LITERALS = {word for hint in HINTS.values() for word in get_args(hint) if isinstance(word, str)}
WORDS = st.sampled_from(sorted(LITERALS))
SEVERAL = st.lists(NUMBERS, max_size=4).map(",".join)
TEXTS = st.one_of(
    NUMBERS, WORDS, SEVERAL, st.text(max_size=12),
    st.sampled_from(["none", "true", "false", "()", "(1,", "----1", "[3,1]", "1_0"]),
)  # fmt: skip
ASSIGNED = st.tuples(st.sampled_from(FIELDS), TEXTS)


def is_for_a_person(error, where=""):
    """See that what is said is one line that names the file, if it is about one."""
    assert "\n" not in str(error)
    assert str(where) in str(error)
    assert len(str(error)) < 5000


def made(base, assigned):
    """The variant that is asked for, or None where that is refused in one line."""
    try:
        return base.replace(**{name: parse(name, text) for name, text in assigned})
    except InputError as error:
        is_for_a_person(error)
        return None


@given(st.sampled_from(BASES), st.lists(ASSIGNED, min_size=1, max_size=3))
@settings(max_examples=settings.default.max_examples * 10)
def test_fields_of_a_variant(base, assigned):
    variant = made(base, assigned)
    if variant is None:
        return
    shown = {name: parse(name, show(getattr(variant, name))) for name in FIELDS
             if getattr(variant, name) not in ((), "")}  # fmt: skip
    assert all(getattr(variant, name) == value for name, value in shown.items())
    again = Variant.from_fields(json.loads(json.dumps(msgspec.to_builtins(variant))))
    assert again == variant
    assert again.digest == variant.digest


@given(st.lists(ASSIGNED, min_size=1, max_size=2), st.booleans())
def test_fields_of_a_study(assigned, smoke):
    try:
        values = {name: parse(name, text) for name, text in assigned}
        study = get_study("methods", set=values, smoke=smoke)
    except InputError as error:
        is_for_a_person(error)
        return
    for variant in study.variants:
        assert (
            variant.min_steps or max(variant.warmup_epochs, variant.eval_every) <= variant.epochs
        )


VALID = (
    "--category=screw", "--seed=0", "--where=kernels=3", "--set=epochs=2", "--epochs=2", "--smoke",
    "--device=cpu", "--jobs=2", "--cache-limit=1", "--no-speed", "--json", "--random-weights",
    "--dataset=mvtec_ad", "--strict", "--executor=local",
)  # fmt: skip
PLAIN = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@st.composite
def tokens(draw, valid=VALID):
    """Words of a command line: valid ones, some with another value, and some that are none."""
    word = draw(st.sampled_from(valid))
    kind = draw(st.integers(0, 3))
    if kind == 1:
        return word.partition("=")[0] + "=" + draw(st.one_of(NUMBERS, PLAIN))
    return draw(PLAIN) if kind == 3 else word


@given(st.lists(tokens(), max_size=4))
def test_command_lines(words):
    out, err = StringIO(), StringIO()
    with TemporaryDirectory() as folder, redirect_stdout(out), redirect_stderr(err):
        line = ["list", "kernels"] if "--help" in words else [
            "rescore", "kernels", f"--results={folder}/r", *words]  # fmt: skip
        try:
            code = main(line)
        except SystemExit as error:
            code = error.code
    assert code in (0, 1, 2), err.getvalue()
    assert "Traceback" not in err.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_category(folder / "screw")
    return folder


OF_A_PLAN = (
    "--shard=1/3", "--on=2 nodes × 4 cores", "--on=1 nodes × 8 GPU", "--checkpoint-minutes=1",
    "--grow", "--keep", "--tf32", "--ray-address=a:1", "--executor=ray", "--variant=base",
    "--set=image_size=64", "--set=holdout=0.2", "--set=flow_steps=4", "--where=backbone=resnet18",
)  # fmt: skip


@given(st.lists(tokens((*VALID, *OF_A_PLAN)), max_size=4))
def test_plans(photos, words):
    out, err = StringIO(), StringIO()
    rates = estimate.Rates(1e-9, 1e-10, "a stopwatch", "cpu", "chip", threads=1, cores=2)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for module in (estimate, simulate):
            stack.enter_context(patch.object(module, "measured_rates", lambda *given: rates))
        for module in (estimate, shards):
            stack.enter_context(patch.object(module, "measure", counted.measure))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            code = main(["plan", "kernels", f"--data={photos}", f"--results={folder}/r", *words])
        except SystemExit as error:  # of argparse
            code = error.code
        assert not list(Path(folder).rglob("*.json")), "a plan records nothing"
    assert code in (0, 2), err.getvalue()
    assert "Traceback" not in err.getvalue()
    if code == 0 and "--json" in words and "--help" not in words:
        json.loads(out.getvalue(), parse_constant=pytest.fail)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
SOUND = msgspec.to_builtins(record(Variant(), "c", 0, 0.9))


def places(value, at=()):
    """Every place in a JSON value."""
    yield at
    keys = range(len(value)) if isinstance(value, list) else ()
    for key in value if isinstance(value, dict) else keys:
        yield from places(value[key], (*at, key))


@given(st.sampled_from(list(places(SOUND))[1:]), JSON, st.booleans())
def test_records(place, value, remove):
    content = deepcopy(SOUND)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    with TemporaryDirectory() as folder:
        file = Path(folder, "seed-0.json")
        file.write_text(json.dumps(content))
        try:
            assert isinstance(read_record(file), Record)
        except InputError as error:
            is_for_a_person(error, file)


CELLS = st.one_of(NUMBERS, st.text(st.characters(exclude_categories=["Cs"]), max_size=8), WORDS)
COLUMNS = [name for name in Published.__dataclass_fields__ if name != "decimals"]
ROW = dict(zip(COLUMNS, (
    "FastFlow", "table1", "FastFlow", "", "resnet18", "mvtec_ad", "mean", "image_auroc", "97.0",
    "%", "97.0", "confirmed", "here", "", ""), strict=True))  # fmt: skip


@given(st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=3), st.binary(max_size=3))
def test_rows_of_the_ledger(changes, tail):
    import csv

    with TemporaryDirectory() as folder:
        file = Path(folder, "l.csv")
        with file.open("w", newline="", encoding="utf-8") as text:
            table = csv.DictWriter(text, COLUMNS)
            table.writeheader()
            table.writerow(ROW | changes)
        file.write_bytes(file.read_bytes() + tail)
        try:
            assert read_published(file)
        except InputError as error:
            is_for_a_person(error, file)


@given(st.binary(max_size=60) | st.lists(st.lists(CELLS, max_size=5).map(",".join)).map(
    lambda lines: "\n".join(["path,split,label,mask,category", *lines]).encode()))  # fmt: skip
def test_manifests(content):
    with TemporaryDirectory() as folder:
        file = Path(folder, "m.csv")
        file.write_bytes(content)
        _open(file)


ROLES = ("train", "test", "good", "bad", "masks", "ground_truth", "0.png", "1.png", "0_mask.png",
         "0.json", "data_batch_1", "test_batch", "split_csv", "1cls.csv")  # fmt: skip
ANY = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9
)
NAME = st.one_of(st.sampled_from(ROLES), ANY).filter(lambda name: name not in (".", ".."))
PATH = st.lists(NAME, min_size=1, max_size=4)


@given(st.lists(st.tuples(PATH, st.binary(max_size=20)), max_size=8))
def test_trees(files):
    with TemporaryDirectory() as folder:
        for parts, content in files:
            path = Path(folder, *parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError:  # a file where a folder was
                continue
        _open(Path(folder))


def _open(data):
    """Open and load whatever is there: categories, or one line."""
    try:
        dataset = open_dataset("folder", folder=data, cache=data.parent)
        for name in dataset.categories():
            assert dataset.load(name).digest
    except (InputError, RunFailed) as error:
        is_for_a_person(error)


@given(st.sampled_from(sorted(HINTS)), st.text(max_size=20))
def test_any_text_is_read_or_refused(name, text):
    try:
        value = parse(name, text)
    except InputError:
        return
    assert parsed(name, show(value), HINTS[name]) == value or value == ()

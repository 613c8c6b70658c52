"""Every command with --json prints one JSON document and nothing else on standard output."""

import json
from dataclasses import fields

import pytest
from tiny import write_category

from harness.cli import main as cli
from harness.detect import export
from harness.paper import parameters
from harness.report import pages
from harness.run import estimate

SMALL = [
    "--set", "image_size=32", "--set", "taps=1", "--set", "flow_steps=1", "--epochs", "1",
    "--set", "batch_size=2", "--variant", "base", "--seed", "0", "--no-speed", "--jobs", "1",
]  # fmt: skip
SHOWN = [word for word in SMALL if word not in ("--no-speed", "--jobs")][:-1]  # without a machine
STUDY, LOOK = ["surfaces", "STUDY"], ["surfaces", "LOOK"]
# In an order in which each finds what those before it have left.
ASKED = {
    "list": [],
    "fields": [],
    "data list": [],
    "params": [],
    "gap": ["--variant", "base", "--category", "grass", "--results", "RESULTS"],
    "plan": STUDY,
    "doctor": ["--data", "DATA", "--results", "RESULTS"],
    "train": [*STUDY, "--out", "DETECTOR"],
    "run": [*STUDY, "--report"],
    "rescore": LOOK,
    "images": LOOK,
    "best": LOOK,
    "status": ["surfaces", "--results", "RESULTS", "--dataset", "bolts"],
    "merge": ["RESULTS", "--into", "MERGED"],
    "compare": ["RESULTS", "MERGED", "--results", "RESULTS"],
    "report": LOOK,
    "card": ["DETECTOR"],
    "predict": ["DETECTOR", "DATA/test", "--out", "FOUND"],
    "export": ["DETECTOR", "--format", "torch", "--out", "GRAPH"],
    "cache": ["--results", "RESULTS"],
    "cache --clear": ["--results", "RESULTS"],
}


def test_the_commands_are_those_that_take_json():
    commands = {name: c for group in cli.COMMANDS.values() for name, c in group.items()}
    take = {n for n, c in commands.items() if "json" in {f.name for f in fields(options_of(c))}}
    assert {name.removesuffix(" --clear") for name in ASKED} == take


def options_of(command):
    return cli._options_of(command)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where everything is that the commands share."""
    folder = tmp_path_factory.mktemp("json")
    data = write_category(folder / "bolts", good=4, bad=2)
    named = {
        "RESULTS": "r",
        "DETECTOR": "d.safetensors",
        "FOUND": "found",
        "GRAPH": "d.pt2",
        "MERGED": "m",
    }
    return {"DATA": data} | {word: folder / name for word, name in named.items()}


@pytest.mark.whole
def test_standard_output_is_one_document(places, capfd, monkeypatch):
    page = places["RESULTS"] / "page.html"
    for name in ("write_report", "write_qualitative"):  # a notebook takes seconds
        monkeypatch.setattr(pages, name, lambda *given, **more: page)
    monkeypatch.setattr(export, "export", lambda *given: export.Difference(0.0, 0.0, 1))
    rates = estimate.Rates(1e-10, 1e-11, "a stopwatch")
    monkeypatch.setattr(estimate, "measured_rates", lambda records, settings: rates)
    counts = {"readings": [], "variants": {}}  # what counting gives has tests of its own
    monkeypatch.setattr(parameters, "hypotheses", lambda: iter(()))
    monkeypatch.setattr(parameters, "accounting", lambda figures, variants: counts)
    for command in ASKED:
        check(command, places, capfd, page)


def check(command, places, capfd, page):
    where = ["--data", "DATA", "--results", "RESULTS"]
    given = [w for word in ASKED[command] for w in {
        "STUDY": [*SMALL, *where], "LOOK": [*SHOWN, *where]
    }.get(word, [word])]  # fmt: skip
    for word, path in places.items():
        given = [w.replace(word, str(path)) for w in given]
    code = cli.main([*command.split(), *given, "--json"])
    printed = capfd.readouterr()
    assert code in (0, 1), printed.err  # of gap: nothing is recorded
    content = json.loads(printed.out, parse_constant=pytest.fail)
    assert content or command == "params"
    if command == "train":
        assert content["file"] == str(places["DETECTOR"])
        assert content["threshold"]["images"] == content["calibration"]["images"] == 2
    if command == "report":
        assert content == [str(page)] * 2

"""What is equal bit for bit whatever else changes, and how far apart what is not: a test a line.

The lines are those of docs/determinism.md.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SPEC, Here, lasting

from harness.data.datasets import open_dataset
from harness.experiment.store import read_records
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.features.passing import extract, splits_of
from harness.methods.flow import compiled
from harness.run import sweep
from harness.run.checkpoint import Checkpoint
from harness.run.history import History
from harness.run.model import make_model
from harness.run.plan import make_plan
from harness.run.process import be_deterministic
from harness.run.sweep import run_study
from harness.run.train import train

SHAPES = ((32, 16, 16), (48, 8, 8))
TRAININGS = {
    "fastflow": Variant(flow_steps=2, kernels=(3, 1), epochs=2, batch_size=4, actnorm="data"),
    "bfloat16": Variant(
        flow_steps=2, kernels=(3, 1), epochs=2, batch_size=4, precision="bfloat16"
    ),
    "cflow": Variant().replace(
        method="cflow", flow_steps=1, epochs=1, warmup_epochs=0, batch_size=4
    ),
    "differnet": Variant().replace(
        method="differnet", flow_steps=1, hidden_channels=16, epochs=2, batch_size=4
    ),
}


@pytest.fixture
def deterministic():
    be_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


def learnt(variant, *, threads=1, grown=(), history=None):
    """The energies of a training on drawn features; threads grow as a history says."""
    torch.set_num_threads(threads)
    steps = {(epoch, batches): then for epoch, batches, then in grown}
    growing = Checkpoint(granted=lambda now: steps.get((now.epoch, now.batches), 0))
    shapes = ((48, 8, 1),) if variant.method == "differnet" else SHAPES
    rng = np.random.default_rng(0)
    good, test = (
        [rng.normal(size=(n, *shape)).astype(np.float32) for shape in shapes] for n in (8, 4)
    )
    model = make_model(variant, shapes, 0)
    history = train(
        model, good, test, variant=variant, seed=0, checkpoint=growing, history=history
    )
    energies = history.energies[max(history.energies)]
    return [e.numpy() for e, _ in energies.taps] or [energies.images.numpy()]


def apart(one, other):
    """The largest difference, as a share of the largest number."""
    return max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(one, other, strict=True))


def test_features_are_the_same_with_any_number_of_threads(data, tmp_path):
    category = open_dataset("mvtec_ad", folder=data, cache=tmp_path).load("left")
    extractor, found = Extractor.load(replace(SPEC, weights="random")), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        folder = tmp_path / str(threads)
        folder.mkdir()
        for split in splits_of(category, SPEC):
            extract(folder, split, extractor, "cpu", lambda images: None)
        assert torch.get_num_threads() == threads
        found.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert len(found[0]) == 4
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_of_one_seed_is_the_same(name, deterministic):
    one, again = (learnt(TRAININGS[name]) for _ in range(2))
    assert apart(one, again) == 0


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_with_other_numbers_of_threads(name, deterministic):
    one, two = (learnt(TRAININGS[name], threads=n) for n in (1, 2))
    assert apart(one, two) < (1e-2 if name == "bfloat16" else 1e-4)


@pytest.mark.parametrize("name", ["fastflow", "bfloat16"])
@pytest.mark.whole
def test_trainings_whose_threads_grow(name, deterministic):
    variant, history = TRAININGS[name], History()
    one = learnt(variant)
    grown = learnt(variant, grown=[(1, 1, 2)], history=history)
    assert history.grown == [(1, 0, 1), (1, 1, 2)]
    assert torch.get_num_threads() == 2
    assert apart(one, grown) < (1e-2 if name == "bfloat16" else 1e-4)
    assert apart(grown, learnt(variant, grown=history.grown)) == 0


@pytest.mark.skipif(compiled.library() is None, reason="needs a C++ compiler")
def test_compiled_and_plain_steps_differ_by_rounding(deterministic, monkeypatch):
    one = learnt(TRAININGS["fastflow"])
    monkeypatch.setattr("harness.methods.fastflow.can_run_compiled", lambda steps, x: False)
    plain = learnt(TRAININGS["fastflow"])
    assert 0 < apart(one, plain) < 1e-4


def test_a_cold_and_a_warm_cache_give_the_same_record(study, settings, monkeypatch):
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    only = replace(study, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False)
    found = []
    for passes in (16, 0):
        outcome = run_study(make_plan(only, settings), settings, lambda text: None)
        assert outcome.passes == passes
        found += map(lasting, read_records(settings.results))
        for file in (settings.results / "runs").rglob("seed-0.*"):
            file.unlink()
    torch.use_deterministic_algorithms(False)
    assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.parametrize("change", [("--jobs", "2"), "environment"])
def test_runs_beside_each_other_and_other_environments_give_the_same_record(
    change, settings, tmp_path
):
    """Cores are not taken: as many threads for a run, so that only what is named changes."""
    more = {
        "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "3", "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", ""),
    }  # fmt: skip
    found = []
    for name in ("one", "other"):
        other = name == "other"
        arguments = [
            sys.executable, "-m", "harness", "run", "kernels", "--data", str(settings.data),
            "--results", str(tmp_path / name), "--epochs", "2", "--random-weights", "--no-speed",
            "--set", "image_size=32", "--set", "flow_steps=1", "--category", "left",
            "--seed", "0", "--seed", "1",
            *(change if other and isinstance(change, tuple) else ("--jobs", "1")),
        ]  # fmt: skip
        env = {**os.environ, **(more if other and change == "environment" else {})}
        subprocess.run(arguments, check=True, capture_output=True, env=env)
        found.append([*map(lasting, read_records(tmp_path / name))])
    for records in found:
        for record in records:
            del record["environment"]["threads"]
    assert found[0] == found[1]


def test_every_line_of_the_page_names_a_test_that_is_there():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "determinism.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 8
    for file, test in named:
        assert f"\ndef {test}(" in (root / file).read_text(encoding="utf-8"), test
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert all("::test_" in line or "no test" in line for line in rows if "| test |" not in line)

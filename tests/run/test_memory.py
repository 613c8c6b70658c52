"""How much memory a run takes: counted by pencil, held against a step's, and what fits."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from handmade import changed, record

from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.experiment.variant import Variant
from harness.methods.patchcore import PatchCore
from harness.run import machine, memory
from harness.run.measure import measure
from harness.run.memory import fitting_runs, run_memory, saved_bytes, study_memory

GIB = 2**30
TINY = Variant(
    backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1, 2), flow_steps=2,
    batch_size=8,
)  # fmt: skip


def test_parts_by_pencil():
    parts = run_memory(TINY, 100, 50)
    cost = measure(TINY)
    additional = cost.parameters.additional
    frozen = 8 * cost.parameters.frozen  # permutations and their inverses among the buffers
    assert 16 * additional <= parts["model"] <= 16 * additional + 4 * frozen
    assert parts["features"] == 2 * 8 * 4 * sum(c * h * w for c, h, w in cost.shapes)
    pixels = 50 * 64 * 64
    maps, read = 16 * 64 * 64 * 4 * 7, 2 * 50 * 2 * 4 * (16 * 16 + 8 * 8)
    assert parts["scoring"] == int(16 * 0.03 * pixels + pixels / 8 + 4 * pixels + maps + read)
    more, longer = run_memory(TINY, 100, 100), run_memory(TINY.replace(epochs=9), 100, 50)
    assert more["scoring"] > parts["scoring"]
    assert longer == parts


def test_a_model_is_counted_once_for_all_variants_that_share_it(monkeypatch):
    make, made = memory.make_model, []
    monkeypatch.setattr(memory, "make_model", lambda *given: made.append(given) or make(*given))
    monkeypatch.setattr(memory, "_COUNTED", {})
    parts = [
        run_memory(TINY.replace(**change), 100, 50)
        for change in ({}, {"learning_rate": 0.5}, {"epochs": 9, "smoothing": 1.0}, {"ema": 0.9})
    ]
    assert parts[0] == parts[1] == parts[2]
    assert parts[3]["model"] > parts[0]["model"]
    assert len(made) == 2
    run_memory(TINY.replace(clamp="atan"), 100, 50)
    assert len(made) == 3


def test_scoring_ten_thousand_images_at_448_pixels_is_bounded():
    shapes = ((64, 112, 112), (128, 56, 56), (256, 28, 28))
    assert memory.scoring_memory(Variant(image_size=448), shapes, 10_000) < 2 * GIB


class Squares(torch.nn.Module):
    """A loss that saves one tensor of its own, twice."""

    def losses(self, features):
        y = features[0] * self.weight
        yield (y * y).sum()

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1, device="meta"))


def test_what_a_step_saves_by_pencil():
    features = [torch.empty(5, 3, 2, 2, device="meta")]
    assert saved_bytes(Squares(), features) == 5 * 3 * 2 * 2 * 4


def test_a_step_grows_with_its_batch():
    (_, one), (_, two) = (memory._training(TINY, ((8, 16, 16),), 9, batch) for batch in (4, 8))
    assert two == pytest.approx(2 * one, rel=0.05)


STEP = """
import gc
from pathlib import Path
import torch
from harness.experiment.variant import Variant
from harness.run.memory import _training
from harness.run.model import make_model

shapes, batch = ((64, 64, 64),), 8
variant = Variant(flow_steps=4, image_size=256, taps=(1,))
def held(word):
    return int(Path("/proc/self/status").read_text().split(word)[1].split()[0]) * 1024
def step(images):
    features = [torch.randn(images, *s).contiguous(memory_format=torch.channels_last)
                for s in shapes]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS:")
    next(model.losses(features)).backward()
    return held("VmHWM:") - before
model = make_model(variant, shapes, 0).to(memory_format=torch.channels_last)
step(1)
print(step(batch) / _training(variant, shapes, 10, batch)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.long
def test_a_real_step_takes_about_what_was_counted():
    done = subprocess.run(
        [sys.executable, "-c", STEP], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0.5 < float(done.stdout) < 1.2  # the compiled pass saves less than the plain steps


def test_a_bank_and_its_fit_are_counted():
    parts = run_memory(Variant().replace(method="patchcore", image_size=64, taps=(1, 2)), 100, 50)
    model = PatchCore(((64, 16, 16), (128, 8, 8)))
    model.fill(100)
    assert parts["model"] == model.bank_bytes == 2560 * 192 * 4
    assert parts["step"] == model.fit_bytes(100) > 25_600 * 192 * 4


@pytest.mark.parametrize("method", ["spade", "padim", "patchcore", "cflow", "differnet"])
def test_every_method_is_counted(method):
    parts = run_memory(Variant().replace(method=method, image_size=64), 20, 10)
    assert parts["all"] > memory.PROCESS
    assert parts["model"] > 0


def test_padim_counts_the_rows_that_it_fits_together():
    from harness.methods.padim import PaDiM

    model = PaDiM([(8, 4, 4)], channels=4)
    assert model.fit_bytes(10) == 16 * 4 * (16 * 10 + 32 * 4)
    model.fit([np.random.default_rng(0).normal(size=(9, 8, 4, 4))])
    assert model.bank_bytes == 16 * (4 + 16) * 4


def test_a_record_of_the_same_training_says_what_it_took():
    cells = [Cell(TINY, "a", 0), Cell(TINY.replace(smoothing=4.0), "a", 0), Cell(TINY, "b", 1)]
    sizes = {"a": (100, 50), "b": (20, 10)}
    counted = study_memory(cells, sizes)
    assert counted[TINY.digest] == run_memory(TINY, 100, 50)["all"]
    made = msgspec.convert(
        changed(record(TINY, "a", 0, 0.9), measured={"peak_memory_bytes": 9 * GIB}), Record
    )
    assert set(study_memory(cells, sizes, [made], device="cpu").values()) == {9 * GIB}
    made = msgspec.structs.replace(
        made, environment=msgspec.structs.replace(made.environment, device="cuda")
    )
    assert study_memory(cells, sizes, [made]) == counted


@pytest.mark.parametrize(
    ("jobs", "free", "runs", "warns"),
    [(0, 100, 8, False), (0, 7, 3, False), (0, 1, 1, False), (3, 7, 3, False), (4, 7, 4, True)],
)
def test_no_more_runs_than_fit(monkeypatch, jobs, free, runs, warns):
    monkeypatch.setattr(memory, "available_memory", lambda: free * GIB)
    monkeypatch.setattr(machine, "cores", lambda: 12)
    found, said = fitting_runs(Settings(device="cpu", jobs=jobs), 2 * GIB)
    assert (found, bool(said)) == (runs, warns)
    if said:
        assert said == (
            "warning: --jobs 4 takes up to 8.0 GiB of memory, and 7.0 GiB are available; 3 fit"
        )


def test_memory_that_is_there():
    assert 2**20 < machine.available_memory() < 2**50


def test_a_control_group_bounds_it(monkeypatch):
    monkeypatch.setattr(machine, "group_memory", lambda: [3000, 2000])
    assert machine.available_memory() == 2000
    monkeypatch.setattr(machine, "group_memory", lambda: [])
    assert machine.available_memory() > 2**20

"""Checkpoints: a training that is stopped anywhere and taken up gives what an unbroken one gives."""

import numpy as np
import pytest
import torch

from harness.experiment.variant import Variant
from harness.features.defective import DefectiveCopies
from harness.run import stop
from harness.run.checkpoint import Checkpoint
from harness.run.energies import load_energies, writing_energies
from harness.run.model import make_model
from harness.run.stop import Stopped
from harness.run.train import train

SHAPES = ((6, 4, 4), (8, 2, 2))
SOURCE = {"data": "d", "weights": "w", "arithmetic": "a"}
BASE = Variant(
    flow_steps=2, kernels=(3, 1), epochs=4, batch_size=4, learning_rate=1e-2, eval_every=2
)
EVERYTHING = {
    "ema": 0.5, "feature_noise": 0.1, "augmentation": "flips", "augmentation_copies": 3,
    "schedule": "cosine", "warmup_steps": 3, "holdout": 0.3, "actnorm": "data", "norm": "batch",
    "base": "learned", "base_every": 2, "gradient_clip": 1.0, "subnet_norm": "batch",
    "position_channels": 8, "optimiser": "adamw", "weight_decay": 0.1, "drop_last": True,
    "validation": "synthetic", "coupling": "two-sided",
}  # fmt: skip
SMALL = {"epochs": 3, "batch_size": 4, "warmup_epochs": 0, "eval_every": 1}
VARIANTS = {
    "plain": BASE,
    "everything": BASE.replace(**EVERYTHING),
    "everything, bfloat16": BASE.replace(**EVERYTHING, precision="bfloat16"),
    "whiten": BASE.replace(norm="whiten", actnorm="affine", precision="bfloat16"),
    "turned": BASE.replace(test_turns=2, schedule="cosine"),
    "cflow": Variant().replace(method="cflow", flow_steps=1, **SMALL),
    "cflow, bfloat16": Variant().replace(
        method="cflow", flow_steps=1, precision="bfloat16", holdout=0.3, **SMALL
    ),
    "differnet": Variant().replace(method="differnet", flow_steps=1, hidden_channels=8, **SMALL),
}


def features(images, seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *shape)).astype(np.float32) for shape in shapes]


class Asking:
    """Ask the training to stop at its n-th look: before each batch, and within evaluations."""

    def __init__(self, at):
        self.left = at

    def __call__(self):
        self.left -= 1
        if self.left == 0:
            stop._Asked.stop = True
        return stop._Asked.stop


@pytest.fixture(autouse=True)
def nobody_asks():
    yield
    stop._Asked.stop = False
    stop._Asked.deferred = 0


def trained(path, variant, *, minutes=0.0, enough=lambda history: False, said=None, **options):
    """One start of a training; what is left, read from its file."""
    shapes = ((9, 4, 1),) if variant.method == "differnet" else SHAPES
    good, test = features(10, 0, shapes), features(5, 1, shapes)
    options = {
        "augmented": features(30, 2, shapes) if variant.augmentation != "none" else (),
        "turned": features(10, 3, shapes) if variant.test_turns else (),
        "defective": DefectiveCopies(features(10, 4, shapes), np.zeros((10, 2), np.uint8))
        if variant.validation != "none" else None,
        **options,
    }  # fmt: skip
    point = Checkpoint(
        path.with_suffix(".checkpoint"), {"code": "1"}, minutes,
        (lambda text: None) if said is None else said.append,
    )  # fmt: skip
    with writing_energies(path, **SOURCE, writing=point.grow) as history:
        model = make_model(variant, shapes, 0)
        train(
            model, good, test, variant=variant, seed=0, history=history, enough=enough,
            checkpoint=point, **options,
        )  # fmt: skip
    return model, load_energies(path, **SOURCE)


def restarted(path, variant, monkeypatch, *, every, **options):
    """Started again and again, and stopped after so many looks each time."""
    starts = 0
    while True:
        starts += 1
        stop._Asked.stop = False
        asking = Asking(every + starts)  # the later, the longer: an evaluation has many looks
        monkeypatch.setattr("harness.run.checkpoint.is_asked", asking)
        monkeypatch.setattr("harness.run.watch.check", lambda asking=asking: stops(asking))
        try:
            return *trained(path, variant, **options), starts
        except Stopped:
            assert not path.exists()
            assert path.with_suffix(".checkpoint").is_file()
            assert len(list(path.parent.iterdir())) == 2, "a checkpoint and its energies"


def stops(asking):
    if asking():
        raise Stopped


def equal(one, other):
    (model, history), (again, resumed) = one, other
    assert resumed.loss == history.loss
    assert resumed.holdout == history.holdout
    assert resumed.bank_bytes == history.bank_bytes
    read, wanted = (
        {n: h.energies.read(n) for n in h.energies._zip.namelist() if n != "about.npy"}
        for h in (resumed, history)
    )
    assert sorted(read) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(read[name], array, name)
    for (name, value), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_stopped_anywhere_is_taken_up_bit_for_bit(name, tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole" / "seed-0.npz", VARIANTS[name])
    path = tmp_path / "again" / "seed-0.npz"
    *again, starts = restarted(path, VARIANTS[name], monkeypatch, every=3)
    assert starts > 3
    equal(whole, again)
    assert [p.name for p in path.parent.iterdir()] == ["seed-0.npz"]

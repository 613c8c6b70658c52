"""Every path that a GPU takes, on a pretended one: what it says is what the processor says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pretended import NAME, pretended_cuda
from tiny import TINY, Here

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.detect.inference import fused
from harness.experiment.choices import METHODS
from harness.experiment.record import read_records
from harness.experiment.settings import Settings
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.methods import fastflow
from harness.methods.fastflow import FastFlow
from harness.run import estimate, measure
from harness.run.machine import settle, torch_device
from harness.run.measure import measure_speeds
from harness.run.model import make_model
from harness.run.plan import make_plan
from harness.run.process import arithmetic_inside, be_deterministic, draws_apart
from harness.run.sweep import run_study
from harness.run.train import train
from harness.run.watch import energies_of

SHAPES = ((6, 4, 4), (8, 2, 2))
VIEWS = ((6, 8, 1), (8, 8, 1))
FLOW = {"flow_steps": 2, "epochs": 2, "batch_size": 4, "eval_every": 1, "holdout": 0.3}
SMALL = {
    "cflow": {"warmup_epochs": 1, "flow_steps": 2},
    "differnet": {"hidden_channels": 8, "views": 8, "flow_steps": 2},
    "padim": {"channels": 5},
    "patchcore": {"coreset": 0.3},
    "spade": {"neighbours": 3},
}
TRAINED = {"epochs": 2, "batch_size": 4, "eval_every": 1, "holdout": 0.3}
BY_METHOD = {
    name: Variant().replace(
        method=name, **SMALL.get(name, {"flow_steps": 2}), **TRAINED if entry.trained else {}
    )
    for name, entry in METHODS.items()
}
OF_FASTFLOW = {
    "two-sided, none": {"coupling": "two-sided", "norm": "none", "actnorm": "none"},
    "data, batch": {"actnorm": "data", "norm": "batch", "permutation": "reverse"},
    "affine, clipped": {"norm": "layer-affine", "loss": "mean", "gradient_clip": 1.0},
    "bfloat16": {"precision": "bfloat16"},
    "adamw": {"optimiser": "adamw", "schedule": "cosine", "warmup_epochs": 1},
    "additive, zero last": {"coupling_function": "additive", "zero_last": True},
    "subnets' layer norm, position": {"subnet_norm": "layer", "position_channels": 8},
    "subnets' batch norm, average": {"subnet_norm": "batch", "ema": 0.5},
    "learned base, noise": {"base": "learned", "base_every": 2, "feature_noise": 0.1},
}
CASES = BY_METHOD | {k: BY_METHOD["fastflow"].replace(**v) for k, v in OF_FASTFLOW.items()}


@pytest.fixture(autouse=True)
def plain_steps(monkeypatch):
    """A GPU takes the plain steps, so the processor does here; what is set is taken back."""
    taken = fastflow.can_run_compiled

    def only_asked(steps, x):
        assert not (x.device.type == "cuda" and taken(steps, x))
        return False

    monkeypatch.setattr(fastflow, "can_run_compiled", only_asked)
    for module in (measure, estimate):
        monkeypatch.setattr(module, "cores", lambda: 1)
    with arithmetic_inside(tf32=False):
        yield
    torch.use_deterministic_algorithms(False)


def arrays(shapes, images, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *shape)).astype(np.float32) for shape in shapes]


def tensors(energies):
    return [*(t for tap in energies.taps for t in tap), energies.images]


def same(a, b, error=0.0):
    assert [x is None for x in a] == [x is None for x in b]
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=error, atol=error)


# --- the pretended device ------------------------------------------------------------------------


def test_the_pretended_device_refuses_what_a_gpu_refuses():
    here = torch.ones(3)
    with pretended_cuda():
        there = here.to("cuda")
        assert (there.device, there.cpu().device) == (torch.device("cuda:0"), here.device)
        for mixed in (
            lambda: there + here,
            lambda: torch.cat((there, here)),
            lambda: here @ there,
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            here[torch.zeros(1, dtype=torch.int64, device="cuda")]
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())
        be_deterministic()
        with pytest.raises(RuntimeError, match="cumsum does not have a deterministic"):
            there.cumsum(0)
        assert (there * torch.tensor(2.0)).tolist() == [2.0] * 3  # a number may be anywhere
        assert there[torch.tensor([0])].device.type == "cuda"  # and so may an index


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_learning_and_scoring(name):
    variant = CASES[name]
    shapes = VIEWS if variant.method == "differnet" else SHAPES
    found = []
    be_deterministic()
    for device in ("cpu", "cuda"):
        with pretended_cuda():
            model = make_model(variant, shapes, 0)
            good, test = arrays(shapes, 10), arrays(shapes, 5, 1)
            history = train(model, good, test, variant=variant, seed=0, device=device)
            last = max(history.energies)
            state = [*model.parameters(), *model.buffers()]
            assert {t.device.type for t in state} == {device}
            again = energies_of(model, test, variant, device)
        same(tensors(again), tensors(history.energies[last]))
        found.append(history)
    cpu, cuda = found
    assert cuda.loss == cpu.loss
    assert cuda.holdout == cpu.holdout
    assert cuda.bank_bytes == cpu.bank_bytes
    # What is fitted lies elsewhere in memory, and products are then summed in another order.
    error = 0.0 if model.trained else 1e-6
    same(tensors(cuda.energies[last]), tensors(cpu.energies[last]), error)


def test_evaluation_leaves_the_devices_generator_as_it_was():
    with pretended_cuda():
        torch.cuda.set_rng_state("before")
        with draws_apart(torch.nn.Identity(), seed=3, device="cuda:0"):
            assert torch.cuda.get_rng_state() == 3
        assert torch.cuda.get_rng_state() == "before"


# --- images --------------------------------------------------------------------------------------


def loaded(views=0):
    return Extractor.load(replace(TINY.feature_spec, views=views))


@pytest.mark.parametrize("views", [0, 2])
def test_features(tmp_path, data, views):
    category, found = MvtecAd(data).load("left"), []
    for device in ("cpu", "cuda"):
        extractor = loaded(views)
        key = FeatureKey.of(extractor, category, f"{device} float32")
        with pretended_cuda():
            cache = FeatureCache(tmp_path)
            features = cache.ensure(key, extractor, category, device=device)
        found.append([np.array(a) for a in (*features.train, *features.test)])
        assert cache.passes == 16
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_inference(precision):
    extractor = loaded()
    model = FastFlow(
        extractor.shapes, norm="layer", flow_steps=2, kernels=(3, 1), actnorm="affine"
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.energies(extractor.backbone(images)).taps
    with pretended_cuda():
        path = fused(extractor.backbone.to("cuda"), model.to("cuda"), precision=precision)
        taps = [(e.cpu(), j.cpu()) for e, j in path(images.to("cuda"))]
    error = 0.05 if precision == "bfloat16" else 1e-5
    for (e, j), (e_fast, j_fast) in zip(plain, taps, strict=True):
        torch.testing.assert_close(e_fast, e, rtol=error, atol=error)
        torch.testing.assert_close(j_fast, j, rtol=error, atol=error)


# --- speed ---------------------------------------------------------------------------------------


def test_speeds_of_every_method():
    variants = [
        v.replace(
            **{f: getattr(TINY, f) for f in ("backbone", "image_size", "taps")}, weights="random"
        )
        for v in BY_METHOD.values()
    ]
    specs = dict.fromkeys(v.feature_spec for v in variants)
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.run.measure.ROUNDS", 1)
        patch.setattr("harness.run.measure.SPEED_BATCH", 2)
        extractors = {s: Extractor.load(s) for s in specs}
        speeds = measure_speeds(variants, extractors, kept=4, device="cuda")
        assert all(
            p.device.type == "cuda" for x in extractors.values() for p in x.backbone.parameters()
        )
    assert all(s.device == "cuda" and s.fps > 0 for s in speeds.values())


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_probe_waits_for_its_own_device(device):
    waited = []
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
        patch.setattr(estimate, "PROBE_ROUNDS", 1)
        rates = estimate._probe(device, 1)
    assert 0 < rates.infer
    assert 0 < rates.train
    assert set(waited) == ({device} if device != "cpu" else set())


# --- a whole study -------------------------------------------------------------------------------


class Counted:
    calls = 0

    def __call__(self):
        self.calls += 1


class Waiting(Here):
    """Notes how often memory was given back before it is given the first task."""

    def __init__(self, given_back):
        self.given_back, self.before = given_back, None

    def run(self, tasks):
        self.before = self.given_back.calls
        yield from super().run(tasks)


@pytest.mark.parametrize("tf32", [False, True])
def test_a_whole_study(settings, tf32):
    base = TINY.replace(epochs=1, eval_every=1)
    bases = {"fastflow": base, "padim": base.replace(method="padim", channels=5)}
    study = Study(name="two", asks="Do they run?", bases=bases, seeds=(0,))
    there = replace(settings, categories=("left",), device="auto", tf32=tf32, speed=tf32)
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        assert torch_device("auto") == settle(there).device == "cuda"
        given_back = Counted()
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "empty_cache", given_back)
        executor = Waiting(given_back)
        outcome = run_study(make_plan(study, there), there, lambda text: None, executor=executor)
    assert executor.before  # the workers find no memory held of what was done here
    assert outcome.failed == []
    for record in read_records(there.results):
        about = record.environment
        assert (about.device, about.device_name) == ("cuda", NAME)
        assert about.compiled is False  # what runs on a GPU
        assert about.arithmetic == ("cuda tf32" if tf32 else "cuda float32")
        assert record.metrics["image_auroc"] > 0.5
        assert record.measured.speed.device == ("cuda" if tf32 else None)
    names = [about["arithmetic"] for _, about, _ in entries(there)]
    assert names == [f"cuda {'tf32' if tf32 else 'float32'}"]


def entries(settings: Settings):
    found = FeatureCache(settings.cache / "features").entries()
    return [(folder, about["key"], size) for folder, about, size in found]

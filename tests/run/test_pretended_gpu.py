"""Every path that a GPU takes, on a pretended one: what it says is what the processor says."""

import multiprocessing as mp
import os
from dataclasses import replace
from multiprocessing.connection import Connection

import msgspec
import numpy as np
import pytest
import torch
from handmade import changed, record
from pretended import ALL, FREE, NAME, pretended_cuda
from tiny import TINY, Here

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.detect.inference import fused
from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.methods import fastflow
from harness.methods.fastflow import FastFlow
from harness.run import estimate, job, measure, probe
from harness.run.executors import local
from harness.run.machine import settle, torch_device
from harness.run.measure import measure_speeds
from harness.run.memory import fitting_runs
from harness.run.model import make_model
from harness.run.plan import make_plan
from harness.run.probe import gpu_memory, try_steps
from harness.run.process import arithmetic_inside, be_deterministic, draws_apart
from harness.run.sweep import run_study
from harness.run.train import train
from harness.run.watch import energies_of

GIB = 2**30
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
        other = there.to("cuda:1")
        assert (other.device, (other * 2).device) == (torch.device("cuda:1"),) * 2
        assert (other.to(there.device).device, other.cpu().tolist()) == (there.device, [1.0] * 3)
        with pytest.raises(RuntimeError, match="same device"):
            other + there
        with pytest.raises(RuntimeError, match="ordinal"):
            there.to("cuda:2")


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
        patch.setattr(probe, "apart", lambda function, *given: function(*given))
        executor = Waiting(given_back)
        outcome = run_study(make_plan(study, there), there, lambda text: None, executor=executor)
    assert executor.before  # the workers find no memory held of what was done here
    assert outcome.failed == []
    for made in read_records(there.results):
        about = made.environment
        assert (about.device, about.device_name) == ("cuda", NAME)
        assert about.compiled is False  # what runs on a GPU
        assert about.arithmetic == ("cuda tf32" if tf32 else "cuda float32")
        assert made.metrics["image_auroc"] > 0.5
        assert made.measured.speed.device == ("cuda" if tf32 else None)
    names = [about["arithmetic"] for _, about, _ in entries(there)]
    assert names == [f"cuda {'tf32' if tf32 else 'float32'}"]


def entries(settings: Settings):
    found = FeatureCache(settings.cache / "features").entries()
    return [(folder, about["key"], size) for folder, about, size in found]


# --- several GPUs --------------------------------------------------------------------------------

BOTH = Settings(device="cuda:0,cuda:1")


@pytest.mark.parametrize(
    "named", ["cuda:0,cuda:0", "cpu,cuda:0", "cuda,cuda:1", "cpu,cpu", "cuda:0,auto", "cuda:0,"]
)
def test_several_devices_are_gpus_each_once(named):
    with pretended_cuda(), pytest.raises(InputError, match=r"^--device: expected [^\n]+; got"):
        settle(Settings(device=named))


def test_several_gpus_are_settled_one_by_one():
    with pretended_cuda():
        assert settle(Settings(device="cuda:1, cuda:0")).devices == ("cuda:1", "cuda:0")
        with pytest.raises(InputError, match=r"got cuda:2 .*ordinal"):
            settle(Settings(device="cuda:0,cuda:2"))


@pytest.mark.parametrize(
    ("jobs", "need", "runs", "said"),
    [
        (0, 10, 8, "8 runs at a time on cuda:0,cuda:1: one takes up to 10.0 GiB, 54.0 GiB are"),
        (0, 20, 4, "4 runs at a time on cuda:0,cuda:1: one takes up to 20.0 GiB"),
        (0, 30, 2, ""),
        (0, 80, 2, ""),
        (3, 20, 3, ""),
        (5, 20, 5, "warning: --jobs 5 takes up to 60.0 GiB of memory of cuda:0,cuda:1, and 54.0"),
    ],
)
def test_as_many_runs_on_each_gpu_as_fit(jobs, need, runs, said):
    with pretended_cuda():
        found, text = fitting_runs(replace(BOTH, jobs=jobs), need * GIB)
    assert (found, text[: len(said)], bool(text)) == (runs, said, bool(said))


@pytest.mark.parametrize("name", ["fastflow", "cflow", "patchcore", "spade"])
def test_a_step_is_tried_on_its_own_gpu(name):
    fields = ("backbone", "image_size", "taps", "weights")
    variant = BY_METHOD[name].replace(**{f: getattr(TINY, f) for f in fields})
    asked = []
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        peak = torch.cuda.max_memory_reserved
        patch.setattr(
            torch.cuda, "max_memory_reserved", lambda device: asked.append(device) or peak()
        )
        left, (took,) = try_steps([(variant, 40)], "cuda:1", False)
    assert (left, asked) == (FREE, ["cuda:1"])
    assert took == 3 * GIB if METHODS[name].trained else took > 3 * GIB  # scaled to 40 images


def test_what_a_run_takes_is_tried_once_and_kept(tmp_path, monkeypatch):
    settings, tried = replace(BOTH, results=tmp_path), []

    def apart(function, wanted, *given):
        tried.append([(v.method, images) for v, images in wanted])
        return FREE - GIB, [5 * GIB if v.method == "fastflow" else 0 for v, _ in wanted]

    monkeypatch.setattr(probe, "apart", apart)
    flow, padim = TINY, TINY.replace(method="padim", channels=5)
    runs = [(flow, "a", 30), (flow.replace(smoothing=9.0), "a", 30), (padim, "a", 30)]
    with pretended_cuda():
        found, said = gpu_memory(runs, [], settings)
        assert found == {runs[0][0].digest: 6 * GIB, runs[1][0].digest: 6 * GIB, padim.digest: ALL}
        assert said == (
            "cuda:0: one training step of 2 variants tried for its memory; 1 failed, and count "
            "as all of it"
        )
        assert tried == [[("fastflow", 8), ("padim", 30)]]
        assert gpu_memory(runs[:2], [], settings)[1] == ""
        again, _ = gpu_memory(runs, [], settings, probing=False)
        assert again == found
        made = msgspec.convert(
            changed(
                record(padim, "a", 0, 0.9),
                measured={"peak_memory_bytes": 9 * GIB},
                environment={
                    "device": "cuda:1",
                    "device_name": NAME,
                    "arithmetic": "cuda float32",
                },
            ),
            Record,
        )
        assert gpu_memory(runs[2:], [made], settings)[0] == {padim.digest: 10 * GIB}
        assert len(tried) == 1
        for damage in ("{", '{"schema": 2}', '{"steps": {"a": "b"}}'):
            (settings.cache / "gpu-memory.json").write_text(damage)
            assert gpu_memory(runs[:1], [], settings)[0] == {flow.digest: 6 * GIB}
        assert len(tried) == 4


def test_a_probe_that_dies_leaves_one_run_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "apart", lambda *given: None)
    with pretended_cuda():
        found, said = gpu_memory([(TINY, "a", 8)], [], replace(BOTH, results=tmp_path))
        assert fitting_runs(BOTH, max(found.values())) == (2, "")
    assert "its process died" in said


@pytest.mark.parametrize(
    ("free", "left", "takes"),
    [
        ([60, 58, 58, 58], 57, 1),  # another process starts, and is still then
        ([58, 60, 60, 60], 59, 1),  # another ends
        ([60, 58, 60, 58, 60, 58], 57, 3),  # others are never still: the most that it can be
    ],
)
def test_a_probe_is_taken_again_while_others_take_memory(tmp_path, monkeypatch, free, left, takes):
    """By GiB of the GPU that are free before and after each try, and inside it."""
    monkeypatch.setattr(probe, "apart", lambda *given: (left * GIB, [5 * GIB]))
    readings = iter(free)
    with pretended_cuda():
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device=None: (next(readings, 60) * GIB, ALL)
        )
        found, _ = gpu_memory([(TINY, "a", 8)], [], replace(BOTH, results=tmp_path))
    assert found == {TINY.digest: (5 + takes) * GIB}


class Line(Connection):
    """To a worker that is this process: it runs a task as soon as it is given one."""

    def __init__(self):
        ours, self.its = mp.Pipe()
        super().__init__(os.dup(ours.fileno()))

    def send(self, task):
        local._run(task, self.its)


class Process:
    def kill(self):
        pass

    join = kill


def test_a_study_on_two_gpus_is_that_on_one(settings, tmp_path, monkeypatch):
    def start(workers):
        workers[line := Line()] = local._Worker(Process())
        return line

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "context", lambda: None)
    monkeypatch.setattr(probe, "apart", lambda function, *given: function(*given))
    identities = []
    learn = job.learn
    monkeypatch.setattr(
        job, "learn", lambda one, *given: identities.append(one.identity) or learn(one, *given)
    )
    base = TINY.replace(epochs=1, eval_every=1)
    study = Study(name="two", asks="Do they run?", bases={"flow": base}, seeds=(0, 1))
    found, said = [], []
    for device in ("cuda:1", "cuda:0,cuda:1"):
        there = replace(
            settings, categories=("left",), device=device, jobs=0, speed=False,
            results=tmp_path / str(len(device)),
        )  # fmt: skip
        with pretended_cuda():
            outcome = run_study(make_plan(study, there), there, said.append)
        assert (outcome.failed, outcome.recorded) == ([], 2)
        found.append(sorted(read_records(there.results), key=lambda r: r.seed))
    one, both = found
    assert {r.environment.device for r in one} == {"cuda:1"}
    assert {r.environment.device for r in both} == {"cuda:0", "cuda:1"}
    assert {r.environment.device_name for r in both} == {NAME}
    assert [(r.loss, r.metrics, r.images.score) for r in one] == [
        (r.loss, r.metrics, r.images.score) for r in both
    ]
    assert identities[:2] == identities[2:]  # a checkpoint of one GPU is taken up on the other
    assert any(
        s.startswith("8 runs at a time on cuda:0,cuda:1: one takes up to 3.0") for s in said
    )

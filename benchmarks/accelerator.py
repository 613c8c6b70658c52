"""What an accelerator says beside the processor: the same values, twice the same, and in time.

Every method is trained or fitted on the processor in float32; the accelerator then scores the same
features with the same model in each arithmetic that it has, and trains twice anew. On the
processor itself this only shows that it runs.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import BACKBONE, Options, Part, Row, cores
from benchmarks.turns import clocked
from harness.data.contract import Category
from harness.data.datasets import open_dataset
from harness.experiment.choices import METHODS
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache, Features
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.methods.batches import batches, read_batch
from harness.methods.contract import Energies, Method
from harness.run.history import History
from harness.run.machine import arithmetic, has_tf32
from harness.run.model import make_model
from harness.run.process import arithmetic_inside, be_deterministic, peak_memory, reset_peak_memory
from harness.run.train import train
from harness.run.watch import energies_of

FLOAT32 = 1e-4  # what float32 may differ by between two devices
USUAL = {"differnet": {"views": 16}}  # in place of 64
QUICK = {
    "fastflow": {"flow_steps": 2},
    "cflow": {"flow_steps": 2},
    "differnet": {"flow_steps": 2, "hidden_channels": 32, "views": 2},
}


def measure(options: Options) -> Part:
    """Every method on the processor and on the accelerator."""
    torch.set_num_threads(cores())
    be_deterministic()
    part = Part(
        protocol=[
            f"{options.size} px, 1 epoch, seed 0. Differences: the largest of all energies (of "
            "all features), as a share of the value where that is above 1, from the processor's "
            "float32; energies by the same model from the same features.",
            "Two runs: training and scoring anew on the device; equal means bit for bit. Memory: "
            "what the device (the process, on a processor) held at most.",
            "A batch: the median of 5 after a warm-up, with the wait for the device, and without "
            "it, which is what a clock that does not wait would say. Read ahead: batches that "
            "another thread copies to the device are those that this one copies.",
        ]
    )
    values: list[Row] = []
    runs: list[Row] = []
    for name in METHODS:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            _of_method(part, values, runs, name, options, Path(folder))
    part.tables["Largest differences from the processor's float32"] = values
    part.tables[f"Trainings on {options.device}, float32"] = runs
    return part


def _of_method(
    part: Part, values: list[Row], runs: list[Row], name: str, options: Options, folder: Path
) -> None:
    variant, device = _variant(name, options), options.device
    extractor = Extractor.load(variant.feature_spec, options.weights)
    dataset = open_dataset("mvtec_ad", folder=options.data.parent, cache=folder)
    category = dataset.load(options.data.name)
    features = _features(extractor, category, "cpu", folder)
    model, history, *_ = _trained(variant, features, "cpu")
    reference = history.energies[1]
    for tf32 in (False, True) if has_tf32(device) else (False,):
        with arithmetic_inside(tf32=tf32):
            here = _features(extractor, category, device, folder)
            model.to(device).to(memory_format=torch.channels_last)
            scored = energies_of(model, features.test, variant, device)
            row = {"method": name, "arithmetic": arithmetic(device)}
        moved = _difference(_tensors(reference), _tensors(scored))
        row |= {"energies": f"{moved:.2g}"}
        row |= {"features": f"{_difference(_arrays(features), _arrays(here)):.2g}"}
        values.append(row)
        if not tf32:
            got = {"value": float(f"{moved:.2g}")}
            text = f"Accelerator, {name}, float32, largest difference of energies"
            part.claim(text, got, FLOAT32, sense="at most", unit="")
    runs.append({"method": name} | _runs(part, name, variant, features, device))


def _runs(part: Part, name: str, variant: Variant, features: Features, device: str) -> Row:
    """Two trainings on the device, and what a batch takes."""
    model, one, seconds, memory = _trained(variant, features, device)
    _, two, again, _ = _trained(variant, features, device)
    pairs = zip(_tensors(one.energies[1]), _tensors(two.energies[1]), strict=True)
    equal = one.loss == two.loss and all(torch.equal(a, b) for a, b in pairs)
    text = f"Accelerator, {name}, runs of one seed that differ"
    part.claim(text, {"value": float(not equal)}, 0, sense="at most", unit=" of 2")
    rows = np.arange(min(variant.batch_size, len(features.test[0])))
    batch = read_batch(features.test, rows, device)
    ahead = batches(features.test, size=variant.batch_size, device=device)
    same = all(
        torch.equal(x, y)
        for rows, given in ahead
        for x, y in zip(given, read_batch(features.test, rows, device), strict=True)
    )
    text = f"Accelerator, {name}, batches read ahead that differ"
    part.claim(text, {"value": float(not same)}, 0, sense="at most", unit="")
    return {
        "first, s": round(seconds, 3),
        "second, s": round(again, 3),
        "equal": "yes" if equal else "no",
        "peak, MiB": round(memory / 2**20),
        "batch, ms": _milliseconds(lambda: model.energies(batch), device),
        "not waited for, ms": _milliseconds(lambda: model.energies(batch), "cpu"),
        "read ahead": "equal" if same else "differs",
    }


def _variant(name: str, options: Options) -> Variant:
    given = (QUICK if options.quick else USUAL).get(name, {})
    if METHODS[name].trained:
        given = {"warmup_epochs": 0, **given}
    return Variant().replace(
        method=name, backbone=BACKBONE, image_size=options.size, epochs=1,
        weights="pretrained" if options.weights else "random", **given,
    )  # fmt: skip


def _features(extractor: Extractor, category: Category, device: str, folder: Path) -> Features:
    key = FeatureKey.of(extractor, category, arithmetic(device))
    return FeatureCache(folder).ensure(key, extractor, category, device=device)


def _trained(
    variant: Variant, features: Features, device: str
) -> tuple[Method, History, float, int]:
    """The model with its history, the seconds, and the bytes held at most."""
    shapes = tuple(tuple(a.shape[1:]) for a in features.train)
    model = make_model(variant, shapes, 0)  # type: ignore[arg-type]
    reset_peak_memory(device)
    start = time.perf_counter()
    history = train(
        model, features.train, features.test, variant=variant, seed=0, device=device
    )  # it ends with numbers on the processor, so the device has done its work
    return model, history, time.perf_counter() - start, peak_memory(device)


def _milliseconds(call: Callable[[], object], device: str) -> float:
    turn = clocked(call, device)
    return round(1e3 * sorted(turn() for _ in range(6))[2], 3)


def _tensors(energies: Energies) -> list[Tensor]:
    images = [] if energies.images is None else [energies.images]
    return [t for tap in energies.taps for t in tap] + images


def _arrays(features: Features) -> Iterable[Tensor]:
    return [torch.from_numpy(np.array(a)) for a in (*features.train, *features.test)]


def _difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest difference, as a share of the larger of 1 and the first."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(((a - b).abs() / a.abs().clamp_min(1)).max()) for a, b in pairs)

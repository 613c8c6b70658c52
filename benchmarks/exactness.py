"""What the fast path changes: the same trained flow scored plainly, compiled and in bfloat16.

One flow is trained in float32 on real features and one in bfloat16; every way of scoring looks at
the same test images. AUROCs are in per cent.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Options, Part, Row, cores
from benchmarks.peer import VARIANT
from harness.data.contract import Category, read_image
from harness.data.datasets import open_dataset
from harness.detect.inference import fused
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone, load_backbone
from harness.features.cache import FeatureCache, Features
from harness.features.extractor import Extractor, normalise
from harness.features.key import FeatureKey
from harness.methods import fastflow
from harness.methods.contract import Energies, Method
from harness.methods.fastflow import FastFlow
from harness.run.evaluate import truth
from harness.run.machine import arithmetic
from harness.run.model import make_model
from harness.run.train import train
from harness.run.watch import energies_of
from harness.score.metrics import image_metrics, pixel_metrics
from harness.score.rule import score

EPOCHS = 10
ENERGY, POINTS = 1e-5, 0.2  # what float32 may differ by, and bfloat16's AUROC, in points


def measure(options: Options) -> Part:
    """Train, score in every way, compare with the plain steps in float32."""
    torch.set_num_threads(cores())
    part = Part(
        protocol=[
            f"resnet18, 8 steps of 3×3, {options.size} px, {_variant(options).epochs} epochs, "
            "seed 0; last epoch. Plain: FrEIA's contract step by step (step.py); compiled: "
            "compiled.py; inferred: harness.detect.inference from the images.",
            "Energy difference: the largest, as a share of the energy where that is above 1.",
        ]
    )
    for data in _categories(options):
        _of_category(part, replace(options, data=data))
    return part


def _categories(options: Options) -> list[Path]:
    """The category at hand and the one after it: on an easy one nothing moves."""
    there = sorted(p for p in options.data.parent.iterdir() if (p / "train" / "good").is_dir())
    at = [p.name for p in there].index(options.data.name)
    return there[at : at + (1 if options.quick else 2)]


def _variant(options: Options) -> Variant:
    return VARIANT.replace(
        image_size=options.size, epochs=1 if options.quick else EPOCHS,
        weights="pretrained" if options.weights else "random",
    )  # fmt: skip


def _of_category(part: Part, options: Options) -> None:
    variant, device, name = _variant(options), options.device, options.data.name
    bfloat16 = variant.replace(precision="bfloat16")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        backbone, category, features = _open(options, variant, Path(folder))
        labels, masks = truth(variant, category)
        test = features.test
        model = _trained(variant, features, options)
        ways: dict[str, Energies] = {}
        with plain():
            ways["trained and scored in float32, plain"] = energies_of(
                model, test, variant, device
            )
        ways["the same, compiled"] = energies_of(model, test, variant, device)
        ways["the same, scored in bfloat16"] = energies_of(model, test, bfloat16, device)
        ways["the same, inferred in bfloat16"] = _inferred(backbone, model, category, options)
        other = _trained(bfloat16, features, options)
        ways["trained and scored in bfloat16"] = energies_of(other, test, bfloat16, device)
    found = {way: _metrics(variant, scores, labels, masks) for way, scores in ways.items()}
    reference = next(iter(ways))
    rows: list[Row] = []
    for way, metrics in found.items():
        worst = _difference(ways[reference], ways[way])
        rows.append({"way": way, **{k: round(100 * v, 3) for k, v in metrics.items()}})
        if not way.startswith("trained"):
            rows[-1]["largest energy difference"] = f"{worst:.2g}"
        if way == reference:
            continue
        if way.endswith("compiled"):
            got = {"value": float(f"{worst:.2g}")}
            text = f"Exactness, {name}, compiled float32, largest energy difference"
            part.claim(text, got, ENERGY, sense="at most", unit="")
        for metric in ("image_auroc", "pixel_auroc"):
            moved = 100 * abs(metrics[metric] - found[reference][metric])
            text = f"Exactness, {name}, {way}, {metric} moves by"
            needed = POINTS if "bfloat16" in way else 0.01
            part.claim(text, {"value": round(moved, 3)}, needed, sense="at most", unit=" points")
    part.tables[f"Metrics of {name}, %"] = rows


def _inferred(backbone: Backbone, model: Method, category: Category, options: Options) -> Energies:
    """Energies of the test images by the fast inference path."""
    assert isinstance(model, FastFlow)
    path = fused(backbone, model, precision="bfloat16")
    parts = []
    for start in range(0, len(category.test), 32):
        batch = category.test[start : start + 32]
        images = np.stack([read_image(s, options.size, VARIANT.resize) for s in batch])
        energies = path(normalise(images, backbone).to(options.device))
        parts.append(Energies([(e.cpu(), j.cpu()) for e, j in energies]))
    return Energies.join(parts)


@contextmanager
def plain() -> Iterator[None]:
    """The compiled pass is not used inside."""
    usual = fastflow.can_run_compiled
    fastflow.can_run_compiled = lambda steps, x: False
    try:
        yield
    finally:
        fastflow.can_run_compiled = usual


def _open(options: Options, variant: Variant, folder: Path) -> tuple[Backbone, Category, Features]:
    backbone, weights = load_backbone(
        variant.backbone, taps=variant.taps, image_size=variant.image_size,
        weights=variant.weights, folder=options.weights,
    )  # fmt: skip
    dataset = open_dataset("mvtec_ad", folder=options.data.parent, cache=folder)
    category = dataset.load(options.data.name)
    extractor = Extractor(variant.feature_spec, backbone, weights)
    key = FeatureKey.of(extractor, category, arithmetic(options.device))
    features = FeatureCache(folder).ensure(key, extractor, category, device=options.device)
    return backbone, category, features


def _trained(variant: Variant, features: Features, options: Options) -> Method:
    shapes = [tuple(a.shape[1:]) for a in features.train]
    model = make_model(variant, shapes, 0)  # type: ignore[arg-type]
    few = [a[:1] for a in features.test]
    train(model, features.train, few, variant=variant, seed=0, device=options.device)
    return model


def _metrics(variant: Variant, scores: Energies, labels: Any, masks: Any) -> dict[str, float]:
    maps, images = score(variant, scores)
    assert maps is not None
    metrics = image_metrics(images.numpy(), labels)
    metrics |= pixel_metrics(maps.numpy(), masks[:]) if masks is not None else {}
    return {k: metrics[k] for k in ("image_auroc", "pixel_auroc", "aupro") if k in metrics}


def _difference(one: Energies, two: Energies) -> float:
    """The largest difference of two energies, as a share of the larger of 1 and the first."""
    pairs = [(a, b) for (a, _), (b, _) in zip(one.taps, two.taps, strict=True)]
    return max(float(((a - b).abs() / a.clamp_min(1)).max()) for a, b in pairs)

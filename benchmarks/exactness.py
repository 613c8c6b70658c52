"""What the fast path changes: the same trained flow scored plainly, compiled and in bfloat16.

One flow is trained in float32 on real features and one in bfloat16; every way of scoring looks at
the same test images. AUROCs are in per cent.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Options, Part, Row, cores
from benchmarks.peer import VARIANT
from harness import native
from harness.backbones import load_backbone
from harness.baselines.contract import Method, Scores
from harness.build import make_model
from harness.datasets import open_dataset
from harness.features import FeatureCache, FeatureKey, Features
from harness.metrics import image_metrics, pixel_metrics
from harness.run import score, truth
from harness.train import fit, scored
from harness.variant import Variant

EPOCHS = 10
ENERGY, POINTS = 1e-5, 0.2  # what float32 may differ by, and bfloat16's AUROC, in points


def measure(options: Options) -> Part:
    """Train, score in every way, compare with the plain steps in float32."""
    torch.set_num_threads(cores())
    variant = VARIANT.replace(
        image_size=options.size, epochs=1 if options.quick else EPOCHS,
        weights="pretrained" if options.weights else "random",
    )  # fmt: skip
    bfloat16 = variant.replace(precision="bfloat16")
    part = Part(
        protocol=[
            f"resnet18, 8 steps of 3×3, {options.size} px, {variant.epochs} epochs, seed 0; "
            "last epoch. Plain: FrEIA's contract step by step (flow.py); compiled: native.py.",
        ]
    )
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        features, labels, masks = _open(options, variant, Path(folder))
        model = _trained(variant, features, options)
        ways: dict[str, Scores] = {}
        test, device = features.test, options.device
        with plain():
            ways["trained and scored in float32, plain"] = scored(
                model, features.test, variant, options.device
            )
        ways["the same, compiled"] = scored(model, test, variant, device)
        ways["the same, scored in bfloat16"] = scored(
            model, features.test, bfloat16, options.device
        )
        other = _trained(bfloat16, features, options)
        ways["trained and scored in bfloat16"] = scored(
            other, features.test, bfloat16, options.device
        )
    found = {name: _metrics(variant, scores, labels, masks) for name, scores in ways.items()}
    reference = next(iter(ways))
    rows: list[Row] = []
    for name, metrics in found.items():
        worst = _difference(ways[reference], ways[name])
        rows.append({"way": name, **{k: round(100 * v, 3) for k, v in metrics.items()}})
        if not name.startswith("trained"):
            rows[-1]["largest energy difference"] = f"{worst:.2g}"
        if name == reference:
            continue
        if name.endswith("compiled"):
            got = {"value": float(f"{worst:.2g}")}
            text = "Exactness, compiled float32, largest energy difference"
            part.claim(text, got, ENERGY, sense="at most", unit="")
        for metric in ("image_auroc", "pixel_auroc"):
            moved = 100 * abs(metrics[metric] - found[reference][metric])
            text = f"Exactness, {name}, {metric} moves by"
            needed = POINTS if "bfloat16" in name else 0.01
            part.claim(text, {"value": round(moved, 3)}, needed, sense="at most", unit=" points")
    part.tables["Metrics of the category, %"] = rows
    return part


@contextmanager
def plain() -> Iterator[None]:
    """The compiled pass is not used inside."""
    usual, native.usable = native.usable, lambda x: False
    try:
        yield
    finally:
        native.usable = usual


def _open(options: Options, variant: Variant, folder: Path) -> tuple[Features, Any, Any]:
    backbone, weights = load_backbone(
        variant.backbone, taps=variant.taps, image_size=variant.image_size,
        weights=variant.weights, folder=options.weights,
    )  # fmt: skip
    dataset = open_dataset("mvtec_ad", folder=options.data.parent, cache=folder)
    category = dataset.load(options.data.name)
    key = FeatureKey(
        variant.backbone, weights["sha256"], variant.weights, variant.taps, variant.image_size,
        backbone.mean, backbone.std, "float32", category.dataset, category.name, category.digest,
    )  # fmt: skip
    features = FeatureCache(folder).ensure(key, backbone, category, device=options.device)
    return features, *truth(variant, category)


def _trained(variant: Variant, features: Features, options: Options) -> Method:
    shapes = [tuple(a.shape[1:]) for a in features.train]
    model = make_model(variant, shapes, 0)  # type: ignore[arg-type]
    few = [a[:1] for a in features.test]
    fit(model, features.train, few, variant=variant, seed=0, device=options.device)
    return model


def _metrics(variant: Variant, scores: Scores, labels: Any, masks: Any) -> dict[str, float]:
    maps, images = score(variant, scores)
    assert maps is not None
    metrics = image_metrics(images.numpy(), labels)
    metrics |= pixel_metrics(maps.numpy(), masks) if masks is not None else {}
    return {k: metrics[k] for k in ("image_auroc", "pixel_auroc", "aupro") if k in metrics}


def _difference(one: Scores, two: Scores) -> float:
    """The largest difference of two energies, as a share of the larger of 1 and the first."""
    pairs = [(a, b) for (a, _), (b, _) in zip(one.taps, two.taps, strict=True)]
    return max(float(((a - b).abs() / a.clamp_min(1)).max()) for a, b in pairs)

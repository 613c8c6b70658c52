"""The paper's four backbones with random weights: FPS by size, and the share of the peak rate.

One image costs what its multiply-accumulates say; the peak is a large matrix product's measured
rate in the same number format.
"""

from functools import partial
from typing import Any

import torch

from benchmarks.common import Options, Part, Row, columns, cores
from benchmarks.inference import our_paths
from benchmarks.turns import clocked, take_turns
from harness.features.backbone import load_backbone
from harness.run.measure import measure as measure_cost
from harness.run.model import make_model
from harness.studies.paper import PAPER

SIZES = {"ResNet18": (256, 384, 448), "Wide-ResNet50-2": (256, 384, 448),
         "DeiT": (384,), "CaiT": (448,)}  # fmt: skip
QUICK = {"ResNet18": (64,)}
BATCH, SIDE = 32, 4096  # images at a time; side of the matrices of the peak


def measure(options: Options) -> Part:
    """Every backbone and size in float32 and bfloat16, in turns within each backbone."""
    torch.set_num_threads(cores())
    peaks = {kind: peak(options, kind) for kind in ("float32", "bfloat16")}
    rows: list[Row] = []
    for name, sizes in (QUICK if options.quick else SIZES).items():
        for size in sizes:
            rows += _sides(options, name, size, peaks)
            print(f"  fps: {name} at {size}", flush=True)
    return Part(
        protocol=[
            f"Normalised image on the device to map and score; batch {_batch(options)}; random "
            "weights; ViTs at the one size that their position embeddings have.",
            "Peak: a product of square matrices, " + ", ".join(
                f"{p / 1e12:.3g} TFLOP/s in {kind}" for kind, p in peaks.items()
            ) + "; the backbone runs in float32 in both.",
        ],
        tables={"FPS of the paper's backbones": rows},
    )  # fmt: skip


def peak(options: Options, kind: str) -> float:
    """The measured rate of a large matrix product, FLOP/s."""
    side = 256 if options.quick else SIDE if options.device != "cpu" else SIDE // 2
    a, b = torch.randn(2, side, side, dtype=getattr(torch, kind), device=options.device)
    product = clocked(lambda: a @ b, options.device)
    seconds = take_turns({"product": product}, rounds=5, warmup=2)["product"]
    return 2 * side**3 / min(seconds)


def _batch(options: Options) -> int:
    return 2 if options.quick else BATCH if options.device != "cpu" else 4


def _sides(options: Options, name: str, size: int, peaks: dict[str, float]) -> list[Row]:
    variant = PAPER[name].replace(image_size=size, weights="random")
    backbone, _ = load_backbone(
        variant.backbone, taps=variant.taps, image_size=size, weights="random"
    )
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    counted = measure_cost(variant).macs
    macs = counted.backbone + counted.flow
    model = make_model(variant, shapes, 0).eval().to(options.device)
    paths = our_paths(variant, backbone.to(options.device), model, options.device)
    images = torch.randn(_batch(options), 3, size, size, device=options.device)
    calls = {n: clocked(partial(path, images), options.device) for n, path in paths.items()}
    with torch.inference_mode():
        seconds = take_turns(calls, rounds=options.turns(5))
    rows = []
    for side, s in seconds.items():
        kind = side.rpartition(" ")[2]
        row: dict[str, Any] = {"backbone": name, "size": size, "side": side}
        row |= columns([len(images) / t for t in s], "FPS")
        row["GMAC an image"] = round(macs / 1e9, 2)
        row["share of the peak, %"] = round(200 * macs * row["median FPS"] / peaks[kind], 1)
        rows.append(row)
    return rows

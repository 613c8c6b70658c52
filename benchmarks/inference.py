"""(c) Inference: normalised image in memory → anomaly map → image score."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.common import Options, Part, Row, columns, cores, has_peer, percentile, ratio
from benchmarks.peer import VARIANT, our_model, peer_model
from benchmarks.turns import WARMUP, Side, own_processes, take_turns
from harness.detect.inference import fused
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone
from harness.methods.contract import Energies
from harness.methods.fastflow import FastFlow
from harness.run.measure import measure as measure_cost
from harness.run.process import keep_memory
from harness.run.watch import precision
from harness.score.rule import score

BATCHES = {1: 40, 8: 10, 32: 5}  # images at a time: rounds
ASKED = {1: 3.0, 32: 5.0}  # batch: times the FPS of anomalib
FLOAT32 = 1.5  # the same in float32
TOLERANCE = 1e-4
PLAIN, PEER = "ours, float32", "anomalib, float32"
TUNED = f"{PEER}, same allocator"  # no user's way; shows what of the ratio is memory
Path_ = Callable[[Tensor], tuple[Tensor, Tensor]]
EnergyPath = Callable[[Tensor], list[tuple[Tensor, Tensor]]]


def measure(options: Options) -> Part:
    """That all sides say the same; then each in a process of its own, in turns, at every size."""
    torch.set_num_threads(cores())
    sides = paths(options)
    part = Part(
        protocol=[
            f"resnet18, 8 steps of 3×3, {options.size} px, weights of both sides the same; "
            "normalised image in memory to map and score; no cache.",
            f"{cores()} threads on every side; every side is a process of its own, and they take "
            f"turns, {WARMUP} of them to warm up. A turn is two calls, of which the second "
            f"counts: the sides push each other out of the caches. Batch size: rounds {BATCHES}.",
            "Ours sets the C allocator as the harness's workers do "
            f"(harness.run.process.keep_memory); anomalib runs as it comes, and as '{TUNED}'.",
        ]
    )
    part.tables["Outputs beside ours in float32"] = _agreement(sides, options, part)
    names = [*sides, *([TUNED] if PEER in sides else [])]
    del sides
    work = 2e-9 * _macs(options)
    rows: list[Row] = []
    with own_processes(options, "inference", names) as children:
        for batch, usual in BATCHES.items():
            turns = {name: partial(warm, child, batch) for name, child in children.items()}
            seconds = take_turns(turns, rounds=options.turns(usual), warmup=WARMUP)
            rows += [_row(name, batch, s, work) for name, s in seconds.items()]
            if PEER in names and batch in ASKED:
                _claims(part, batch, seconds)
    part.tables["Inference"] = rows
    return part


def warm(child: Side, batch: int) -> float:
    """A turn of two calls, of which the second counts: sides push each other out of caches."""
    child.turn(batch)
    return child.turn(batch)


def side(options: Options) -> Callable[[int], object]:
    """The path that the options' extra names, on so many images in memory."""
    torch.set_num_threads(cores())
    name = options.extra["side"]
    if name != PEER:
        keep_memory()
    name = PEER if name == TUNED else name
    path = paths(options, only=name)[name]
    images = _images(options, max(BATCHES))

    @torch.inference_mode()
    def step(batch: int) -> None:
        path(images[:batch])

    return step


def alone(options: Options) -> None:
    """One side, two batches of the largest size: for its peak memory."""
    step = side(options)
    for _ in range(2):
        step(8 if options.quick else max(BATCHES))


def paths(options: Options, only: str = "") -> dict[str, Path_]:
    """Name → images (B, 3, S, S) to maps (B, S, S) and scores (B,); all with the same weights."""
    variant = trained_on_nothing(options)
    backbone, model = our_model(options, variant, generic=True)
    backbone.to(options.device)
    sides: dict[str, Path_] = {}
    if has_peer() and only in ("", PEER):
        peer = peer_model(variant, backbone.cpu(), model.cpu()).to(options.device)
        backbone.to(options.device)
        sides[PEER] = lambda images: _of_peer(peer(images))
    if only == PEER:
        return sides
    model.to(options.device)
    return our_paths(variant, backbone, model, options.device, only) | sides


def trained_on_nothing(options: Options) -> Variant:
    """The variant that all sides compute, by the options' size and weights."""
    weights = "pretrained" if options.weights else "random"
    flow_steps = 2 if options.quick else 8
    return VARIANT.replace(image_size=options.size, weights=weights, flow_steps=flow_steps)


def _macs(options: Options) -> int:
    """Multiply-accumulates of one image, backbone and flow."""
    macs = measure_cost(trained_on_nothing(options)).macs
    return macs.backbone + macs.flow


def our_paths(
    variant: Variant, backbone: Backbone, model: FastFlow, device: str, only: str = ""
) -> dict[str, Path_]:
    """Our plain path and the inference path, or the one of this name."""
    model.to(memory_format=torch.channels_last)

    def plain(v: Variant) -> EnergyPath:
        def run(images: Tensor) -> list[tuple[Tensor, Tensor]]:
            features = backbone(images)
            with precision(v, device):
                return model.energies(features).taps

        return run

    def scored(energies: EnergyPath) -> Path_:
        def path(images: Tensor) -> tuple[Tensor, Tensor]:
            maps, scores = score(variant, Energies(energies(images)))
            assert maps is not None
            return maps, scores

        return path

    kinds = {k: variant.replace(precision=k) for k in ("float32", "bfloat16")}
    made = {f"ours, {k}": partial(plain, v) for k, v in kinds.items()}
    made |= {f"ours, fast, {k}": partial(fused, backbone, model, precision=k) for k in kinds}
    return {name: scored(make()) for name, make in made.items() if only in ("", name)}


def _claims(part: Part, batch: int, seconds: dict[str, list[float]]) -> None:
    """The fastest of ours, and the fastest in float32, against anomalib."""
    ours = {n: s for n, s in seconds.items() if n.startswith("ours")}
    exact = {n: s for n, s in ours.items() if "float32" in n}
    for peer in (PEER, TUNED):
        for among, needed in ((ours, ASKED[batch]), (exact, FLOAT32)):
            best = min(among, key=lambda n: median(among[n]))
            text = f"Inference, batch {batch}, {best}, against {peer.replace(', float32', '')}"
            part.claim(text, ratio(seconds[peer], seconds[best]), needed)


def _of_peer(out: Any) -> tuple[Tensor, Tensor]:
    return out.anomaly_map[:, 0], out.pred_score.flatten()


def pictures(options: Options, batch: int) -> NDArray[np.uint8]:
    """Images (B, S, S, 3) of the category, repeated until they fill the batch."""
    files = sorted(p for p in (options.data / "test").rglob("*") if p.is_file())[:batch]
    files = [files[i % len(files)] for i in range(batch)]
    size = (options.size, options.size)
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize(size)) for f in files])


def _images(options: Options, batch: int) -> Tensor:
    """The same, normalised."""
    x = torch.from_numpy(pictures(options, batch)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    return x.contiguous().to(options.device)


def _agreement(sides: dict[str, Path_], options: Options, part: Part) -> list[Row]:
    """The largest differences of maps and scores from ours in float32."""
    images = _images(options, 8)
    rows = []
    with torch.inference_mode():
        maps, scores = sides[PLAIN](images)
        for name, path in sides.items():
            if name != PLAIN:
                m, s = path(images)
                worst = (m.cpu() - maps.cpu()).abs().max(), (s.cpu() - scores.cpu()).abs().max()
                row = {"side": name, "map": f"{worst[0]:.2g}", "score": f"{worst[1]:.2g}"}
                rows.append(row | {"maps span": f"{maps.min():.3f} … {maps.max():.3f}"})
                if "float32" in name:
                    got = {"value": float(f"{max(worst):.2g}")}
                    text = f"Inference, largest difference of maps and scores, ours from {name}"
                    part.claim(text, got, TOLERANCE, sense="at most", unit="")
    return rows


def _row(name: str, batch: int, seconds: list[float], work: float) -> Row:
    return {
        "side": name,
        "batch": batch,
        **columns([batch / s for s in seconds], "FPS"),
        "GFLOP/s": round(work * batch / median(seconds), 1),
        "p50 ms": round(1e3 * percentile(seconds, 0.5), 2),
        "p95 ms": round(1e3 * percentile(seconds, 0.95), 2),
    }

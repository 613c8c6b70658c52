"""What a variant costs: parameters, multiply-accumulates, and the time from image to map.

Parameters and MACs are counted on the meta device, so they need neither weights nor time.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.experiment.choices import METHODS
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.measured import Macs, Parameters, Speed
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.features.views import Shapes
from harness.methods.contract import Method
from harness.run.machine import cores
from harness.run.model import make_model
from harness.run.schedule import epochs_of
from harness.run.watch import precision
from harness.score.reference import make_reference
from harness.score.rule import needs_reference, score

WARMUP, FEWEST, ROUNDS = 1, 3, 5
BUDGET_SECONDS = 1.5  # per path: a slow one gets fewer rounds, not below FEWEST
SPEED_BATCH = 8
KEPT = 400  # training images in a bank whose speed is measured
MEASURES = (
    "normalised image in memory to map, or to score where there is none: "
    "backbone, method, map; no cache, no turning of views"
)
Path = Callable[[Tensor], object]  # from images (B, 3, H, W) to whatever is timed


@dataclass(frozen=True)
class Cost:
    """Hold what a variant costs; ``shapes``: (C, H, W) of its features at the taps.

    >>> measure(Variant(flow_steps=1, image_size=64)).speed.fps is None
    True
    """

    parameters: Parameters
    macs: Macs
    shapes: Shapes
    speed: Speed = field(default_factory=Speed)

    def training_work(self, variant: Variant, images: int) -> int:
        """Count the multiply-accumulates of a variant's training on so many images, forward."""
        return self.macs.training * images * epochs_of(variant, images)


def measure(variant: Variant, kept: int = 0) -> Cost:
    """Count a variant's parameters and multiply-accumulates, built on the meta device.

    Args:
        variant: any.
        kept: training images that its bank stands for, where its method has one.

    >>> measure(Variant(flow_steps=1, image_size=64)).parameters.additional
    582176
    """
    extractor = Extractor.on_meta(variant.feature_spec)
    model = _on_meta(variant, extractor.shapes, kept)
    with FlopCounterMode(display=False) as counter:
        features = extractor.look(torch.empty(1, 3, *variant.shape, device="meta"))
    flow, share = flow_macs(model, features), model.step_share(features)
    backbone = sum(p.numel() for p in extractor.backbone.parameters())
    return Cost(
        Parameters(**model.count_parameters(), backbone=backbone),
        Macs(
            backbone=counter.get_total_flops() // 2,
            flow=flow,
            step=None if share == 1 else round(share * flow),
        ),
        extractor.shapes,
    )


def kept_images(sizes: Iterable[tuple[int, int]]) -> int:
    """Count the training images that a bank stands for: the largest category's, at most KEPT.

    Args:
        sizes: images of every category, (train, test).
    """
    return min(KEPT, max((train for train, _ in sizes), default=0))


def count_parameters(variant: Variant) -> Parameters:
    """Count a variant's parameters by kind, and nothing else."""
    extractor = Extractor.on_meta(variant.feature_spec)
    model = _on_meta(variant, extractor.shapes, 0)
    backbone = sum(p.numel() for p in extractor.backbone.parameters())
    return Parameters(**model.count_parameters(), backbone=backbone)


def flow_macs(model: Method, features: Sequence[Tensor]) -> int:
    """Count multiply-accumulates of scoring features (B, C, H, W), all on the meta device.

    Counted are convolutions and matrix products.
    """
    with FlopCounterMode(display=False) as counter:
        model.energies(features)
    return int(counter.get_total_flops()) // 2


def measure_speeds(
    variants: Sequence[Variant],
    extractors: Mapping[FeatureSpec, Extractor],
    *,
    kept: int,
    device: str,
) -> dict[str, Speed]:
    """Time every variant from image to map, in turns, and each backbone on its own too.

    Args:
        variants: those to time.
        extractors: with weights, of every variant's recipe.
        kept: training images in a bank.
        device: as in torch.

    Returns:
        digest → speed.
    """
    paths: dict[Any, Path] = {}
    images: dict[Any, Tensor] = {}
    for v in variants:
        spec = v.feature_spec
        extractor = extractors[spec]
        extractor.backbone.to(device)
        paths[v.digest] = _image_to_map(v, extractor, kept, device)
        paths[spec] = extractor.backbone
        images[v.digest] = torch.zeros(SPEED_BATCH, 3, *v.shape, device=device)
        images[spec] = images[v.digest]
    torch.set_num_threads(cores())
    with torch.inference_mode():
        speeds = time_in_turns(paths, images, device=device)
    for v in variants:  # what the flow and the map add to the backbone (the paper's "A.d. time")
        whole, alone = speeds[v.digest].latency_ms, speeds[v.feature_spec].latency_ms
        assert whole is not None
        assert alone is not None
        speeds[v.digest].additional_ms = round(whole - alone, 4)
        if not METHODS[v.method].trained:
            speeds[v.digest].images_kept = kept
    return {v.digest: speeds[v.digest] for v in variants}


def time_in_turns(
    paths: Mapping[Any, Path], images: Mapping[Any, Tensor], *, device: str
) -> dict[Any, Speed]:
    """Time several paths from image to map side by side.

    The paths take turns (A B C, A B C, …), so that a machine that slows down slows them all.

    Args:
        paths: name → the whole path from a batch of images to its anomaly maps.
        images: name → that path's batch (B, 3, H, W); one image of it gives the latency.
        device: as in torch.

    Returns:
        name → the median time of one image alone, images a second in batches, and the protocol.
    """
    singles = {name: batch[:1] for name, batch in images.items()}
    latency = _take_turns(paths, singles, device)
    batched = _take_turns(paths, images, device)
    session = f"{datetime.now(UTC).isoformat(timespec='seconds')} {token_hex(4)}"
    return {
        name: Speed(
            latency_ms=round(1e3 * median(latency[name]), 4),
            latency_ms_min=round(1e3 * min(latency[name]), 4),
            latency_ms_max=round(1e3 * max(latency[name]), 4),
            fps=round(len(images[name]) / median(batched[name]), 4),
            fps_min=round(len(images[name]) / max(batched[name]), 4),
            fps_max=round(len(images[name]) / min(batched[name]), 4),
            fps_batch_size=len(images[name]),
            rounds=len(batched[name]),
            threads=torch.get_num_threads(),
            device=device,
            measures=MEASURES,
            session=session,
        )
        for name in paths
    }


def _on_meta(variant: Variant, shapes: Shapes, kept: int) -> Method:
    with torch.device("meta"):
        model = make_model(variant, shapes, 0)
        model.fill(kept)
    return model.eval()  # where a map is 1 × 1, a batch norm could not train on one image


def _image_to_map(variant: Variant, extractor: Extractor, kept: int, device: str) -> Path:
    model = make_model(variant, extractor.shapes, 0)
    model.fill(kept)
    model.eval().to(device).to(memory_format=torch.channels_last)
    reference = None
    if needs_reference(variant):  # arbitrary tables cost what any do
        few = extractor.look(torch.zeros(1, 3, *variant.shape, device=device))
        reference = make_reference([model.energies(few).cpu()])

    def look(images: Tensor) -> object:
        features = extractor.look(images)
        with precision(variant, device):
            energies = model.energies(features)
        return score(variant, energies, reference)

    def path(images: Tensor) -> object:
        return [look(images) for _ in range(1 + variant.feature_spec.turned)]

    return path


def _take_turns(
    paths: Mapping[Any, Path], images: Mapping[Any, Tensor], device: str
) -> dict[Any, list[float]]:
    """Seconds of every path in every round after the warm-up, within the time budget."""
    seconds: dict[Any, list[float]] = {name: [] for name in paths}
    began = time.perf_counter()
    for turn in range(WARMUP + ROUNDS):
        for name, path in paths.items():
            synchronise(device)
            start = time.perf_counter()
            path(images[name])
            synchronise(device)
            if turn >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
        rounds = turn + 1 - WARMUP
        if rounds >= FEWEST and time.perf_counter() - began > BUDGET_SECONDS * len(paths):
            break
    return seconds


def synchronise(device: str) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)

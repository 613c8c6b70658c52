"""(f) How the cost of a study grows with variants, images and size, with fitted exponents.

The images are noise made for this, so that there are as many as wanted. Runs go one at a time on
all cores (``jobs=1``), so that a second variant cannot hide on a core that the first left idle.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import BACKBONE, Options, Part, Row, exponent, spread, write_noise
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache, Features
from harness.run.plan import make_plan
from harness.run.sweep import run_study

AXES: dict[str, tuple[int, ...]] = {
    "variants": (1, 2, 4, 8, 16),
    "images": (50, 100, 200, 400),
    "size": (128, 192, 256, 320, 384, 448),
}
AT = {"variants": 1, "images": 50, "size": 256}  # where the other two stay
QUICK = {"variants": (1, 2), "images": (8, 16), "size": (64, 96)}
QUICK_AT = {"variants": 1, "images": 8, "size": 64}
STAGES = ("backbone", "training", "whole")
SMALL, MORE = 2.0, 3  # times the pixels of the study where axes meet; rounds up to there
BASE = Variant(backbone=BACKBONE, kernels=(3, 1), flow_steps=2, epochs=2)
Point = tuple[int, int, int]  # variants, images, size


def measure(options: Options) -> Part:
    """Every point of every axis, small ones more often; the fit is of the medians."""
    axes, at = (QUICK, QUICK_AT) if options.quick else (AXES, AT)
    points = {(axis, v): _point({**at, axis: v}) for axis, vs in axes.items() for v in vs}
    todo = {point: _rounds(options, point, _point(at)) for point in points.values()}
    study_seconds(options, *_point(at))  # the first start warms up
    found: dict[Point, list[dict[str, float]]] = {point: [] for point in todo}
    for turn in range(max(todo.values())):
        for point in (p for p, rounds in todo.items() if turn < rounds):
            found[point].append(study_seconds(options, *point))
            print(f"  growth: {point}: {found[point][-1]['whole']:.1f} s", flush=True)
    seconds = {place: found[point] for place, point in points.items()}
    part = Part(
        protocol=[
            f"A study of FastFlow variants (resnet18, {BASE.flow_steps} steps of 3×3 and 1×1, "
            f"{BASE.epochs} epochs, batch {BASE.batch_size}, 8 test images) through the harness, "
            "features and metrics included, jobs=1; the variants' speed is not measured.",
            "backbone: the passes that fill the feature cache; training: the sum of the runs' own "
            "fit times; whole: the call. What a start costs and memory touched first are the same "
            "at every size of a run, so they pull exponents below 1.",
            f"The other axes stay at {at}; a point on several axes is measured once for all. "
            f"Studies of up to {SMALL:g} times the pixels of that: {MORE} rounds. Exponent: slope "
            "of log seconds over log value.",
        ]
    )
    rows: list[Row] = []
    fits: list[Row] = []
    for axis, values in axes.items():
        medians = {s: [spread([r[s] for r in seconds[axis, v]]) for v in values] for s in STAGES}
        for i, value in enumerate(values):
            row: Row = {"axis": axis, "value": value}
            for stage in STAGES:
                m = medians[stage][i]
                row |= {f"{stage} s": m["median"], f"{stage} range": f"{m['min']}–{m['max']}"}
            rows.append(row | {"rounds": medians["whole"][i]["rounds"]})
        slopes = {s: round(exponent(values, [m["median"] for m in medians[s]]), 3) for s in STAGES}
        fits.append({"axis": axis, "from": values[0], "to": values[-1], **slopes})
        if axis != "size":
            text = f"Growth, exponent of the training time in {axis}"
            part.claim(text, {"value": slopes["training"]}, 1.05, sense="at most", unit="")
        if axis == "variants":
            first, *_, last = (m["median"] for m in medians["backbone"])
            got = {"value": round(last / first, 3)}
            text = f"Growth, backbone seconds of {values[-1]} variants / of {values[0]}"
            part.claim(text, got, 1.2, sense="at most")
    part.tables = {"Growth, exponents": fits, "Growth, seconds": rows}
    return part


def _point(at: Mapping[str, int]) -> Point:
    return at["variants"], at["images"], at["size"]


def _rounds(options: Options, point: Point, smallest: Point) -> int:
    """Of a point: a few where the study is small, else one."""
    weigh = [variants * images * size**2 for variants, images, size in (point, smallest)]
    return options.turns(MORE if weigh[0] <= SMALL * weigh[1] else 1)


def study_seconds(options: Options, variants: int, images: int, size: int) -> dict[str, float]:
    """Seconds of a study of so many variants on so many training images of this size."""
    weights = "pretrained" if options.weights else "random"
    base = BASE.replace(image_size=size, weights=weights)
    named = {str(i): base.replace(learning_rate=1e-3 * (1 + i / 100)) for i in range(variants)}
    study = Study(name="growth", asks="How long?", bases=named, seeds=(0,))
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        write_noise(folder / "data" / "noise", images, size)
        settings = Settings(
            results=folder / "results", data=folder / "data", dataset="mvtec_ad",
            weights=options.weights, device=options.device, jobs=1, speed=False,
        )  # fmt: skip
        backbone = _Clock()
        start = time.perf_counter()
        with backbone:
            outcome = run_study(make_plan(study, settings), settings, lambda text: None)
        whole = time.perf_counter() - start
        assert not outcome.failed, outcome.failed
        training = sum(r.measured.fit_seconds or 0 for r in read_records(settings.results))
    return {"backbone": backbone.seconds, "training": training, "whole": whole}


class _Clock:
    """Inside the context, the seconds spent in filling the feature cache."""

    def __init__(self) -> None:
        self.seconds, self.plain = 0.0, FeatureCache.ensure

    def __enter__(self) -> None:
        def ensure(cache: FeatureCache, *given: Any, **named: Any) -> Features:
            start = time.perf_counter()
            try:
                return self.plain(cache, *given, **named)
            finally:
                self.seconds += time.perf_counter() - start

        FeatureCache.ensure = ensure  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        FeatureCache.ensure = self.plain  # type: ignore[method-assign]

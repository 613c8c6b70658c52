"""(f) How the cost of a study grows with variants, images and size, with fitted exponents.

The images are noise made for this, so that there are as many as wanted. Runs go one at a time on
all cores (``jobs=1``), so that a second variant cannot hide on a core that the first left idle.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import BACKBONE, Options, Part, Row, exponent, spread, write_noise
from harness.features import FeatureCache, Features
from harness.grid import run_study
from harness.plan import Settings, make_plan
from harness.records import read_records
from harness.study import Study
from harness.variant import Variant

AXES: dict[str, tuple[int, ...]] = {
    "variants": (1, 2, 4, 8, 16),
    "images": (50, 100, 200, 400),
    "size": (128, 192, 256, 320, 384, 448),
}
AT = {"variants": 1, "images": 50, "size": 256}  # where the other two stay
QUICK = {"variants": (1, 2), "images": (8, 16), "size": (64, 96)}
QUICK_AT = {"variants": 1, "images": 8, "size": 64}
STAGES = ("backbone", "training", "whole")


def measure(options: Options) -> Part:
    """Every point of every axis in each round; the fit is of the medians."""
    axes, at = (QUICK, QUICK_AT) if options.quick else (AXES, AT)
    points = [(axis, value) for axis, values in axes.items() for value in values]
    seconds: dict[tuple[str, int], list[dict[str, float]]] = {p: [] for p in points}
    for turn in range(1 + options.turns(2)):
        for axis, value in points if turn else points[:1]:  # the first start warms up
            found = study_seconds(options, **{**at, axis: value})
            if turn:
                seconds[axis, value].append(found)
                print(f"  growth: {axis} {value}: {found['whole']:.1f} s", flush=True)
    part = Part(
        protocol=[
            "A study of FastFlow variants (resnet18, 4 steps of 3×3 and 1×1, 2 epochs, batch 32, "
            "8 test images) through the harness, features and metrics included, jobs=1.",
            "backbone: the passes that fill the feature cache; training: the sum of the runs' own "
            "fit times; whole: the call, with every variant's speed measured.",
            f"The other axes stay at {at}. Exponent: slope of log seconds over log value.",
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
            rows.append(row)
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


def study_seconds(options: Options, *, variants: int, images: int, size: int) -> dict[str, float]:
    """Seconds of a study of so many variants on so many training images of this size."""
    base = Variant(
        backbone=BACKBONE, kernels=(3, 1), flow_steps=4, epochs=2, image_size=size,
        weights="pretrained" if options.weights else "random",
    )  # fmt: skip
    named = {str(i): base.replace(learning_rate=1e-3 * (1 + i / 100)) for i in range(variants)}
    study = Study(name="growth", asks="How long?", bases=named, seeds=(0,))
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        write_noise(folder / "data" / "noise", images, size)
        settings = Settings(
            results=folder / "results", data=folder / "data", dataset="mvtec_ad",
            weights=options.weights, device=options.device, jobs=1,
        )  # fmt: skip
        backbone = _Clock()
        start = time.perf_counter()
        with backbone:
            outcome = run_study(make_plan(study, settings), settings, lambda text: None)
        whole = time.perf_counter() - start
        assert not outcome.failed, outcome.failed
        training = sum(r["measured"]["fit_seconds"] for r in read_records(settings.results))
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

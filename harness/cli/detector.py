"""Commands about detectors: made of a run, used on new photos."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.cli import options, studies
from harness.cli.options import argument, option
from harness.data.remarks import tell
from harness.errors import InputError, RunFailed
from harness.escape import in_line, in_shell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.detect.detector import Detector
    from harness.detect.predict import Finding


REGION = "what counts of a photo: LEFT,TOP,RIGHT,BOTTOM in pixels, or a mask that is white there"
ALARMS = "share of good images that may be flagged (default 0.01)"
PIXEL_ALARMS = "share of a good image's pixels that may be flagged (default 0.001)"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Hold how often a detector may be wrong about what is good."""

    false_alarms: float | None = option("--false-alarms", ALARMS, metavar="SHARE")
    pixel_false_alarms: float | None = option(
        "--pixel-false-alarms", PIXEL_ALARMS, metavar="SHARE"
    )


FLOAT32 = (
    "let the detector score in float32 where the run was trained in bfloat16, as `harness export` "
    "asks for; its scores are then not the record's"
)


@dataclass(frozen=True, kw_only=True)
class Train(options.Plan, Rates):
    """Hold the one run that a detector is made of, and where it goes."""

    out: Path = option("--out", "the detector's file", metavar="FILE.safetensors", required=True)
    roi: str | None = option("--roi", REGION, metavar="REGION")
    float32: bool = option("--float32", FLOAT32)


@dataclass(frozen=True, kw_only=True)
class Best(options.Study):
    """Hold the study whose best variant is named, and the budget."""

    metric: str = option("--metric", "default: image_auroc", "image_auroc", metavar="NAME")
    max_latency_ms: float | None = option(
        "--max-latency-ms", "of one image, as the records have it", metavar="MS"
    )
    max_params: float | None = option(
        "--max-params", "trained beside the backbone, as in 2e6", metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class Show(options.Json):
    """Hold which detector is shown."""

    detector: Path = argument("a detector's file", metavar="DETECTOR")


@dataclass(frozen=True, kw_only=True)
class Predict(Show, Rates):
    """Hold which photos a detector looks at."""

    photos: list[str] = argument(
        "photos: files, folders, patterns; videos, or a camera's number",
        metavar="PHOTO",
        nargs="+",
        action="store",
    )
    out: Path = option("--out", "the folder of what is found", metavar="DIR", required=True)
    roi: str | None = option("--roi", REGION, metavar="REGION")
    every: int = option(
        "--every", "look at one of so many frames of a video or camera", 1, metavar="N"
    )
    device: str = option("--device", "auto (default), cpu, cuda, cuda:1", "auto")


TOLERANCE = (
    "how far its maps, as a share of the largest value, and scores may lie from the detector's "
    "(default 0.0001)"
)
ON_PHOTOS = "photos that the graph is checked on; default: noise and photographs of surfaces"


@dataclass(frozen=True, kw_only=True)
class Export(Show, Rates):
    """Hold which detector becomes a graph, and where it goes."""

    format: str = option("--format", "of the graph", choices=["onnx", "torch"], required=True)
    out: Path = option("--out", "the graph's file", metavar="FILE", required=True)
    photos: list[str] = option("--photos", ON_PHOTOS, metavar="DIR")
    tolerance: float = option("--tolerance", TOLERANCE, 1e-4, metavar="SHARE")


def best(given: Best) -> int:
    """Name the variant to take, with its lead, or say that the images cannot tell."""
    from harness.data.folders import safe_name
    from harness.report.best import best
    from harness.report.selection import Selection

    plan = studies.planned(given)
    selection = Selection(plan.study, plan.results, plan.dataset, plan.about)
    found = best(
        selection, given.metric, max_latency_ms=given.max_latency_ms, max_params=given.max_params
    )
    if given.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    print(in_line(f"{found.variant}  {found.by} {found.value:.1f}"))
    print(in_line(found.said))
    for name, why in found.left_out.items():
        print(in_line(f"not considered: {name}: {why}"))
    category = next(iter(plan.sizes), "NAME")
    words = (
        *("harness", "train", given.study, f"--variant={found.variant}", f"--category={category}"),
        *(f"--seed={plan.study.seeds[0]}", f"--out={safe_name(category)}.safetensors"),
    )
    print(f"next: {in_shell(words)}, with these options")
    return 0


def train(given: Train) -> int:
    """Make a detector of one run: its weights, the backbone's, and thresholds from good images."""
    from harness.detect.make import make_detector
    from harness.detect.region import Interest, refuse_whole_scores
    from harness.run.plan import make_plan
    from harness.run.sweep import run_study

    settings = replace(studies.settings_of(given), keep=True)
    plan = make_plan(studies.asked_study(given), settings)
    tell(plan.remarks, plan.read, strict=given.strict, out=studies.said_to(given))
    if len(plan.cells) != 1:
        named = ", ".join(list(plan.study.named.values())[:8])
        raise InputError(
            f"expected one run; got {len(plan.cells)}: choose by --variant ({named} …), "
            f"--category ({', '.join(plan.sizes)}) and --seed"
        )
    out = given.out
    if out.suffix != ".safetensors":
        raise InputError(f"--out: expected a name that ends in .safetensors; got {out}")
    interest = None if given.roi is None else Interest.read(given.roi)
    if interest is not None:  # before anything is trained
        refuse_whole_scores(plan.cells[0].variant)
    told = studies.said_to(given)
    outcome = run_study(plan, settings, lambda text: print(text, file=told))
    for name, reason in outcome.failed:
        print(in_line(f"failed: {name}: {reason}"), file=sys.stderr)
    if outcome.failed:
        return 1
    detector = make_detector(
        plan,
        settings,
        false_alarms=given.false_alarms,
        pixels=given.pixel_false_alarms,
        interest=interest,
        float32=given.float32,
    )
    detector.save(out)
    _print_card(detector, out, as_json=given.json)
    print(f"detector: {out} ({out.stat().st_size / 2**20:.1f} MiB)", file=told)
    return 0


def predict(given: Predict) -> int:
    """Look at new photos: scores, verdicts, heat maps, masks and regions."""
    from harness.detect.detector import Detector
    from harness.detect.predict import as_json, drift_of, predict, sources_of

    sources = sources_of(given.photos)
    detector = Detector.load(given.detector, given.device)
    detector.set_rates(given.false_alarms, given.pixel_false_alarms)
    if given.roi is not None:
        _look_only(detector, given.roi)
    found, scale = predict(detector, sources, given.out, every=given.every)
    print(as_json(found, scale) if given.json else _summary(found, given.out))
    if said := drift_of(found, detector):
        print(f"harness: drift: {said}; calibrate anew by `harness train`", file=sys.stderr)
    for finding in found:
        if finding.error:
            print(f"harness: left out: {finding.error}", file=sys.stderr)
    return 1 if any(f.error for f in found) else 0


def _look_only(detector: "Detector", roi: str) -> None:
    """Set the region of interest; say where the thresholds were set on another one."""
    from harness.detect.region import OPTION, Interest

    before = detector.interest
    detector.set_interest(interest := Interest.read(roi))
    if detector.threshold is not None and interest != before:
        print(
            f"harness: {OPTION}: the thresholds were set on {before or 'whole photos'}; "
            f"`harness train {OPTION}` sets them on this region",
            file=sys.stderr,
        )


def show(given: Show) -> int:
    """Show a detector's card: whose run it is, on which images its thresholds are set."""
    from harness.detect.detector import Detector

    _print_card(Detector.load(given.detector, "cpu"), given.detector, as_json=given.json)
    return 0


def export(given: Export) -> int:
    """Write a detector as a graph, from an image's bytes to map and score, for other runtimes."""
    from harness.detect.detector import Detector
    from harness.detect.export import export
    from harness.detect.predict import photos_of

    detector = Detector.load(given.detector, "cpu")
    detector.set_rates(given.false_alarms, given.pixel_false_alarms)
    photos = photos_of(given.photos)
    try:
        found = export(detector, given.format, given.out, photos, given.tolerance)
    except RunFailed as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({"out": str(given.out), **found._asdict()}))
    else:
        print(f"{given.out}: {found}")
    return 0


def _print_card(detector: "Detector", file: Path, *, as_json: bool) -> None:
    if not as_json:
        print(card(detector))
        return
    limits = {"threshold": detector.threshold, "pixel_threshold": detector.pixel_threshold}
    said = {name: None if limit is None else asdict(limit) for name, limit in limits.items()}
    print(json.dumps({"file": str(file), **msgspec.to_builtins(detector.about), **said}, indent=1))


def card(detector: "Detector") -> str:
    """Say what a detector is and what its thresholds promise."""
    about, levels = detector.about, detector.levels
    held = round(detector.variant.holdout * about.data.train)
    lines = [
        in_line(
            f"{detector.variant.method} on {about.weights.backbone}, "
            f"{about.dataset}/{about.category}, seed {about.seed}, epoch {about.epoch}"
        ),
        f"trained on {about.data.train - held} good images (digest {about.data.digest}); "
        f"backbone's weights from {about.weights.source}, SHA-256 {about.weights.sha256[:12]}…",
    ]
    if about.float32:
        lines.append("scores in float32, which need not be those of the record")
    if detector.interest is not None:
        lines.append(f"region of interest: {detector.interest}; nothing outside it counts")
    if about.calibration is None or detector.threshold is None:
        return "\n".join([*lines, "no thresholds: there were no good images to set them on"])
    asked = about.calibration
    lines.append(f"calibrated on {asked.images} images, {asked.which}, on {asked.date}")
    lines.append(f"  scores {_histogram(levels.scores)}")
    lines.append(f"  image threshold {detector.threshold.value:.6g}: {detector.threshold}")
    if limit := detector.pixel_threshold:
        lines.append(f"  pixel threshold {limit.value:.6g}: {limit.of('pixels')}")
    return "\n".join(lines)


def _histogram(scores: "NDArray[np.float32]") -> str:
    """Scores as a line of bars between the least and the largest."""
    import numpy as np

    counts, edges = np.histogram(scores, bins=min(20, max(1, len(scores))))
    bars = "".join(" ▁▂▃▄▅▆▇█"[round(8 * n / counts.max())] for n in counts)
    return f"{edges[0]:.4g} [{bars}] {edges[-1]:.4g}"


def _summary(found: "Sequence[Finding]", out: Path) -> str:
    rows = [f for f in found if f.score is not None]
    lines = [
        f"{f.verdict:10} {f.score:12.6g}  {len(f.regions):3} regions  {in_line(f.path)}"
        for f in rows
    ]
    flagged = sum(f.verdict == "anomalous" for f in rows)
    spent = sorted(f.milliseconds or 0.0 for f in rows)
    pace = f", {spent[len(spent) // 2]:.0f} ms a photo (median)" if spent else ""
    lines.append(f"{flagged} of {len(rows)} photos anomalous{pace}; written to {out}")
    return "\n".join(lines)

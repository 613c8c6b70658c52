"""Commands about detectors: made of a run, used on new photos."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harness.cli import options, studies
from harness.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.detect.detector import Detector
    from harness.detect.predict import Finding


def train(options: options.Train) -> int:
    """Make a detector of one run: its weights, the backbone's, and thresholds from good images."""
    from harness.detect.make import make_detector
    from harness.detect.region import Interest, refuse_whole_scores
    from harness.run.plan import make_plan
    from harness.run.sweep import run_study

    settings = replace(studies.settings_of(options), keep=True)
    plan = make_plan(studies.asked_study(options), settings)
    studies.say_remarks(plan.remarks, strict=options.strict)
    if len(plan.cells) != 1:
        named = ", ".join(list(plan.study.named.values())[:8])
        raise InputError(
            f"expected one run; got {len(plan.cells)}: choose by --variant ({named} …), "
            f"--category ({', '.join(plan.sizes)}) and --seed"
        )
    out = options.out
    if out.suffix != ".safetensors":
        raise InputError(f"--out: expected a name that ends in .safetensors; got {out}")
    interest = None if options.roi is None else Interest.read(options.roi)
    if interest is not None:  # before anything is trained
        refuse_whole_scores(plan.cells[0].variant)
    outcome = run_study(plan, settings)
    for name, reason in outcome.failed:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if outcome.failed:
        return 1
    detector = make_detector(
        plan,
        settings,
        false_alarms=options.false_alarms,
        pixels=options.pixel_false_alarms,
        interest=interest,
    )
    detector.save(out)
    print(card(detector))
    print(f"detector: {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    return 0


def predict(options: options.Predict) -> int:
    """Look at new photos: scores, verdicts, heat maps, masks and regions."""
    from harness.detect.detector import Detector
    from harness.detect.predict import as_json, drift_of, photos_of, predict

    detector = Detector.load(options.detector, options.device)
    detector.set_rates(options.false_alarms, options.pixel_false_alarms)
    if options.roi is not None:
        _look_only(detector, options.roi)
    photos = photos_of(options.photos)
    found, scale = predict(detector, photos, options.out)
    print(as_json(found, scale) if options.json else _summary(found, options.out))
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


def show(options: options.Show) -> int:
    """Show a detector's card: whose run it is, on which images its thresholds are set."""
    from harness.detect.detector import Detector

    detector = Detector.load(options.detector, "cpu")
    if options.json:
        print(json.dumps(msgspec.to_builtins(detector.about), indent=1))
    else:
        print(card(detector))
    return 0


def card(detector: "Detector") -> str:
    """Say what a detector is and what its thresholds promise."""
    about, levels = detector.about, detector.levels
    lines = [
        f"{detector.variant.method} on {about.weights.backbone}, "
        f"{about.dataset}/{about.category}, seed {about.seed}, epoch {about.epoch}",
        f"trained on {about.data.train} good images (digest {about.data.digest}); backbone's "
        f"weights from {about.weights.source}, SHA-256 {about.weights.sha256[:12]}…",
    ]
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
    counts, edges = np.histogram(scores, bins=min(20, max(1, len(scores))))
    bars = "".join(" ▁▂▃▄▅▆▇█"[round(8 * n / counts.max())] for n in counts)
    return f"{edges[0]:.4g} [{bars}] {edges[-1]:.4g}"


def _summary(found: "Sequence[Finding]", out: Path) -> str:
    rows = [f for f in found if f.score is not None]
    lines = [f"{f.verdict:10} {f.score:12.6g}  {len(f.regions):3} regions  {f.path}" for f in rows]
    flagged = sum(f.verdict == "anomalous" for f in rows)
    spent = sorted(f.milliseconds or 0.0 for f in rows)
    pace = f", {spent[len(spent) // 2]:.0f} ms a photo (median)" if spent else ""
    lines.append(f"{flagged} of {len(rows)} photos anomalous{pace}; written to {out}")
    return "\n".join(lines)

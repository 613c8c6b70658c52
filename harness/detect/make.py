"""From a recorded run to a detector: its weights, the backbone's, and thresholds."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.contract import Category, Sample
from harness.detect.detector import Detector
from harness.detect.parts import Calibration, DetectorFile, Levels
from harness.detect.region import Interest
from harness.errors import InputError
from harness.experiment.settings import Settings
from harness.experiment.variant import Variant
from harness.features.backbone import load_backbone
from harness.run.evaluate import reference_of
from harness.run.history import load_energies
from harness.run.kept import Kept, read_tensors, restore
from harness.run.machine import arithmetic, settle
from harness.run.model import make_model
from harness.run.plan import Plan
from harness.run.train import split
from harness.score.reference import ABOVE

MOST = 200  # images whose maps the pixels' threshold is set on
PIXELS = MOST * 512**2  # of them together


def make_detector(
    plan: Plan,
    settings: Settings,
    *,
    false_alarms: float | None = None,
    pixels: float | None = None,
    interest: Interest | None = None,
    float32: bool = False,
) -> Detector:
    """Make the detector of a plan's only cell, whose weights are kept.

    Args:
        plan: of one cell, that has run with ``keep``.
        settings: where it ran.
        false_alarms: as of :func:`calibrated`.
        pixels: likewise.
        interest: what counts of every image; None: all of it.
        float32: score in float32, whatever the run was trained in, so that other runtimes give
            the same. The thresholds are set on such scores; the record's are the run's own.

    Raises:
        InputError: the plan has several cells, or the weights of its backbone are others by now.
    """
    (cell,) = plan.cells
    place, category = plan.place(cell), plan.categories[cell.category]
    settings = settle(settings)
    kept, tensors = read_tensors(place.weights, Kept)
    variant = Variant.from_fields(kept.variant)
    spec = variant.feature_spec
    backbone, weights = load_backbone(
        spec.backbone, taps=spec.taps, image_size=spec.image_size, weights=spec.weights,
        folder=settings.weights,
    )  # fmt: skip
    if weights["sha256"] != kept.weights.sha256:
        raise InputError(
            f"{spec.backbone}: expected the weights that the run had, SHA-256 "
            f"{kept.weights.sha256[:12]}…; got {weights['sha256'][:12]}…; use another --weights"
        )
    model = make_model(variant, tuple(kept.shapes), kept.seed)
    restore(model, tensors, place.weights)
    model.eval().to(settings.device).to(memory_format=torch.channels_last)
    energies = plan.place(cell._replace(variant=cell.variant.training)).energies
    history = load_energies(
        energies, data=kept.data.digest, weights=kept.weights.sha256,
        arithmetic=arithmetic(settings.device),
    )  # fmt: skip
    reference = None if history is None else reference_of(variant, history, kept.epoch)
    about = DetectorFile(
        **{f: getattr(kept, f) for f in Kept.__struct_fields__},
        bits=category.bits,
        float32=float32,
    )
    backbone.to(settings.device)
    made = Detector(about, backbone, model, reference, Levels.none(), settings.device, interest)
    samples, which = unseen(variant, category, cell.seed)
    rates = {"false_alarms": false_alarms, "pixels": pixels}
    return calibrated(made, samples, which, **rates) if samples else made


def unseen(variant: Variant, category: Category, seed: int) -> tuple[list[Sample], str]:
    """Choose good images that nothing was learnt from: those held out, or else of the test.

    Where the score's tables were made of those held out, their own scores promise too much.
    """
    if variant.holdout and variant.tap_reference == "fitted":
        generator = torch.Generator().manual_seed(seed)
        _, rows = split(len(category.train), variant.holdout, generator)
        return [category.train[i] for i in rows], f"held out by holdout={variant.holdout:g}"
    return [s for s in category.test if not s.label], "the good test images"


def calibrated(
    detector: Detector,
    samples: Sequence[Sample],
    which: str,
    *,
    false_alarms: float | None = None,
    pixels: float | None = None,
) -> Detector:
    """Give a detector with thresholds set on good images that nothing was learnt from.

    Args:
        detector: whose scores they are.
        samples: the images.
        which: whose they are, in words.
        false_alarms: the share of good images that may be flagged; None: as it comes.
        pixels: the share of a good image's pixels that may be.
    """
    parts: list[NDArray[np.float32]] = []
    pixels_of: list[NDArray[np.float32]] = []
    for sample in samples:
        maps, one = detector.score([sample.image()])
        parts.append(one)
        if maps is not None and len(parts) <= MOST:
            counting = maps[np.isfinite(maps)]
            # Of large maps only every few pixels, so that all images are in the threshold.
            pixels_of.append(counting[:: math.ceil(counting.size * MOST / PIXELS)].copy())
    scores = np.concatenate(parts)
    levels = (
        Levels(scores, *_table(pixels_of)) if pixels_of else Levels(scores, *Levels.none()[1:])
    )
    asked = {"false_alarms": false_alarms, "pixel_false_alarms": pixels}
    card = Calibration(
        images=len(samples), which=which, date=datetime.now(UTC).date().isoformat(),
        **{name: rate for name, rate in asked.items() if rate is not None},
    )  # fmt: skip
    return Detector(
        msgspec.structs.replace(detector.about, calibration=card),
        detector.backbone,
        detector.model,
        detector.reference,
        levels,
        detector.device,
        detector.interest,
    )


def _table(values: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
    """Shares, and what these shares of all values exceed."""
    shares = ABOVE.numpy()
    exceeded = np.quantile(np.concatenate(values), 1 - shares, method="higher")
    return shares.astype(np.float32), exceeded.astype(np.float32)

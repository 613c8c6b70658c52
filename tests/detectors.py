"""Detectors that have seen noise alone: made in a tenth of a second, without a training."""

from dataclasses import asdict

import numpy as np
import torch

from harness.detect.detector import Detector
from harness.detect.parts import Calibration, DetectorFile, Levels
from harness.experiment.record import Data, Weights
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone
from harness.run.model import make_model
from harness.score.reference import make_reference
from harness.score.rule import needs_reference

SMALL = Variant(
    backbone="test_resnet.r160_in1k", image_size=64, taps=(1, 2), flow_steps=1, kernels=(3,),
    actnorm="data", score_map="nll", smoothing=1.0,
)  # fmt: skip


def detector_of(variant, *, calibrated=True):
    """A detector that has seen noise alone."""
    torch.manual_seed(0)
    backbone = Backbone(variant.backbone, taps=variant.taps, image_size=64)
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = make_model(variant, tuple(shapes), 0)
    with torch.no_grad():
        features = backbone(torch.randn(4, 3, 64, 64))
        if model.trained:
            model.initialise(features)
        model.fit([f.numpy() for f in features])
        energies = model.energies(features)
    reference = make_reference([energies]) if needs_reference(variant) else None
    about = DetectorFile(
        variant=asdict(variant), dataset="surfaces", category="brick", seed=0, epoch=1,
        shapes=shapes,
        weights=Weights(backbone=variant.backbone, source="random", sha256=""),
        data=Data(
            digest="", train=4, test=0, defective=0, masks=0, layout="", disturbance="", form="",
            official=None, complete=None, published_form=None, copy="",
        ),
        bits=8,
        calibration=Calibration(images=3, which="good", date="2026-01-01") if calibrated else None,
    )  # fmt: skip
    scores = np.array([0.5, 1.0, 2.0], np.float32)
    levels = Levels(scores, np.array([1, 0], np.float32), np.array([0, 2], np.float32))
    held = levels if calibrated else Levels.none()
    return Detector(about, backbone, model.eval(), reference, held)

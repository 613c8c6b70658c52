"""A detector's graph gives what the detector gives; rules that ONNX lacks operators for, too."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.fx.experimental.proxy_tensor import make_fx

from harness.cli import main as cli
from harness.detect import export as exports
from harness.detect.detector import Calibration, Detector, DetectorFile, Levels
from harness.detect.export import IN_ONNX, Whole, export, kth_value, probe, search
from harness.errors import InputError, RunFailed
from harness.experiment.record import Data, Weights
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone
from harness.methods.contract import Energies
from harness.run.model import make_model
from harness.score.images import RULES
from harness.score.maps import JOINS, LEVELS, MAPS, SCALES
from harness.score.reference import POSITIONS, make_reference
from harness.score.rule import needs_reference, score_together

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
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
        variant=variant.to_fields() if hasattr(variant, "to_fields") else variant.fields,
        dataset="surfaces", category="brick", seed=0, epoch=1, shapes=shapes,
        weights=Weights(backbone=variant.backbone, source="random", sha256=""),
        data=Data(digest="", train=4, test=0), bits=8,
        calibration=Calibration(images=3, which="good", date="2026-01-01") if calibrated else None,
    )  # fmt: skip
    scores = np.array([0.5, 1.0, 2.0], np.float32)
    levels = Levels(scores, np.array([1, 0], np.float32), np.array([0, 2], np.float32))
    return Detector(about, backbone, model.eval(), reference, levels if calibrated else Levels.none())


def rules():
    """Every scale, map, level, join and image rule, each at least once."""
    tables = [list(t) for t in (SCALES, MAPS, LEVELS, JOINS, RULES, POSITIONS)]
    names = ("tap_scale", "score_map", "centring", "scale_aggregation", "image_score",
             "tap_position")  # fmt: skip
    for i in range(max(map(len, tables))):
        rule = {n: t[i % len(t)] for n, t in zip(names, tables, strict=True)}
        yield rule | {"image_centring": list(LEVELS)[i % len(LEVELS)]}


@pytest.mark.parametrize("rule", rules(), ids=lambda r: "-".join(map(str, r.values())))
def test_every_score_rule_is_kept_by_the_operators_of_onnx(rule):
    rule |= {"tap_position": "global"} if rule["tap_scale"] == "none" else {}
    variant = SMALL.replace(**rule)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        of = [torch.rand(2, 5, k, k, generator=generator).exp() for k in (8, 4)]
        return Energies([(e, j) for e, j in of])

    reference = make_reference([drawn(0)])

    def score(*flat):
        energies = Energies(list(zip(flat[::2], flat[1::2], strict=True)))
        return score_together(variant, energies, reference)

    flat = [[t for tap in drawn(seed).taps for t in tap] for seed in (1, 2)]
    graph = make_fx(score, decomposition_table=IN_ONNX)(*flat[0])
    assert not {n.target for n in graph.graph.nodes} & set(IN_ONNX)
    for got, expected in zip(graph(*flat[1]), score(*flat[1]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)

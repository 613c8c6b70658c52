"""Costs of the built-in studies' variants, as counted once: counting them all takes minutes."""

import json
from pathlib import Path

from harness.experiment.choices import METHODS
from harness.experiment.measured import Macs, Parameters
from harness.run import measure as module
from harness.run.measure import Cost

FILE = Path(__file__).with_name("counted.json")  # training and images kept → MACs and shapes


def key_of(variant, kept):
    kept = 0 if METHODS[variant.method].trained else kept
    return f"{variant.training.digest} {kept}"


KNOWN = json.loads(FILE.read_text())


def measure(variant, kept=0):
    """Stand in for harness.run.measure.measure; what is not in the file is counted."""
    if (key := key_of(variant, kept)) not in KNOWN:
        return module.measure(variant.training, kept)
    backbone, flow, step, shapes = KNOWN[key]
    macs = Macs(backbone=backbone, flow=flow, step=step)
    return Cost(Parameters(flow=0, norm=0, frozen=0, backbone=0), macs, tuple(map(tuple, shapes)))

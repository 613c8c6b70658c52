"""A detector: a run's weights with all that an image needs to become a score."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.data import images as pictures
from harness.data.contract import Sample
from harness.detect.inference import fused
from harness.detect.threshold import Threshold, image_threshold, p_values, pixel_threshold
from harness.errors import InputError
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone
from harness.features.extractor import Extractor, normalise
from harness.features.folding import fold_batch_norms
from harness.methods.contract import Energies, Method
from harness.methods.fastflow import FastFlow
from harness.run.kept import Kept, read_tensors, restore, write_tensors
from harness.run.machine import torch_device
from harness.run.model import make_model
from harness.run.watch import precision
from harness.score.reference import Reference, TapReference
from harness.score.rule import score

BATCH = 16

Picture = Path | str | Image.Image | NDArray[np.uint8]


class Calibration(msgspec.Struct, kw_only=True):
    """Say which good images the thresholds are set on, and what rates are asked for.

    Attributes:
        images: how many.
        which: whose they are, in words.
        date: when, in UTC.
        false_alarms: the share of good images that may be flagged.
        pixel_false_alarms: the share of a good image's pixels that may be.

    >>> Calibration(images=20, which="good test images", date="2026-01-01").false_alarms
    0.01
    """

    images: int
    which: str
    date: str
    false_alarms: float = 0.01
    pixel_false_alarms: float = 0.001


class DetectorFile(Kept, kw_only=True):
    """Say what a detector's file holds beside a run's weights."""

    calibration: Calibration


class Prediction(NamedTuple):
    """Hold what a detector says of B images.

    Attributes:
        score: (B,) larger = more anomalous.
        anomaly_map: (B, H, W) of the images as they were fitted; None: the method localises not.
        is_anomalous: (B,) whether the score exceeds the threshold.

    >>> Prediction(np.ones(1), None, np.array([True])).is_anomalous.tolist()
    [True]
    """

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32] | None
    is_anomalous: NDArray[np.bool_]


@dataclass
class Detector:
    """Score images with a run's weights; :meth:`load` reads one from a file."""

    about: DetectorFile
    backbone: Backbone
    model: Method
    reference: Reference | None
    scores: NDArray[np.float32]
    shares: NDArray[np.float32]
    values: NDArray[np.float32]
    device: str = "cpu"

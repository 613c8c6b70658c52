"""Real features for the checks against other implementations: resnet18 on MVTec AD images."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SHARED

from harness.data.contract import read_mask
from harness.data.datasets import open_dataset
from harness.features.backbone import load_backbone
from harness.features.cache import FeatureCache, FeatureKey

BACKBONE, TAPS, SIZE = "resnet18.tv_in1k", (1, 2, 3), 256


@cache
def real_features(category: str, folder: Path):
    """Features (train, test) of a category, per tap; labels; masks (N, S, S). Cached in folder."""
    images, weights = SHARED / "data" / "mvtec", SHARED / "weights"
    if not (images / category).is_dir() or not weights.is_dir():
        pytest.skip(f"no folder of real data and weights beside this checkout: {SHARED}")
    found = open_dataset("mvtec_ad", folder=images, cache=folder).load(category)
    backbone, source = load_backbone(BACKBONE, taps=TAPS, image_size=SIZE, folder=weights)
    key = FeatureKey(
        BACKBONE, source["sha256"], "pretrained", TAPS, SIZE, backbone.mean, backbone.std,
        "float32", found.dataset, found.name, found.digest,
    )  # fmt: skip
    features = FeatureCache(folder).ensure(key, backbone, found)
    labels = np.array([sample.label for sample in found.test])
    masks = np.stack([read_mask(sample, SIZE) for sample in found.test])
    return features.train, features.test, labels, masks


def batches(arrays, size: int = 16):
    """The images' features in batches of tensors."""
    for start in range(0, len(arrays[0]), size):
        yield [torch.from_numpy(np.array(a[start : start + size])) for a in arrays]

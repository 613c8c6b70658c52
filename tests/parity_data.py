"""Real features for the checks against other implementations: resnet18 on MVTec AD images."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SHARED

from harness.data.contract import read_mask
from harness.data.datasets import open_dataset
from harness.experiment.feature_spec import FeatureSpec
from harness.features.cache import FeatureCache
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey

SIZE = 256
SPEC = FeatureSpec(backbone="resnet18.tv_in1k", image_size=SIZE)


@cache
def real_features(category: str, folder: Path):
    """Features (train, test) of a category, per tap; labels; masks (N, S, S). Cached in folder."""
    images, weights = SHARED / "data" / "mvtec", SHARED / "weights"
    if not (images / category).is_dir() or not weights.is_dir():
        pytest.skip(f"no folder of real data and weights beside this checkout: {SHARED}")
    found = open_dataset("mvtec_ad", folder=images, cache=folder).load(category)
    extractor = Extractor.load(SPEC, weights)
    key = FeatureKey.of(extractor, found)
    features = FeatureCache(folder).ensure(key, extractor, found)
    labels = np.array([sample.label for sample in found.test])
    masks = np.stack([read_mask(sample, SIZE) for sample in found.test])
    return features.train, features.test, labels, masks


def batches(arrays, size: int = 16):
    """The images' features in batches of tensors."""
    for start in range(0, len(arrays[0]), size):
        yield [torch.from_numpy(np.array(a[start : start + size])) for a in arrays]

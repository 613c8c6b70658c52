"""Choices of what is taken of an image."""

from dataclasses import dataclass
from typing import Literal

from harness.experiment.fields.declare import (
    Copies,
    Degrees,
    InputSize,
    Overlap,
    Tagged,
    Taps,
    Tile,
    Turns,
    Views,
    Window,
    feature,
    own,
    trained,
)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Choose the frozen backbone, and what is cached of it."""

    backbone: Tagged = feature(
        "resnet18.tv_in1k", "a timm model with its tag", "four backbones; no ResNet tag"
    )
    weights: Literal["pretrained", "random"] = feature(
        "pretrained", "the backbone's weights", "pretrained"
    )
    image_size: InputSize = feature(
        256,
        "side of the square input, pixels; or its height and width, where the backbone takes any",
        "256; 384 (DeiT); 448 (CaiT)",
    )
    taps: Taps = feature(
        (1, 2, 3),
        "feature stages of a CNN, or block indices from 0 of a transformer",
        "stages 1–3; block 7 (DeiT), 40 (CaiT), without saying where it counts from",
    )
    feature_dtype: Literal["float32", "float16"] = feature(
        "float32", "number format of the cached features"
    )
    resize: Literal["square", "crop", "pad"] = feature(
        "square",
        "how an image is fitted into the input: stretched; crop: in proportion, to cover 256/224 "
        "of it, then the centre; pad: in proportion and whole, mirrored around. The method "
        "learns from what is mirrored too; no score or metric sees it",
    )
    tile_size: Tile = feature(
        0,
        "photos are cut into tiles of this side, pixels of the photo; each is an image to the "
        "method, while scores, maps and figures are of photos. For large photos with small "
        "defects; 0: none",
    )
    tile_overlap: Overlap = feature(0.25, "share of a tile that its neighbour shows too")
    views: Views = own(
        0, "turned copies of an image, pooled at three sizes; 0: as it is", stage="features"
    )
    feature_pooling: Window = feature(
        0,
        "each feature is the mean over a window of so many positions a side, stride 1; 0: none. "
        "What a method pools itself comes after it",
        kind="map",
    )
    augmentation: Literal["none", "flips", "turns", "all-turned", "paper"] = trained(
        "none",
        "mirrored and turned copies of the training images, cached: an epoch takes one of each "
        "image's copies. flips: left and right with p 0.5, upside down with 0.3; turns: turned "
        "with p 0.7, or each (all-turned); paper: flips and turns",
        "hflip 0.5, vflip 0.3, rotation 0.7 (6.2), by another's account; no angle",
        stage="features",
    )
    augmentation_degrees: Degrees = trained(
        180.0, "largest angle of a turned copy, drawn evenly from ± this", stage="features"
    )
    augmentation_copies: Copies = trained(8, "cached copies an image", stage="features")
    test_turns: Turns = feature(
        0,
        "an image's score is the mean over so many evenly turned copies of it, the first as it "
        "is; maps stay those of the image as it is",
        kind="map",
    )

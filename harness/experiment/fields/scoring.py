"""Choices of the scores: none of them needs a new training."""

from dataclasses import dataclass
from typing import Literal

from harness.experiment.fields.declare import Blur, Part, Share, Weights, scoring


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Choose how energies become maps, image scores and figures."""

    mask_resize: Literal["nearest", "covered"] = scoring(
        "nearest",
        "how masks are resized; covered: only pixels that the defect covers whole",
        "nothing",
    )
    leaks: Literal["refuse", "allow"] = scoring("refuse", "the same file in training and test")
    score_map: Literal["exp-mean", "nll", "nll-log-det", "likelihood", "nll-both"] = scoring(
        "exp-mean",
        "which map a tap gives; nll-both: the mean of nll and nll-log-det",
        "“likelihood map”",
        kind="taps",
    )
    tap_scale: Literal["none", "standardised", "quantile", "neg-log-p"] = scoring(
        "none",
        "scale of a tap's values: as they are, or by the training images' at this tap",
        kind="taps",
    )
    tap_position: Literal["global", "smoothed", "position"] = scoring(
        "global",
        "whose values make that scale: all positions', those around it, the same one's",
        kind="taps",
    )
    tap_reference: Literal["fitted", "held-out"] = scoring(
        "fitted", "of which good images: those trained on, or those held out", kind="taps"
    )
    p_floor: Part = scoring(
        0.0, "p-value beyond which neg-log-p hardly rises; 0: it rises to the last", kind="taps"
    )
    tap_weights: Weights = scoring(
        (), "weights of the taps' maps, in proportion; none: equal", kind="taps"
    )
    centring: Literal["none", "mean", "median", "tenth", "border"] = scoring(
        "none", "what of an image's own map is its zero, tap by tap", kind="taps"
    )
    scale_aggregation: Literal["mean", "sum", "max"] = scoring(
        "mean", "how the taps' maps are joined", "upsampled and averaged", kind="taps"
    )
    align_corners: bool = scoring(default=False, says="of the maps' upsampling", kind="map")
    smoothing: Blur = scoring(0.0, "deviation of a Gaussian on the map, pixels", kind="map")
    image_score: Literal["max", "top-k", "mean", "std", "joined", "own"] = scoring(
        "max",
        "how a map becomes an image score; joined: geometric mean of max, top-k and std; own: "
        "the method's",
        "nothing",
        kind="map",
    )
    image_score_map: Literal[
        "same", "exp-mean", "nll", "nll-log-det", "likelihood", "nll-both"
    ] = scoring("same", "score_map of the map that the image score is made of", kind="taps")
    image_tap_scale: Literal["same", "none", "standardised", "quantile", "neg-log-p"] = scoring(
        "same", "tap_scale of the map that the image score is made of", kind="taps"
    )
    image_centring: Literal["none", "mean", "median", "tenth", "border"] = scoring(
        "none", "what of an image's own map is its zero, for the image score alone", kind="map"
    )
    top_k: Share = scoring(0.01, "share of the highest pixels for top-k", kind="map")
    epoch_selection: Literal[
        "last",
        "label-free",
        "lowest-holdout-loss",
        "best-on-test",
        "best-image-on-test",
        "best-pixel-on-test",
    ] = scoring(
        "last",
        "which epoch counts; label-free: by image and pixel AUROC of validation=synthetic; the "
        "best-… ones are oracles, by those of the test images or one of them",
        "nothing",
        kind="trained",
    )

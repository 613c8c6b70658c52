"""Choices of the scores: none of them needs a new training."""

from dataclasses import dataclass
from typing import Literal

from harness.experiment.fields.declare import Amount, Share, scoring


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Choose how energies become maps, image scores and figures."""

    mask_resize: Literal["nearest", "covered"] = scoring(
        "nearest",
        "how masks are resized; covered: only pixels that the defect covers whole",
        "nothing",
    )
    leaks: Literal["refuse", "allow"] = scoring("refuse", "the same file in training and test")
    score_map: Literal["exp-mean", "nll", "nll-log-det", "likelihood"] = scoring(
        "exp-mean", "which map a tap gives", "“likelihood map”", kind="taps"
    )
    scale_aggregation: Literal["mean", "sum", "max"] = scoring(
        "mean", "how the taps' maps are joined", "upsampled and averaged", kind="taps"
    )
    align_corners: bool = scoring(default=False, says="of the maps' upsampling", kind="map")
    smoothing: Amount = scoring(0.0, "deviation of a Gaussian on the map, pixels", kind="map")
    image_score: Literal["max", "top-k", "mean", "own"] = scoring(
        "max", "how a map becomes an image score; own: the method's", "nothing", kind="map"
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

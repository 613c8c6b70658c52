"""A variant's score rule: from what a method says to maps and image scores."""

from torch import Tensor

from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.images import image_scores
from harness.score.maps import anomaly_maps


def score(variant: Variant, energies: Energies) -> tuple[Tensor | None, Tensor]:
    """Make anomaly maps (N, S, S) and image scores (N,) by the variant's score rule.

    There are no maps from a method that does not localise.
    """
    own = energies.images if variant.image_score == "own" else None
    if not energies.taps:
        assert own is not None, "a method without maps has image scores of its own"
        return None, own
    maps = anomaly_maps(
        energies.taps,
        size=variant.image_size,
        score_map=variant.score_map,
        scale_aggregation=variant.scale_aggregation,
        smoothing=variant.smoothing,
        align_corners=variant.align_corners,
    )
    if own is not None:
        return maps, own
    return maps, image_scores(maps, image_score=variant.image_score, top_k=variant.top_k)

"""A variant's score rule: from what a method says to maps and image scores."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.images import image_scores
from harness.score.maps import anomaly_maps

CHUNK = 16  # images whose maps are made together: bounds memory, whatever the category's size


def score(variant: Variant, energies: Energies) -> tuple[Tensor | None, Tensor]:
    """Make anomaly maps (N, S, S) and image scores (N,) by the variant's score rule.

    There are no maps from a method that does not localise.
    """
    maps, scores = zip(*score_in_chunks(variant, [energies]), strict=True)
    if len(scores) == 1:
        return maps[0], scores[0]
    return None if maps[0] is None else torch.cat(maps), torch.cat(scores)


def score_in_chunks(
    variant: Variant, energies: Iterable[Energies]
) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Yield the maps and scores of :func:`score`, of CHUNK images and the rest of each part.

    >>> from harness.experiment.variant import Variant
    >>> parts = [Energies([(torch.zeros(40, 2, 2), torch.zeros(40, 2, 2))])]
    >>> [maps.shape[0] for maps, _ in score_in_chunks(Variant(image_size=64), parts)]
    [16, 16, 8]
    """
    for part in energies:
        for start in range(0, len(part), CHUNK):
            yield _score(variant, part.rows(slice(start, start + CHUNK)))


def _score(variant: Variant, energies: Energies) -> tuple[Tensor | None, Tensor]:
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
    ).cpu()
    if own is not None:
        return maps, own
    return maps, image_scores(maps, image_score=variant.image_score, top_k=variant.top_k)

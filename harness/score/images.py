"""From anomaly maps to one score an image; the paper defines none."""

from collections.abc import Callable

from torch import Tensor

from harness.score.maps import centred

RULES: dict[str, Callable[[Tensor, float], Tensor]] = {  # of pixels (B, H·W), and top_k
    "max": lambda pixels, share: pixels.amax(1),  # gathierry's and anomalib's reading
    "top-k": lambda pixels, share: _mean_of_highest(pixels, share),
    "mean": lambda pixels, share: pixels.mean(1),
    "std": lambda pixels, share: pixels.std(1, correction=0),  # UniAD's author's, for screws
    "joined": lambda pixels, share: _joined(pixels, share),
}


def image_scores(
    maps: Tensor, *, image_score: str, top_k: float, image_centring: str = "none"
) -> Tensor:
    """Score every image, (B,), by its map, (B, H, W).

    Args:
        maps: larger = more anomalous.
        image_score: a key of :data:`RULES`.
        top_k: share of the highest pixels whose mean ``top-k`` is.
        image_centring: what is taken off each map before, a key of
            :data:`harness.score.maps.LEVELS`.

    >>> import torch
    >>> image_scores(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), image_score="max", top_k=0.01)
    tensor([6.])
    """
    return RULES[image_score](centred(maps, image_centring).flatten(1), top_k)


def _mean_of_highest(pixels: Tensor, share: float) -> Tensor:
    count = max(1, round(share * pixels.shape[1]))
    return pixels.topk(count, dim=1).values.mean(1)


def _joined(pixels: Tensor, share: float) -> Tensor:
    """The geometric mean of deviation, maximum and highest share, above the map's mean.

    All three are of the map's unit and at least 0, so that none needs a scale to be joined.
    """
    mean = pixels.mean(1)
    above = (pixels.amax(1) - mean) * (_mean_of_highest(pixels, share) - mean)
    return (above.clamp_min(0) * pixels.std(1, correction=0)) ** (1 / 3)

"""A variant's score rule: from what a method says to maps and image scores."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from harness.data.frame import Box, Boxes
from harness.data.tiles import Photos
from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.blend import joined
from harness.score.images import image_scores
from harness.score.maps import anomaly_maps, count_saturated
from harness.score.reference import Reference

CHUNK = 16  # images whose maps are made together: bounds memory, whatever the category's size


def score(
    variant: Variant,
    energies: Energies,
    reference: Reference | None = None,
    boxes: Boxes = None,
    photos: Photos | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Make anomaly maps (N, H, W) and image scores (N,) by the variant's score rule.

    There are no maps from a method that does not localise. Around an image's box its map is nan;
    so it is around a photo's that was cut into tiles, in a frame that has room for all.
    """
    chunks = score_in_chunks(variant, [energies], reference, boxes, photos)
    maps, scores = zip(*chunks, strict=True)
    if maps[0] is None:
        return None, torch.cat(scores)
    shown, frame = (photos.boxes, photos.frame) if photos else (boxes, variant.shape)
    if shown is not None:
        whole, rows = maps[0].new_full((len(shown), *frame), torch.nan), iter(shown)
        for placed, one in zip(whole, (m for some in maps for m in some), strict=True):
            box = next(rows)
            placed[box.rows, box.columns] = one
        return whole, torch.cat(scores)
    return (maps[0], scores[0]) if len(scores) == 1 else (torch.cat(maps), torch.cat(scores))


def score_in_chunks(
    variant: Variant,
    energies: Iterable[Energies],
    reference: Reference | None = None,
    boxes: Boxes = None,
    photos: Photos | None = None,
    regions: Sequence[Tensor] | None = None,
) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Yield the maps and scores of :func:`score`, of CHUNK images and the rest of each part.

    Where images have boxes, a chunk is of successive ones with the same box, and its maps are
    those of the box alone.

    Args:
        variant: its score rule.
        energies: of images, or of photos' tiles, in parts.
        reference: where the rule reads one.
        boxes: where each input shows its image.
        photos: whose tiles the images are: then every chunk is one photo, its map joined.
        regions: of every map, (H, W) bool, what the image score is made of; None: all.

    >>> from harness.experiment.variant import Variant
    >>> parts = [Energies([(torch.zeros(40, 2, 2), torch.zeros(40, 2, 2))])]
    >>> [maps.shape[0] for maps, _ in score_in_chunks(Variant(image_size=64), parts)]
    [16, 16, 8]
    """
    looked = _looked(variant, energies, reference, boxes)
    start = 0
    for maps, own in joined(looked, photos) if photos else looked:
        if own is None:
            inside = regions[start : start + len(maps[0])] if regions is not None else None
            own = _judged(variant, maps[-1], inside)
        start += len(own)
        yield maps[0] if maps else None, own


def _judged(variant: Variant, maps: Tensor, regions: Sequence[Tensor] | None) -> Tensor:
    """Image scores (B,) of maps (B, h, w): of all their pixels, or of these."""
    rule = {name: getattr(variant, name) for name in ("image_score", "top_k", "image_centring")}
    if regions is None:
        return image_scores(maps, **rule)
    parts = [one[region][None, None] for one, region in zip(maps, regions, strict=True)]
    return torch.cat([image_scores(part, **rule) for part in parts])


def _looked(
    variant: Variant, energies: Iterable[Energies], reference: Reference | None, boxes: Boxes
) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    """Chunks of images: their maps, those of the scores if they are others, and own scores."""
    before = 0
    for part in energies:
        for start in range(0, len(part), CHUNK):
            some = part.rows(slice(start, start + CHUNK))
            first = 0
            for box, count in _runs(boxes, before + start, len(some)):
                rows = some.rows(slice(first, first := first + count))
                yield _look(variant, rows, reference, box)
        before += len(part)


def _runs(boxes: Boxes, start: int, count: int) -> list[tuple[Box | None, int]]:
    """Successive images with the same box, from one on: the box, and how many they are."""
    if boxes is None:
        return [(None, count)]
    return [(box, len(list(run))) for box, run in groupby(boxes[start : start + count])]


def score_together(
    variant: Variant,
    energies: Energies,
    reference: Reference | None = None,
    box: Box | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Give the maps and scores of :func:`score`, of so few images that memory does not matter.

    >>> from harness.experiment.variant import Variant
    >>> energies = Energies([(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))])
    >>> score_together(Variant(image_size=64), energies)[0].shape
    torch.Size([2, 64, 64])
    """
    maps, own = _look(variant, energies, reference, box)
    return maps[0] if maps else None, _judged(variant, maps[-1], None) if own is None else own


def _look(
    variant: Variant, energies: Energies, reference: Reference | None, box: Box | None
) -> tuple[list[Tensor], Tensor | None]:
    own = energies.images if variant.image_score == "own" else None
    assert energies.taps or own is not None, "a method without maps has scores of its own"
    rules = _rules(variant)[: 1 if own is not None else 2] if energies.taps else ()
    return [_maps(variant, energies, reference, r, box) for r in dict.fromkeys(rules)], own


def _rules(variant: Variant) -> tuple[tuple[str, str], tuple[str, str]]:
    """The score_map and tap_scale of the maps, and of those that image scores are made of."""
    images = (
        variant.score_map if variant.image_score_map == "same" else variant.image_score_map,
        variant.tap_scale if variant.image_tap_scale == "same" else variant.image_tap_scale,
    )
    return (variant.score_map, variant.tap_scale), images


def saturation(
    variant: Variant, energies: Iterable[Energies], reference: Reference | None = None
) -> list[float]:
    """Measure which share of each tap's values is at the end of its map, where pixels tie.

    Args:
        variant: its score rule; of its maps and those of the image scores the larger share.
        energies: of all test images, in parts.
        reference: where the rule reads one.

    >>> from harness.experiment.variant import Variant
    >>> far = Energies([(torch.tensor([[[1.0, 150.0]]]), torch.zeros(1, 1, 2))])
    >>> saturation(Variant(), [far]), saturation(Variant(score_map="nll"), [far])
    ([0.5], [0.0])
    """
    rules = dict.fromkeys(_rules(variant))
    counts, values = [], []
    for part in energies:
        found = [
            count_saturated(
                part.taps,
                score_map=score_map,
                tap_scale=tap_scale,
                tap_position=variant.tap_position,
                p_floor=variant.p_floor,
                reference=reference,
            )
            for score_map, tap_scale in rules
        ]
        counts.append(torch.tensor(found))
        values.append(torch.tensor([e.numel() for e, _ in part.taps]))
    most = torch.stack(counts).sum(0).amax(0)
    return [float(share) for share in most / torch.stack(values).sum(0)]


def _maps(
    variant: Variant,
    energies: Energies,
    reference: Reference | None,
    rule: tuple[str, str],
    box: Box | None,
) -> Tensor:
    """The maps by this score_map and tap_scale; the rest as the variant has it."""
    score_map, tap_scale = rule
    return anomaly_maps(
        energies.taps,
        size=variant.shape,
        score_map=score_map,
        scale_aggregation=variant.scale_aggregation,
        smoothing=variant.smoothing,
        align_corners=variant.align_corners,
        tap_scale=tap_scale,
        tap_position=variant.tap_position,
        p_floor=variant.p_floor,
        tap_weights=variant.tap_weights,
        centring=variant.centring,
        reference=reference,
        box=box,
    ).cpu()


def needs_reference(variant: Variant) -> bool:
    """Tell whether the variant's score rule reads tables of good images.

    >>> from harness.experiment.variant import Variant
    >>> needs_reference(Variant(tap_scale="quantile")), needs_reference(Variant())
    (True, False)
    """
    return variant.tap_scale != "none" or variant.image_tap_scale not in ("same", "none")

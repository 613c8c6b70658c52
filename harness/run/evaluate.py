"""From energies to the figures of an epoch, by a variant's scoring choices.

Maps are made and forgotten a few images at a time; masks are held as bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.data.contract import Category, read_mask
from harness.data.synthetic import DEFECTIVE_COPIES
from harness.data.tiles import photos_of
from harness.errors import RunFailed
from harness.experiment.feature_spec import Size, shape_of
from harness.experiment.measured import Metrics, finite
from harness.experiment.record import Epoch
from harness.experiment.variant import Variant
from harness.run.history import History
from harness.score.localisation import Localisation, Truth
from harness.score.metrics import Detection, image_metrics, measure_pixels
from harness.score.ranking import Floats, Values
from harness.score.reference import Reference
from harness.score.rule import needs_reference, saturation, score_in_chunks
from harness.score.select_epoch import select_epoch

AUPRO_LIMIT = 0.3  # false-positive rate up to which AUPRO integrates (MVTec AD's convention)

Labels = NDArray[np.int64]


class PackedMasks:
    """Hold masks (N, H, W) as bits, and none of an image without a defect.

    Attributes:
        shape: (N, H, W).
        defective: pixels with a defect.

    >>> masks = PackedMasks(2, 8)
    >>> masks.put(1, np.eye(8, dtype=bool))
    >>> masks[0:2].sum((1, 2)).tolist(), masks[[1]].shape
    ([0, 8], (1, 8, 8))
    """

    def __init__(self, images: int, size: Size) -> None:
        self.shape = (images, *shape_of(size))
        self.defective = 0
        self._bits: dict[int, NDArray[np.uint8]] = {}

    def put(self, image: int, mask: Truth) -> None:
        """Keep an image's mask (H, W), once."""
        if mask.any():
            self._bits[image] = np.packbits(mask)
            self.defective += int(mask.sum())

    def __getitem__(self, which: slice | list[int]) -> Truth:
        """Unpack the masks of some images, (k, H, W)."""
        images, *shape = self.shape
        numbers = range(images)[which] if isinstance(which, slice) else which
        masks = np.zeros((len(numbers), *shape), dtype=bool)
        for mask, i in zip(masks, numbers, strict=True):
            if i in self._bits:
                mask[:] = _unpacked(self._bits[i], shape)
        return masks


def _unpacked(bits: NDArray[np.uint8], shape: Sequence[int]) -> Truth:
    return np.unpackbits(bits, count=math.prod(shape)).view(bool).reshape(shape)


Masks = PackedMasks | None


@dataclass(frozen=True)
class PerImage:
    """Hold what each of N test images got, by the order of the category's test images.

    Attributes:
        scores: (N,) image scores; larger = more anomalous.
        found: (N,) mean over an image's defective pixels of the share of all normal pixels that
            score lower, ties half; nan of an image without defective pixels.
        clear: (N,) mean over an image's normal pixels of the share of all defective pixels that
            score higher, ties half; nan where there are none.
        defect_pixels: (N,) defective pixels of its mask.
        pixels: (N,) all pixels of its map.
        saturated: of each tap, the share of all images' values at the end of its map.

    ``found`` weighted by the defective pixels averages to the pixel AUROC, and so does ``clear``
    weighted by the normal ones. Without masks or maps both are nan, and the pixels 0.
    """

    scores: NDArray[np.float32]
    found: Floats
    clear: Floats
    defect_pixels: NDArray[np.int64]
    pixels: NDArray[np.int64]
    saturated: list[float] = field(default_factory=list)


def truth(variant: Variant, category: Category) -> tuple[Labels, PackedMasks | None]:
    """Read labels (N,) and masks (N, H, W) of the test images; None without masks.

    Read here and not cached: the rule that resizes a mask is a scoring choice.
    """
    labels = np.array([s.label for s in category.test], dtype=np.int64)
    if not category.has_masks:
        return labels, None
    photos = photos_of(category.test, variant.feature_spec)
    masks = PackedMasks(len(labels), photos.frame if photos else variant.shape)
    for i, sample in enumerate(category.test):
        if photos is None:
            mask = read_mask(sample, variant.shape, variant.resize, variant.mask_resize)
        else:
            box, mask = photos.boxes[i], np.zeros(photos.frame, dtype=bool)
            mask[box.rows, box.columns] = read_mask(sample, box.shape, rule=variant.mask_resize)
        masks.put(i, mask)
    return labels, masks


def evaluate(variant: Variant, history: History, labels: Labels, masks: Masks) -> list[Epoch]:
    """Score every evaluated epoch, in the order of training."""
    return [evaluate_epoch(variant, history, e, labels, masks) for e in history.energies]


def evaluate_epoch(
    variant: Variant, history: History, epoch: int, labels: Labels, masks: Masks
) -> Epoch:
    """Score one evaluated epoch."""
    scored = _Scored(variant, history, epoch, len(labels), masks)
    pixels = scored.localisation()
    metrics = image_metrics(_over_turns(variant, history, epoch, scored.scores), labels)
    if pixels is not None:
        metrics |= measure_pixels(pixels)
    return Epoch(
        epoch=epoch,
        loss=history.loss[epoch - 1] if history.loss else None,
        metrics=finite(metrics),
        holdout=history.holdout.get(epoch),
        validation=_validate(variant, history, epoch),
    )


def _validate(variant: Variant, history: History, epoch: int) -> Metrics | None:
    """Measure how well held-out images and their copies are told apart; None without copies."""
    if DEFECTIVE_COPIES[variant.validation] is None:
        return None
    bits = history.energies.read("validation/masks.npy")
    count = len(bits)
    masks = PackedMasks(2 * count, variant.image_size)
    for i, row in enumerate(bits, start=count):  # the good images come first
        masks.put(i, _unpacked(row, variant.shape))
    scored = _Scored(variant, history, epoch, 2 * count, masks, "validation")
    pixels = scored.localisation()
    found = {"image_auroc": Detection(scored.scores, np.arange(2 * count) >= count).summary}
    if pixels is not None:
        found["pixel_auroc"] = pixels.summary
    return finite({name: summary["auroc"] for name, summary in found.items()})


def per_image(
    variant: Variant, history: History, epoch: int, labels: Labels, masks: Masks
) -> PerImage:
    """Measure what each test image got at one evaluated epoch; the maps are made anew."""
    scored = _Scored(variant, history, epoch, len(labels), masks)
    pixels = scored.localisation()
    scores = _over_turns(variant, history, epoch, scored.scores)
    ends = saturation(variant, history.energies.chunks(epoch), scored.reference)
    if pixels is None:
        none, nothing = np.full(len(labels), np.nan), np.zeros(len(labels), np.int64)
        return PerImage(scores, none, none, nothing, nothing, ends)
    defective = pixels.defect_pixels
    every = pixels.normal_pixels + defective
    return PerImage(scores, pixels.found(), pixels.clear(scored), defective, every, ends)


def _over_turns(
    variant: Variant, history: History, epoch: int, scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Average image scores (N,) with those of the images' turned copies, if there are any."""
    if not variant.test_turns:
        return scores
    copies = history.energies.part("turned")
    reference = reference_of(variant, history, epoch)
    parts = score_in_chunks(variant, copies.chunks(epoch), reference, copies.boxes)
    turned = np.concatenate([s.numpy() for _, s in parts]).reshape(len(scores), -1)
    means = np.column_stack([scores, turned]).mean(1, dtype=np.float64)
    return np.asarray(means, np.float32)


class _Scored:
    """An epoch's maps with their masks, chunk by chunk; and the image scores, on the way."""

    def __init__(
        self,
        variant: Variant,
        history: History,
        epoch: int,
        images: int,
        masks: Masks,
        part: str = "",
    ) -> None:
        energies = history.energies.part(part) if part else history.energies
        self.variant, self.energies, self.epoch, self.masks = variant, energies, epoch, masks
        self.scores = np.empty(images, np.float32)
        self.reference, self.photos = reference_of(variant, history, epoch), energies.photos
        self.boxes = self.photos.boxes if self.photos else energies.boxes

    def __call__(self) -> Iterator[tuple[Values, Truth]]:
        """Yield maps (B, H, W) and masks, of the photo alone; nothing where there are not both."""
        start = 0
        chunks, boxes = self.energies.chunks(self.epoch), self.energies.boxes
        for maps, scores in score_in_chunks(
            self.variant, chunks, self.reference, boxes, self.photos
        ):
            part = slice(start, start := start + len(scores))
            self.scores[part] = scores.numpy()
            _refuse_non_finite(self.epoch, scores if maps is None else maps, scores)
            if maps is not None and self.masks is not None:
                masks = self.masks[part]
                if self.boxes is not None:
                    box = self.boxes[part.start]
                    masks = masks[:, box.rows, box.columns]
                yield maps.numpy(), masks

    def localisation(self) -> Localisation | None:
        """Rank the pixels, and set the image scores; None where there are no pixels to rank."""
        masks = self.masks
        if masks is None or not next(self.energies.chunks(self.epoch)).taps:
            for _ in self():
                pass
            return None
        pixels = math.prod(masks.shape)
        if self.boxes is not None:
            pixels = sum(math.prod(box.shape) for box in self.boxes)
        return Localisation.of(
            self, pixels=pixels, defective=masks.defective, fpr_limit=AUPRO_LIMIT
        )


def _refuse_non_finite(epoch: int, *scored: Tensor) -> None:
    """Refuse maps or image scores that have no order."""
    if not all(bool(values.isfinite().all()) for values in scored):
        raise RunFailed(
            f"the maps or image scores of epoch {epoch} are not all finite: the energies are too "
            "large for this rule; try another score_map or image_score, or a smaller learning_rate"
        )


def reference_of(variant: Variant, history: History, epoch: int) -> Reference | None:
    """Find the tables of good images that the variant's score rule reads; None if it reads none.

    Raises:
        RunFailed: they were not kept, as by a version that knew of none.
    """
    if not needs_reference(variant):
        return None
    found = history.energies.reference(epoch, variant.tap_reference)
    if found is None:
        raise RunFailed(
            f"tap_scale: expected tables of the {variant.tap_reference} images' values in the "
            f"training's energies at epoch {epoch}; got none; remove that energies file and its "
            "record, and train again"
        )
    return found


def patience(variant: Variant, labels: Labels, masks: Masks) -> Callable[[History], bool]:
    """Make the rule of early stopping: true once the chosen lies ``patience`` evaluations back."""
    evaluated: list[Epoch] = []

    def enough(history: History) -> bool:
        # One more at a time, or, of a training that was taken up, all that it had.
        known = {e.epoch for e in evaluated}
        for epoch in (e for e in history.energies if e not in known):
            evaluated.append(evaluate_epoch(variant, history, epoch, labels, masks))
        chosen = select_epoch(evaluated, variant.epoch_selection)
        return sum(e.epoch > chosen.epoch for e in evaluated) >= variant.patience

    return enough if variant.patience else lambda history: False

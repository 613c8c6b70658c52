"""The few test images that a run keeps for the report, with their masks and maps."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.data.contract import Category, Sample, read_image
from harness.data.tiles import Photos
from harness.experiment.place import Place
from harness.experiment.variant import Variant
from harness.files import write_whole
from harness.run.energies import History
from harness.run.evaluate import Masks, reference_of
from harness.score.rule import score

GALLERY = 6  # images
BLANK = 255  # around a padded image


def save_gallery(
    place: Place,
    variant: Variant,
    category: Category,
    history: History,
    epoch: int,
    masks: Masks,
    scores: NDArray[np.float32],
) -> None:
    """Keep the first image of every kind of defect and the good image with the highest score.

    Nothing where the method gives no maps. What is around a padded image is blank.
    """
    test = category.test
    rows = _shown(category, scores)
    reference = reference_of(variant, history, epoch)
    boxes, photos = history.energies.boxes, history.energies.photos
    some, numbers = photos.rows(rows) if photos else (None, rows)
    seen = None if boxes is None else [boxes[i] for i in numbers]
    maps, _ = score(variant, history.energies.rows(epoch, numbers), reference, seen, some)
    if maps is None:
        return
    none = np.zeros(maps.shape, dtype=bool)
    samples = [test[i] for i in rows]
    if some is None:
        images = np.stack([read_image(s, variant.shape, variant.resize) for s in samples])
    else:
        images = _in_frame(samples, some)
    images[maps.isnan().numpy()] = BLANK
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images,
        masks=none if masks is None else masks[rows][:, : maps.shape[1], : maps.shape[2]],
        maps=maps.numpy().astype(np.float32),
        scores=scores[rows],
        defects=np.array([test[i].defect for i in rows]),
        has_masks=np.array(category.has_masks),
    )
    write_whole(place.gallery, buffer.getvalue())


def _shown(category: Category, scores: NDArray[np.float32]) -> list[int]:
    test = category.test
    kinds = dict.fromkeys(s.defect for s in test if s.label)
    rows = [next(i for i, s in enumerate(test) if s.defect == kind) for kind in kinds]
    good = [i for i, s in enumerate(test) if not s.label]
    return rows[: GALLERY - 1] + sorted(good, key=lambda i: -scores[i])[:1]


def _in_frame(samples: Sequence[Sample], photos: Photos) -> NDArray[np.uint8]:
    """Photos at the size of their maps, in a frame that has room for each."""
    whole = np.full((len(samples), *photos.frame, 3), BLANK, np.uint8)
    for placed, sample, box in zip(whole, samples, photos.boxes, strict=True):
        placed[box.rows, box.columns] = read_image(sample, box.shape)
    return whole

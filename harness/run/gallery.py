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
from harness.run.evaluate import Masks, reference_of
from harness.run.history import History
from harness.score.rule import score

KINDS = 5  # of defects, an image each
WORST = 2  # misses, and false alarms
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
    """Keep the images that a reader asks for; see :func:`_shown`.

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
        rows=np.array(rows),
        has_masks=np.array(category.has_masks),
    )
    write_whole(place.gallery, buffer.getvalue())


def _shown(category: Category, scores: NDArray[np.float32]) -> list[int]:
    """The test images that are kept, as indices.

    The first one of every kind of defect, which are the same for every variant; and those that
    say most of this one: the defects that score lowest and highest, and the good images that
    score highest and lowest.
    """
    test = category.test
    bad = sorted((i for i, s in enumerate(test) if s.label), key=lambda i: scores[i])
    good = sorted((i for i, s in enumerate(test) if not s.label), key=lambda i: -scores[i])
    kinds = dict.fromkeys(s.defect for s in test if s.label)
    first = [next(i for i, s in enumerate(test) if s.defect == kind) for kind in kinds]
    told = bad[:WORST] + bad[-1:] + good[:WORST] + good[-1:]
    return list(dict.fromkeys(first[:KINDS] + told))


def _in_frame(samples: Sequence[Sample], photos: Photos) -> NDArray[np.uint8]:
    """Photos at the size of their maps, in a frame that has room for each."""
    whole = np.full((len(samples), *photos.frame, 3), BLANK, np.uint8)
    for placed, sample, box in zip(whole, samples, photos.boxes, strict=True):
        placed[box.rows, box.columns] = read_image(sample, box.shape)
    return whole

"""What a run's record says: of its variant, its images, its epochs and where it was made."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.contract import Category
from harness.experiment.measured import Measured
from harness.experiment.record import (
    SCHEMA,
    Data,
    Epoch,
    EpochSelection,
    Images,
    Protocol,
    Record,
    Weights,
)
from harness.experiment.variant import Variant
from harness.run.evaluate import AUPRO_LIMIT, PerImage
from harness.run.history import History
from harness.run.machine import environment
from harness.score.select_epoch import ORACLES

if TYPE_CHECKING:
    from harness.run.job import Job


def record_of(
    job: "Job",
    history: History,
    epochs: Sequence[Epoch],
    chosen: Epoch,
    images: PerImage,
    measured: Measured,
) -> Record:
    """Make the record of a run.

    Args:
        job: the run.
        history: of its training.
        epochs: those that were evaluated, with their metrics.
        chosen: the one that counts.
        images: what each test image got at it.
        measured: times and memory.
    """
    variant, category = job.variant, job.category
    return Record(
        schema=SCHEMA,
        digest=variant.digest,
        training_digest=variant.training.digest,
        variant=asdict(variant),
        dataset=category.dataset,
        category=category.name,
        seed=job.seed,
        smoke=variant.smoke,
        random_weights=variant.weights == "random",
        weights=Weights(backbone=variant.backbone, **job.weights),
        data=Data(**category.about()),
        metrics=chosen.metrics,
        protocol=protocol(variant, job.key.transform, history),
        selection=selection(variant, chosen),
        epochs=list(epochs),
        loss=history.loss,
        parameters=job.cost.parameters,
        macs=job.cost.macs,
        images=listed(category, images),
        saturated=images.saturated,
        environment=environment(job.device, torch.get_num_threads(), history.grown),
        measured=measured,
    )


def listed(category: Category, images: PerImage) -> Images:
    """List what each test image got, for a record."""
    said = Images(
        path=category.names,
        sha256=category.contents,
        defect=[s.defect for s in category.test],
        score=[float(s) for s in images.scores],
    )
    if not images.defect_pixels.any():
        return said
    pixels = images.pixels.tolist()
    return msgspec.structs.replace(
        said,
        defect_pixels=images.defect_pixels.tolist(),
        pixels=pixels[0] if len(set(pixels)) == 1 else pixels,
        found=_numbers(images.found),
        clear=_numbers(images.clear),
    )


def _numbers(shares: NDArray[np.float64]) -> list[float | None]:
    """Seven digits are a tenth of a pixel in a million; None for what does not exist."""
    return [round(float(s), 7) if np.isfinite(s) else None for s in shares]


def protocol(variant: Variant, resize: str, history: History) -> Protocol:
    """Say how the variant's scores became metrics; ``resize``: how images were fitted."""
    photos = history.energies.photos
    return Protocol(
        aupro_fpr_limit=AUPRO_LIMIT,
        resize=resize,
        masks=variant.mask_resize,
        map_size=photos.frame if photos else variant.image_size,
    )


def selection(variant: Variant, chosen: Epoch) -> EpochSelection:
    """Say which epoch counts, by the variant's rule."""
    rule = variant.epoch_selection
    return EpochSelection(rule=rule, epoch=chosen.epoch, oracle=rule in ORACLES)

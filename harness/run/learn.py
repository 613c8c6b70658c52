"""A job's model, trained from its cached features; and trained again, to the same energies."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from harness.data.contract import Sample
from harness.data.frame import Boxes, boxes_of
from harness.data.synthetic import DEFECTIVE_COPIES
from harness.data.tiles import photos_of, windows_of
from harness.errors import RunFailed
from harness.experiment.record import Record
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache, Features
from harness.features.defective import DefectiveCopies, open_defective
from harness.methods.contract import Method
from harness.run.checkpoint import Checkpoint
from harness.run.history import History
from harness.run.model import make_model
from harness.run.train import train

if TYPE_CHECKING:
    from harness.run.job import Job


def learn(
    job: "Job",
    history: History,
    enough: Callable[[History], bool],
    progress: Callable[[int, float], object] = lambda epoch, loss: None,
    checkpoint: Checkpoint | None = None,
) -> Method:
    """Train the job's model from its cached features; see :func:`harness.run.train.train`."""
    features, defective = _features(job)
    spec = job.variant.feature_spec
    model = make_model(job.variant, job.shapes, job.seed)
    train(
        model,
        features.train,
        features.test,
        variant=job.variant,
        seed=job.seed,
        device=job.device,
        progress=progress,
        enough=enough,
        history=history,
        augmented=features.augmented,
        turned=features.turned,
        defective=defective,
        good_boxes=_boxes(job.variant, job.shown.train),
        test_boxes=_boxes(job.variant, job.shown.test),
        tiles=[len(windows_of(s, spec)) for s in job.category.train] if spec.tile_size else (),
        photos=photos_of(job.category.test, spec),
        checkpoint=checkpoint,
    )
    return model


def learn_again(job: "Job", history: History, epoch: int) -> Method:
    """Train the model once more, up to an epoch that was evaluated; its energies must be the same.

    Threads grow where they grew.

    Raises:
        RunFailed: they are not, bit for bit: another machine, device or number of threads.
    """
    again, grown = History(), {(e, batches): threads for e, batches, threads in history.grown}
    torch.set_num_threads(grown.get((1, 0), torch.get_num_threads()))
    growing = Checkpoint(granted=lambda now: grown.get((now.epoch, now.batches), 0))
    model = learn(job, again, lambda now: max(now.energies) >= epoch, checkpoint=growing)
    for one, other in zip(
        again.energies.chunks(epoch), history.energies.chunks(epoch), strict=True
    ):
        if not one.equal(other):
            raise RunFailed(
                f"{job.place.record}: expected its energies when it is trained again; got others, "
                "as on another machine, device or number of threads; remove the record and its "
                "energies, and run it with --keep"
            )
    return model


def same_scores(there: Record, now: Record) -> Record:
    """Give a record that is there, if its run now gives the same scores.

    Raises:
        RunFailed: it does not.
    """
    if there.images is None or now.images is None or there.images.score != now.images.score:
        raise RunFailed(
            f"expected the scores that are recorded of {there.category}, seed {there.seed}; got "
            "others; `harness rescore` computes recorded ones anew"
        )
    return there


def _features(job: "Job") -> tuple[Features, DefectiveCopies | None]:
    """What the run learns from and is scored on; copies where its validation asks for them."""
    cache, kind = FeatureCache(job.cache), job.variant.validation
    features = cache.open(job.key)
    defective = open_defective(cache, job.key, kind) if DEFECTIVE_COPIES[kind] else None
    if features is None or (DEFECTIVE_COPIES[kind] and defective is None):
        raise RunFailed(f"the features of {job.category.name} left the cache; start again")
    return features, defective


def _boxes(variant: Variant, samples: Sequence[Sample]) -> Boxes:
    return boxes_of(samples, variant.image_size, variant.resize)

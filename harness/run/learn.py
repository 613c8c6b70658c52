"""A job's model, trained from its cached features; and trained again, to the same energies."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
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
from harness.run.checkpoint import Checkpoint, Say
from harness.run.energies import SavedEnergies
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


def learn_again(
    job: "Job",
    history: History,
    epoch: int,
    done: Callable[[Method], object],
    say: Say = lambda text: None,
) -> None:
    """Train the model once more, up to an epoch that was evaluated; its energies must be the same.

    Threads grow where they grew. It has a checkpoint of its own, as any training.

    Args:
        job: whose model.
        history: of its training, as it was.
        epoch: which one.
        done: is given the model, and writes what is to be kept of it; the checkpoint goes then.
        say: is told of a checkpoint that cannot be taken up or written.

    Raises:
        RunFailed: they are not, bit for bit: another machine, device or number of threads.
    """
    grown = {(e, batches): threads for e, batches, threads in history.grown}
    threads = grown.setdefault((1, 0), torch.get_num_threads())
    checkpoint = Checkpoint(
        job.place.again,
        {**job.identity, "epoch": str(epoch), "threads": str(grown)},
        *(job.checkpoint_minutes, say, job.check_claim),
        granted=lambda now: grown.get((now.epoch, now.batches), 0),
    )

    def until(now: History) -> bool:
        return max(now.energies) >= epoch

    def work() -> None:
        torch.set_num_threads(checkpoint.threads or threads)
        with checkpoint.grow() as growing, closing(SavedEnergies(growing)) as energies:
            again = History(energies=energies)
            model = learn(job, again, until, checkpoint=checkpoint)
            if not all(_same_chunks(again, history, epoch)):
                checkpoint.hopeless = True
                raise RunFailed(
                    f"{job.place.record}: expected its energies when it is trained again; got "
                    "others, as on another machine, device or number of threads; remove the "
                    "record and its energies, and run it with --keep"
                )
            done(model)

    checkpoint.carry_on(work)


def _same_chunks(one: History, other: History, epoch: int) -> Iterator[bool]:
    """Of each chunk of an epoch, whether it is equal bit for bit."""
    chunks = zip(one.energies.chunks(epoch), other.energies.chunks(epoch), strict=True)
    return (ours.equal(theirs) for ours, theirs in chunks)


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

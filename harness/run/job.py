"""One run: a variant on a category with a seed, from cached features to a record."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

import harness
from harness.claims import Claim
from harness.data.contract import Category
from harness.data.tiles import tiled
from harness.experiment.measured import Measured
from harness.experiment.place import Place
from harness.experiment.store import read_sound, write_record
from harness.experiment.variant import Variant
from harness.features.key import FeatureKey
from harness.features.views import Shapes
from harness.files import sign_as
from harness.heartbeat import now
from harness.methods.contract import Method
from harness.run.checkpoint import MINUTES, Checkpoint, Say, code_digest, remove
from harness.run.evaluate import Labels, Masks, evaluate, patience, per_image, truth
from harness.run.gallery import save_gallery
from harness.run.history import History, load_energies, writing_energies
from harness.run.kept import kept_of, write_tensors
from harness.run.learn import learn, learn_again, same_scores
from harness.run.machine import device_name, runs_compiled
from harness.run.measure import Cost
from harness.run.process import be_deterministic, peak_memory, reset_peak_memory, set_arithmetic
from harness.run.recording import record_of
from harness.run.schedule import epochs_of
from harness.run.stop import check, deferred
from harness.score.select_epoch import select_epoch


@dataclass(frozen=True)
class Job:
    """Hold everything that a worker needs; plain values that pickle.

    Attributes:
        variant: what to run.
        seed: with which seed.
        category: on which images.
        cache: the folder of cached features.
        key: which entry of it.
        shapes: (C, H, W) of its features at the taps.
        weights: where the backbone's came from, and their SHA-256.
        cost: of the variant, counted and measured.
        results: the folder of records.
        device: where to run, as in torch.
        tf32: whether float32 is TF32 there.
        threads: of the processor.
        parallel: runs that go side by side, this one among them.
        memory: bytes that it takes at most, counted or measured.
        keep: whether the model's weights are kept beside the record.
        claim: of its training, held by the start that runs it; None: nobody else is about.
        checkpoint_minutes: between two checkpoints of its training; 0: only when it is stopped.
    """

    variant: Variant
    seed: int
    category: Category
    cache: Path
    key: FeatureKey
    shapes: Shapes
    weights: Mapping[str, str]
    cost: Cost
    results: Path
    device: str = "cpu"
    tf32: bool = False
    threads: int = 1
    parallel: int = 1
    memory: int = 0
    keep: bool = False
    claim: Claim | None = None
    checkpoint_minutes: float = MINUTES

    @property
    def place(self) -> Place:
        """Find where the run's files go."""
        return self._place(self.variant)

    @property
    def training_place(self) -> Place:
        """Find where the energies go: shared by all variants that differ in scoring alone."""
        return self._place(self.variant.training)

    @cached_property
    def shown(self) -> Category:
        """Give what the method sees: the photos, or their tiles."""
        return tiled(self.category, self.variant.feature_spec)

    @property
    def source(self) -> dict[str, str]:
        """Name the images, weights and arithmetic that its energies are of."""
        return {
            "data": self.key.data_digest,
            "weights": self.weights["sha256"],
            "arithmetic": self.key.arithmetic,
        }

    @property
    def epochs(self) -> int:
        """Count its training's epochs; early stopping may make them fewer."""
        return epochs_of(self.variant, len(self.shown.train))

    @property
    def epoch_work(self) -> int:
        """Count the multiply-accumulates of an epoch."""
        return self.cost.macs.training * len(self.shown.train)

    @property
    def training_work(self) -> int:
        """Count the multiply-accumulates of its training: by them the longest is told."""
        return self.cost.training_work(self.variant, len(self.shown.train))

    def is_recorded(self) -> bool:
        """Tell whether there is nothing left to do of it."""
        return self.place.is_recorded(kept=self.keep)

    def check_claim(self) -> None:
        """See that no other start took its training over, before anything of it is written.

        Raises:
            TakenOver: one did: this one stood still for so long that it was taken for dead.
        """
        if self.claim is not None:
            self.claim.check()

    def energies(self) -> History | None:
        """Open its training's energies; None where there are none that fit."""
        path, images = self.training_place.energies, len(self.shown.test)
        return load_energies(path, **self.source, images=images)

    def is_trained(self) -> bool:
        """Tell whether its training's energies are saved, so that only scoring is left."""
        return self.energies() is not None

    @property
    def identity(self) -> dict[str, str]:
        """Name all that decides what its training gives, to the last digit."""
        return {
            "code": f"{harness.__version__} {code_digest()}",
            "torch": str(torch.__version__),
            "images": self.key.data_digest,
            "features": self.key.digest,
            "weights": self.weights["sha256"],
            "arithmetic": f"{self.key.arithmetic}, tf32 {self.tf32}",
            "machine": f"{torch.device(self.device).type} {device_name(self.device)}",
            "compiled passes": str(runs_compiled(self.device)),
            "fields": self.variant.training.digest,
        }

    def _place(self, variant: Variant) -> Place:
        category = self.category
        return Place.of(self.results, variant, category.dataset, category.name, self.seed)


def run_job(
    job: Job,
    progress: Callable[[int, float], object] = lambda epoch, loss: None,
    say: Say = lambda text: None,
    granted: Callable[[], int] = lambda: 0,
) -> None:
    """Train (or take up an equal training's energies), score, and write the record.

    Args:
        job: what to run.
        progress: called after every epoch with its number and loss.
        say: is told of a checkpoint that cannot be taken up or written.
        granted: is asked between two batches how many threads there may be now; 0: as before.

    Raises:
        RunFailed: the run cannot give a record; the reason is one line.
    """
    start = time.perf_counter()
    _set_up(job)
    labels, masks = truth(job.variant, job.category)
    history, there = job.energies(), job.training_place.energies
    model = None
    before = 0.0
    if trained := history is None:
        if there.exists():
            say(f"{there}: expected energies of this run; they are made anew")
        rule = partial(patience, job.variant, labels, masks)
        history, model, before = _trained(job, rule, progress, say, granted)
    else:  # what a start left that was killed when they had just become whole
        job.check_claim()
        remove(job.training_place.checkpoint)
    seconds = before + time.perf_counter() - start if trained else None
    if model is None or not job.keep:
        check()
        _write(job, history, None, labels, masks, seconds, say)
        return
    with deferred():  # until its weights are written, for which it would be trained once more
        _write(job, history, model, labels, masks, seconds, say)


def _write(
    job: Job,
    history: History,
    model: Method | None,
    labels: Labels,
    masks: Masks,
    seconds: float | None,
    say: Say,
) -> None:
    """Score, and write the record; before it the model's weights, where they are kept."""
    start = time.perf_counter()
    epochs = evaluate(job.variant, history, labels, masks)
    chosen = select_epoch(epochs, job.variant.epoch_selection)
    images = per_image(job.variant, history, chosen.epoch, labels, masks)
    job.check_claim()
    save_gallery(job.place, job.variant, job.category, history, chosen.epoch, masks, images.scores)
    measured = Measured(
        fit_seconds=None if seconds is None else round(seconds, 3),
        score_seconds=round(time.perf_counter() - start, 3),
        peak_memory_bytes=peak_memory(job.device),
        bank_bytes=history.bank_bytes,
        finished=now(),
        speed=job.cost.speed,
    )
    record = record_of(job, history, epochs, chosen, images, measured)
    if not job.keep:
        write_record(job.place, record)
        return
    if recorded := read_sound(job.place, damaged=lambda error: None):  # its weights are wanted now
        record = same_scores(recorded, record)

    def keep(trained: Method) -> None:
        job.check_claim()
        write_tensors(job.place.weights, kept_of(record, job.shapes), trained.state_dict())
        write_record(job.place, record)

    if model is None or chosen.epoch != max(history.energies):
        learn_again(job, history, chosen.epoch, keep, say)
    else:
        keep(model)


def _set_up(job: Job) -> None:
    """Let this process compute and write as the job says."""
    if job.claim is not None:
        sign_as(job.claim.token)
    be_deterministic()
    set_arithmetic(tf32=job.tf32)
    torch.set_num_threads(job.threads)
    reset_peak_memory(job.device)


def _trained(
    job: Job,
    make_rule: Callable[[], Callable[[History], bool]],
    progress: Callable[[int, float], object],
    say: Say,
    granted: Callable[[], int],
) -> tuple[History, Method, float]:
    """Train, from where a checkpoint is; what it leaves, and the seconds before this start."""
    place = job.training_place
    checkpoint = Checkpoint(
        *(place.checkpoint, job.identity, job.checkpoint_minutes, say, job.check_claim),
        granted=lambda _: granted(),
    )

    def work() -> tuple[History, Method]:
        torch.set_num_threads(checkpoint.threads or job.threads)
        with writing_energies(place.energies, **job.source, writing=checkpoint.grow) as history:
            model = learn(job, history, make_rule(), progress, checkpoint)
        return history, model

    return *checkpoint.carry_on(work), checkpoint.before

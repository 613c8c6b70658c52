"""New metrics and new scoring rules for what is trained already, from saved energies."""

import time
from collections.abc import Callable
from dataclasses import asdict

import msgspec
import torch

import harness
from harness.claims import RESULTS, Claims
from harness.data.contract import Category
from harness.data.tiles import tiled
from harness.errors import RunFailed, warn
from harness.experiment.measured import Measured, Speed
from harness.experiment.place import Place
from harness.experiment.record import SCHEMA, Data, Record, Rescored
from harness.experiment.settings import Settings
from harness.experiment.store import read_records, read_sound, write_record
from harness.experiment.study import Cell
from harness.heartbeat import now
from harness.progress import progress
from harness.run.evaluate import evaluate, per_image, truth
from harness.run.gallery import save_gallery
from harness.run.history import History, load_energies
from harness.run.machine import environment, git_commit
from harness.run.outcome import Outcome
from harness.run.plan import Plan
from harness.run.recording import listed, protocol, selection
from harness.score.select_epoch import select_epoch

Trained = dict[tuple[str, str, str, int], Record]  # training digest, data set, category, seed


def rescore_study(plan: Plan, settings: Settings, say: Callable[[str], object] = print) -> Outcome:
    """Compute the metrics of every run whose training's energies are saved; nothing is trained.

    A run that is recorded gets its metrics anew, and keeps what was measured of it. A scoring
    variant that is not recorded gets a record, if an equal training is.

    Args:
        plan: the study's cells.
        settings: where the records are.
        say: is given a line at the end.

    Returns:
        The outcome: ``recorded`` runs that were scored; ``failed`` those whose rule does not
        apply to their images, and those recorded whose energies are gone or of other images.
    """
    trained = _trainings(plan)
    outcome = Outcome()
    untrained = 0
    bar_of = progress("scoring", len(plan.cells), unit="runs")
    with Claims(plan.results, RESULTS), bar_of as bar:
        for cell in plan.cells:
            name = f"{cell.category}, {plan.study.named[cell.variant]}, seed {cell.seed}"
            bar.note(name)
            try:
                done = _rescore(cell, plan, trained)
                outcome.recorded += done
                untrained += not done
            except RunFailed as error:
                outcome.failed.append((name, str(error)))
            bar.advance(1)
    said = f"; {untrained} are not trained yet: `harness run` trains them" if untrained else ""
    say(f"{plan.study.name}: {outcome.recorded} of {len(plan.cells)} runs scored anew{said}")
    return outcome


def _trainings(plan: Plan) -> Trained:
    """One record of every training; damaged files are named, and not among them."""
    return {
        (r.training_digest, r.dataset, r.category, r.seed): r
        for r in read_records(plan.results, damaged=warn)
    }


def _rescore(cell: Cell, plan: Plan, trained: Trained) -> bool:
    """Score a cell from its training's energies; false where it is not trained yet.

    Raises:
        RunFailed: it is recorded, so that no start trains it again, but its energies are not
            there or of other images.
    """
    variant, category = cell.variant, plan.categories[cell.category]
    training = variant.training
    sibling = trained.get((training.digest, plan.dataset, cell.category, cell.seed))
    if sibling is None:
        return False
    energies = Place.of(plan.results, training, plan.dataset, cell.category, cell.seed).energies
    history = load_energies(
        energies,
        data=category.digest,
        weights=sibling.weights.sha256,
        arithmetic=sibling.environment.arithmetic,
        images=len(tiled(category, variant.feature_spec).test),
    )
    place = plan.place(cell)
    own = read_sound(place, damaged=lambda error: None)  # which the plan has said
    if history is None and own is None:
        return False
    if history is None:
        again = "" if cell in plan.grown else f"remove {place.record} and "
        raise RunFailed(
            f"expected its energies, of these images, in {energies}; {again}`harness run` trains "
            "it again"
        )
    _record(cell, place, own or _as_if_run(cell, sibling, history), category, history)
    return True


def _record(
    cell: Cell, place: Place, before: Record, category: Category, history: History
) -> None:
    start = time.perf_counter()
    variant = cell.variant
    labels, masks = truth(variant, category)
    epochs = evaluate(variant, history, labels, masks)
    chosen = select_epoch(epochs, variant.epoch_selection)
    images = per_image(variant, history, chosen.epoch, labels, masks)
    record = msgspec.structs.replace(
        before,
        schema=SCHEMA,
        data=Data(**category.about()),
        metrics=chosen.metrics,
        protocol=protocol(variant, before.protocol.resize, history),
        selection=selection(variant, chosen),
        epochs=epochs,
        images=listed(category, images),
        saturated=images.saturated,
        measured=msgspec.structs.replace(
            before.measured, score_seconds=round(time.perf_counter() - start, 3)
        ),
        rescored=Rescored(harness=harness.__version__, commit=git_commit(), finished=now()),
    )
    save_gallery(place, variant, category, history, chosen.epoch, masks, images.scores)
    write_record(place, record)


def _as_if_run(cell: Cell, sibling: Record, history: History) -> Record:
    """The record of a variant that shares its training with a recorded one, but for the scores.

    It has no speed: scoring may differ, and nothing is passed from image to map here.
    """
    measured = Measured(
        fit_seconds=None,
        score_seconds=0.0,
        peak_memory_bytes=None,
        bank_bytes=history.bank_bytes,
        finished=now(),
        speed=Speed(),
    )
    return msgspec.structs.replace(
        sibling,
        digest=cell.variant.digest,
        variant=asdict(cell.variant),
        environment=msgspec.structs.replace(
            environment("cpu", torch.get_num_threads()),
            arithmetic=sibling.environment.arithmetic,  # of the energies, which are the sibling's
            grown=sibling.environment.grown,
        ),
        measured=measured,
    )

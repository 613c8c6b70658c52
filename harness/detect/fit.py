"""From a folder of photos to a detector, in one call, for notebooks."""

from dataclasses import replace
from pathlib import Path

from harness.detect.detector import Detector
from harness.detect.make import make_detector
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Folders, Settings
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.run.plan import make_plan
from harness.run.sweep import run_study
from harness.studies import STUDIES


def fit(
    folder: Path | str,
    *,
    variant: Variant | None = None,
    results: Path | str = "results",
    weights: Path | str | None = None,
    category: str = "",
    seed: int = 0,
    folders: Folders = Folders(),  # noqa: B008 -- frozen
    device: str = "auto",
) -> Detector:
    """Learn from a folder's good photos and give the detector, with thresholds.

    The run is recorded in ``results``; the same call with the same photos takes it up.

    Args:
        folder: of photos, as ``--data`` (docs/data.md says how it is read).
        variant: what to train; None: the base of the embedded study.
        results: where the record, the features and the weights go.
        weights: a folder of backbones' weights.
        category: which one, where the folder holds several.
        seed: of the training.
        folders: which of its folders hold what, where their names do not say it.
        device: as in torch.

    Raises:
        InputError: the photos cannot be used, or there are several categories.
        RunFailed: the training ended without a model.

    >>> fit("nowhere")
    Traceback (most recent call last):
    harness.errors.InputError: --data: expected a folder; got nowhere, which does not exist
    """
    base = variant or STUDIES["surfaces"].variants[0]
    study = Study(
        name="fit", asks="Which of these photos are not good?", bases={"base": base},
        seeds=(seed,), dataset="surfaces",
    )  # fmt: skip
    settings = Settings(
        results=Path(results), data=Path(folder), folders=folders, device=device, keep=True,
        weights=None if weights is None else Path(weights), speed=False,
        categories=(category,) if category else (),
    )  # fmt: skip
    plan = make_plan(study, settings)
    if len(plan.cells) != 1:
        raise InputError(f"category: expected one of {', '.join(plan.sizes)}; got none")
    outcome = run_study(plan, replace(settings, jobs=1), lambda text: None)
    for name, reason in outcome.failed:
        raise RunFailed(f"{name}: {reason}")
    return make_detector(plan, settings)

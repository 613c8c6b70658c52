"""One run: a variant on a category with a seed, from cached features to a record."""

import io
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.contract import Category, read_image, read_mask
from harness.errors import RunFailed
from harness.experiment.record import SCHEMA, Place, finite, write_record
from harness.experiment.variant import Variant
from harness.features.cache import FeatureCache, FeatureKey
from harness.files import write_whole
from harness.methods.contract import Scores
from harness.run.machine import environment
from harness.run.model import make_model
from harness.run.process import be_deterministic, peak_memory, reset_peak_memory
from harness.run.train import History, fit
from harness.score.maps import anomaly_maps, image_scores
from harness.score.metrics import image_metrics, pixel_metrics

AUPRO_LIMIT = 0.3  # false-positive rate up to which AUPRO integrates (MVTec AD's convention)
ORACLES = ("best-on-test", "best-pixel-on-test")  # epochs chosen with the test's labels
GALLERY = 6  # images a run keeps for the report


@dataclass(frozen=True)
class Job:
    """Everything a worker needs; plain values that pickle."""

    variant: Variant
    seed: int
    category: Category
    cache: Path
    key: FeatureKey
    shapes: tuple[tuple[int, int, int], ...]
    weights: Mapping[str, str]  # source and SHA-256
    cost: Mapping[str, Any]  # parameters, macs, speed
    results: Path
    device: str = "cpu"
    threads: int = 1

    @property
    def place(self) -> Place:
        """Where the run's files go."""
        return self._place(self.variant)

    @property
    def training_place(self) -> Place:
        """Where the energies go: shared by all variants that differ in scoring alone."""
        return self._place(self.variant.training)

    def _place(self, variant: Variant) -> Place:
        category = self.category
        return Place.of(self.results, variant, category.dataset, category.name, self.seed)


def run(job: Job, progress: Callable[[int, float], object] = lambda epoch, loss: None) -> None:
    """Train (or take up an equal training's energies), score, and write the record.

    Args:
        job: what to run.
        progress: called after every epoch with its number and loss.

    Raises:
        RunFailed: the run cannot give a record; the reason is one line.
    """
    start = time.perf_counter()
    be_deterministic()
    torch.set_num_threads(job.threads)
    reset_peak_memory(job.device)
    features = FeatureCache(job.cache).open(job.key)
    if features is None:
        raise RunFailed(f"the features of {job.category.name} left the cache; start again")
    labels, masks = truth(job.variant, job.category)
    history = _load_scores(job)
    if trained := history is None:
        history = fit(
            make_model(job.variant, job.shapes, job.seed), features.train, features.test,
            variant=job.variant, seed=job.seed, device=job.device, progress=progress,
            enough=_patience(job.variant, labels, masks),
        )  # fmt: skip
        _save_scores(job, history)
    fitted = time.perf_counter()
    evaluated = [_evaluate(job.variant, history, e, labels, masks) for e in sorted(history.scores)]
    chosen = select_epoch(evaluated, job.variant.epoch_selection)
    _save_gallery(job, masks, *score(job.variant, history.scores[chosen["epoch"]]))
    measured = {
        "fit_seconds": round(fitted - start, 3) if trained else None,
        "score_seconds": round(time.perf_counter() - fitted, 3),
        "peak_memory_bytes": peak_memory(job.device),
        "bank_bytes": history.bank_bytes,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "speed": job.cost["speed"],
    }
    write_record(job.place, _record(job, history, evaluated, chosen, measured))


def score(variant: Variant, scores: Scores) -> tuple[Tensor | None, Tensor]:
    """Anomaly maps (N, S, S), and image scores (N,) by the variant's score rule.

    There are no maps from a method that does not localise.
    """
    own = scores.images if variant.image_score == "own" else None
    if not scores.taps:
        assert own is not None, "a method without maps has image scores of its own"
        return None, own
    maps = anomaly_maps(
        scores.taps,
        size=variant.image_size,
        score_map=variant.score_map,
        scale_aggregation=variant.scale_aggregation,
        smoothing=variant.smoothing,
        align_corners=variant.align_corners,
    )
    if own is not None:
        return maps, own
    return maps, image_scores(maps, image_score=variant.image_score, top_k=variant.top_k)


def truth(
    variant: Variant, category: Category
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Labels (N,) and masks (N, S, S) of the test images; None without masks.

    Read here and not cached: the rule that resizes a mask is a scoring choice.
    """
    labels = np.array([s.label for s in category.test], dtype=np.int64)
    if not category.has_masks:
        return labels, None
    size = variant.image_size
    masks = np.zeros((len(labels), size, size), dtype=bool)
    for i, sample in enumerate(category.test):
        masks[i] = read_mask(sample, size, variant.resize, variant.mask_resize)
    return labels, masks


def select_epoch(evaluated: Sequence[Mapping[str, Any]], rule: str) -> Mapping[str, Any]:
    """The evaluated epoch that a rule chooses.

    ``last``; ``label-free``: the lowest loss of held-out good images; ``best-on-test``: the
    highest mean of image and pixel AUROC (lelexx's rule); ``best-pixel-on-test``: the highest
    pixel AUROC (gathierry's and anomalib's). The last two are oracles.

    Raises:
        RunFailed: the rule looks at an AUROC that does not exist.
    """
    if rule == "best-pixel-on-test":
        if any("pixel_auroc" not in e["metrics"] for e in evaluated):
            raise RunFailed(f"epoch_selection: {rule} needs masks; this category has none")
        return max(evaluated, key=lambda e: e["metrics"]["pixel_auroc"])
    if rule == "label-free":
        return min(evaluated, key=lambda e: e["holdout"])
    if rule == "best-on-test":
        if any("image_auroc" not in e["metrics"] for e in evaluated):
            raise RunFailed(f"epoch_selection: {rule} needs good and defective test images")
        return max(
            evaluated,
            key=lambda e: e["metrics"].get("image_auroc", 0) + e["metrics"].get("pixel_auroc", 0),
        )
    return evaluated[-1]


def _patience(
    variant: Variant, labels: NDArray[np.int64], masks: NDArray[np.bool_] | None
) -> Callable[[History], bool]:
    """Early stopping: true once the chosen epoch lies ``patience`` evaluations back."""
    evaluated: list[dict[str, Any]] = []

    def enough(history: History) -> bool:
        evaluated.append(_evaluate(variant, history, max(history.scores), labels, masks))
        chosen = select_epoch(evaluated, variant.epoch_selection)
        waited = (evaluated[-1]["epoch"] - chosen["epoch"]) // variant.eval_every
        return bool(waited >= variant.patience)

    return enough if variant.patience else lambda history: False


def _evaluate(
    variant: Variant,
    history: History,
    epoch: int,
    labels: NDArray[np.int64],
    masks: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    maps, scores = score(variant, history.scores[epoch])
    metrics = image_metrics(scores.numpy(), labels)
    if masks is not None and maps is not None:
        metrics |= pixel_metrics(maps.numpy(), masks, fpr_limit=AUPRO_LIMIT)
    entry: dict[str, Any] = {"epoch": epoch}
    if history.loss:
        entry["loss"] = history.loss[epoch - 1]
    entry["metrics"] = finite(metrics)
    if epoch in history.holdout:
        entry["holdout"] = history.holdout[epoch]
    return entry


def _record(
    job: Job,
    history: History,
    evaluated: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    variant, category = job.variant, job.category
    return {
        "schema": SCHEMA,
        "digest": variant.digest,
        "training_digest": variant.training.digest,
        "variant": asdict(variant),
        "dataset": category.dataset,
        "category": category.name,
        "seed": job.seed,
        "smoke": variant.smoke,
        "random_weights": variant.weights == "random",
        "weights": {"backbone": variant.backbone, **job.weights},
        "data": category.about(),
        "metrics": chosen["metrics"],
        "protocol": {
            "aupro_fpr_limit": AUPRO_LIMIT,
            "resize": job.key.transform,
            "masks": variant.mask_resize,
            "map_size": variant.image_size,
        },
        "selection": {
            "rule": variant.epoch_selection,
            "epoch": chosen["epoch"],
            "oracle": variant.epoch_selection in ORACLES,
        },
        "epochs": list(evaluated),
        "loss": history.loss,
        "parameters": job.cost["parameters"],
        "macs": job.cost["macs"],
        "environment": environment(job.device, job.threads),
        "measured": measured,
    }


def _save_scores(job: Job, history: History) -> None:
    arrays = {
        f"{epoch}/{name}-{i}": tensor.numpy()
        for epoch, scores in history.scores.items()
        for i, tap in enumerate(scores.taps)
        for name, tensor in zip(("energy", "log_det"), tap, strict=True)
    }
    arrays |= {
        f"{epoch}/images": scores.images.numpy()
        for epoch, scores in history.scores.items()
        if scores.images is not None
    }
    about = {
        "data": job.key.data_digest,
        "weights": job.weights["sha256"],
        "loss": history.loss,
        "holdout": history.holdout,
        "bank_bytes": history.bank_bytes,
    }
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    write_whole(job.training_place.raw, buffer.getvalue())


def _load_scores(job: Job) -> History | None:
    """An equal training's result, if it was on the same data and weights."""
    path = job.training_place.raw
    if not path.is_file():
        return None
    try:
        return _read_scores(path, job)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None  # damaged: trained again, and written anew


def _read_scores(path: Path, job: Job) -> History | None:
    with np.load(io.BytesIO(path.read_bytes())) as file:
        about = json.loads(str(file["about"]))
        if (about["data"], about["weights"]) != (job.key.data_digest, job.weights["sha256"]):
            return None
        epochs = sorted({int(k.split("/")[0]) for k in file.files if "/" in k})
        scores = {e: _scores_in(file, e) for e in epochs}
    holdout = {int(k): v for k, v in about["holdout"].items()}
    return History(about["loss"], holdout, scores, about.get("bank_bytes", 0))


def _scores_in(file: Mapping[str, NDArray[np.floating]], epoch: int) -> Scores:
    has = {k.partition("/")[2]: k for k in file if k.startswith(f"{epoch}/")}
    read = {name: torch.from_numpy(file[key]) for name, key in has.items()}
    taps = sum(name.startswith("energy-") for name in has)
    return Scores(
        [(read[f"energy-{i}"], read[f"log_det-{i}"]) for i in range(taps)], read.get("images")
    )


def _save_gallery(
    job: Job, masks: NDArray[np.bool_] | None, maps: Tensor | None, scores: Tensor
) -> None:
    """The first image of every kind of defect and the good image with the highest score.

    Nothing where the method gives no maps.
    """
    if maps is None:
        return
    test = job.category.test
    kinds = dict.fromkeys(s.defect for s in test if s.label)
    rows = [next(i for i, s in enumerate(test) if s.defect == kind) for kind in kinds]
    good = [i for i, s in enumerate(test) if not s.label]
    rows = rows[: GALLERY - 1] + sorted(good, key=lambda i: -scores[i].item())[:1]
    size = job.variant.image_size
    none = np.zeros((len(rows), size, size), dtype=bool)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=np.stack([read_image(test[i], size, job.variant.resize) for i in rows]),
        masks=none if masks is None else masks[rows],
        maps=maps[rows].numpy().astype(np.float32),
        scores=scores[rows].numpy(),
        defects=np.array([test[i].defect for i in rows]),
        has_masks=np.array(job.category.has_masks),
    )
    write_whole(job.place.gallery, buffer.getvalue())

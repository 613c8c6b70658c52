"""(d) Metrics of a whole category from its maps: exact on every side, timed together and each."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Options, Part, Row, columns, has_peer, ratio, spread
from benchmarks.turns import clocked, take_turns
from harness.score.metrics import image_metrics, pixel_metrics

SIZES = {"screw-like": (117, 256), "bottle-like": (83, 900)}  # images, side
QUICK = {"small": (12, 64)}
TOLERANCE = {"scikit-learn": 1e-9, "anomalib": 1e-4}  # torchmetrics sums float32 rates
ASKED = "117 × 256²"
Category = tuple[NDArray[np.float32], NDArray[np.bool_]]
Metrics = dict[str, float]


def measure(options: Options) -> Part:
    """Each side on each category in turns; every value beside ours."""
    part = Part(
        protocol=[
            "Synthetic smooth maps in [0, 1] (float32) that overlap between good and defective "
            "pixels; seven images of ten defective, with one to three elliptic regions each.",
            "Image score: the map's maximum. All sides: image and pixel AUROC, AP and F1-max; "
            "AUPRO up to 30 % false positives (scikit-learn has none). Ours: also up to 5 %, "
            "and AUPIMO.",
            "anomalib's metrics are torchmetrics' on raw scores, fed 32 images at a time.",
        ]
    )
    times: list[Row] = []
    values: list[Row] = []
    singles: list[Row] = []
    for images, size in (QUICK if options.quick else SIZES).values():
        category = make_category(images, size)
        label = f"{images} × {size}²"
        found: dict[str, Metrics] = {}
        each: dict[str, dict[str, list[float]]] = {}
        calls = {s: clocked(_kept(found, each, s, f, category)) for s, f in sides().items()}
        rounds = options.turns(3 if size < 512 else 1)
        seconds = take_turns(calls, rounds=rounds, warmup=1 if size < 512 else 0)
        for side, s in seconds.items():
            about = {"category": label, "side": side}
            times.append(about | columns(s, "s"))
            values.append(about | found[side])
            singles += [
                {**about, "metric": metric, "median s": spread(t)["median"]}
                for metric, t in each[side].items()
            ]
        _claims(part, label, seconds, found)
    part.tables = {"Metrics, together": times, "Metrics, values": values, "Metrics, each": singles}
    return part


def alone(options: Options) -> None:
    """One side on the category whose time was asked for: for its peak memory."""
    images, size = QUICK["small"] if options.quick else SIZES["screw-like"]
    clock: dict[str, list[float]] = {}
    sides()[options.extra["side"]](make_category(images, size), clock)


def sides() -> dict[str, Callable[[Category, dict[str, list[float]]], Metrics]]:
    """Name → metrics of maps and masks; each also notes the seconds of its steps."""
    return {"ours": _ours, "scikit-learn": _sklearn} | ({"anomalib": _peer} if has_peer() else {})


def make_category(images: int, size: int, *, seed: int = 0) -> Category:
    """Smooth maps (N, S, S) in [0, 1], float32, and masks (N, S, S)."""
    rng = np.random.default_rng(seed)
    maps = np.empty((images, size, size), np.float32)
    masks = np.zeros((images, size, size), bool)
    row, column = np.mgrid[:size, :size].astype(np.float32) / size
    for i in range(images):
        maps[i] = _smooth(rng, size)
        for _ in range(int(rng.integers(1, 4)) if i % 10 < 7 else 0):
            y, x = rng.uniform(0.15, 0.85, 2)
            a, b = rng.uniform(0.01, 0.08, 2)
            distance = ((row - y) / a) ** 2 + ((column - x) / b) ** 2
            masks[i] |= distance < 1
            maps[i] += rng.uniform(0.1, 0.5) * np.exp(-0.3 * distance)
    maps -= maps.min()
    maps /= maps.max()
    return maps, masks


def _smooth(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Noise on a coarse grid, interpolated: what an upsampled feature map looks like."""
    from scipy import ndimage

    coarse = rng.normal(0, 0.08, (16, 16)).astype(np.float32)
    zoomed = ndimage.zoom(coarse, size / 16, order=1, mode="nearest", grid_mode=True)
    return np.asarray(zoomed, np.float32)


def _kept(
    found: dict[str, Metrics],
    each: dict[str, dict[str, list[float]]],
    name: str,
    side: Callable[[Category, dict[str, list[float]]], Metrics],
    category: Category,
) -> Callable[[], object]:
    def call() -> None:
        found[name] = side(category, each.setdefault(name, {}))

    return call


def _timed(clock: dict[str, list[float]], name: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    value = call()
    clock.setdefault(name, []).append(time.perf_counter() - start)
    return value


def _labels(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    return masks.any((1, 2)).astype(np.int64)


def _ours(category: Category, clock: dict[str, list[float]]) -> Metrics:
    maps, masks = category
    scores = maps.max((1, 2))
    image = _timed(clock, "image AUROC, AP, F1-max", lambda: image_metrics(scores, _labels(masks)))
    pixel = _timed(
        clock, "pixel AUROC, AP, F1-max, AUPROs, AUPIMO", lambda: pixel_metrics(maps, masks)
    )
    return image | pixel


def _sklearn(category: Category, clock: dict[str, list[float]]) -> Metrics:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    def f1max(truth: Any, scores: Any) -> float:
        precision, recall, _ = precision_recall_curve(truth, scores)
        total = np.maximum(precision + recall, 1e-12)
        return float((2 * precision * recall / total).max())

    kinds = {"auroc": roc_auc_score, "ap": average_precision_score, "f1max": f1max}
    maps, masks = category
    levels = {"image": (_labels(masks), maps.max((1, 2))), "pixel": (masks.ravel(), maps.ravel())}
    return {
        f"{level}_{name}": float(_timed(clock, f"{level} {name}", lambda k=kind, g=given: k(*g)))
        for level, given in levels.items()
        for name, kind in kinds.items()
    }


def _peer(category: Category, clock: dict[str, list[float]]) -> Metrics:
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max

    maps, masks = (torch.from_numpy(a) for a in category)
    image = maps.amax((1, 2)), torch.from_numpy(_labels(category[1]))

    def value(kind: Any, given: Any) -> float:
        metric = kind()
        for scores, truth in zip(given[0].split(32), given[1].split(32), strict=True):
            metric.update(scores, truth.int())
        return float(metric.compute())

    kinds = {"auroc": _AUROC, "ap": _AUPR, "f1max": _F1Max}
    found = {
        f"{level}_{name}": _timed(clock, f"{level} {name}", lambda k=kind, g=given: value(k, g))
        for level, given in (("image", image), ("pixel", (maps, masks)))
        for name, kind in kinds.items()
    }
    return found | {"aupro": _timed(clock, "aupro", lambda: value(_AUPRO, (maps, masks)))}


def _claims(
    part: Part, label: str, seconds: dict[str, list[float]], found: dict[str, Metrics]
) -> None:
    for side, tolerance in TOLERANCE.items():
        if side in found:
            worst = max(abs(found["ours"][k] - v) for k, v in found[side].items())
            got = {"value": float(f"{worst:.2g}")}
            text = f"Metrics, {label}, largest difference from {side}"
            part.claim(text, got, tolerance, sense="at most", unit="")
    if label == ASKED:
        s = spread(seconds["ours"])
        got = {"value": s["median"], "low": s["min"], "high": s["max"]}
        part.claim(f"Metrics, {label}, all nine, ours", got, 1.5, sense="at most", unit=" s")
    if "anomalib" in seconds:
        got = ratio(seconds["anomalib"], seconds["ours"])
        part.claim(f"Metrics, {label}, against anomalib", got, 5)

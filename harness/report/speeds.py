"""Which measured speeds can be shown: those of one session, in which the machine was steady."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import nan
from typing import Any

import pandas as pd

from harness.experiment.measured import Speed
from harness.experiment.record import Record
from harness.report.selection import Selection

FIGURES = ("fps", "latency_ms", "latency_ms_min", "latency_ms_max")
FEWEST = 3  # rounds
SPREAD = 2.0  # largest time over smallest, of one network's rounds
EQUAL = 1.5  # and of the medians of equal networks
IN_BATCHES = 0.5  # least FPS of a batch, as a share of what the latency of one image allows


def speeds(selection: Selection) -> pd.DataFrame:
    """Tabulate every variant's speed, and why it is left out where it is.

    Returns:
        A row a variant, by digest: ``fps``, ``latency_ms``, ``latency_ms_min``,
        ``latency_ms_max``, ``rounds``, ``session``, ``why``. ``why`` is empty where the figures
        were steady and measured in the session of most variants; only those compare.
    """
    timed: dict[str, Record] = {}
    for r in selection.records:  # of several runs the one that was measured last
        speed = r.measured.speed
        latest = timed.get(r.digest)
        if speed.fps is not None and (
            latest is None or speed.session >= latest.measured.speed.session
        ):
            timed[r.digest] = r
    sessions = Counter(r.measured.speed.session for r in timed.values())
    main = max(sessions, key=lambda s: (sessions[s], s), default="")
    doubts = dict(_of_equal_networks(list(timed.values())))
    rows: dict[str, tuple[Any, ...]] = {}
    for digest in selection.labels:
        if (record := timed.get(digest)) is None:
            rows[digest] = (nan, nan, nan, nan, 0, "", "not measured")
            continue
        speed = record.measured.speed
        why = unsteady(speed) or doubts.get(digest, "")
        if not why and speed.session != main:
            why = "measured in another session"
        figures = [getattr(speed, name) or nan for name in FIGURES]
        rows[digest] = (*figures, speed.rounds or 0, speed.session, why)
    columns = [*FIGURES, "rounds", "session", "why"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def unsteady(speed: Speed) -> str:
    """Say why one network's figures are not steady; empty where they are.

    >>> unsteady(Speed(fps=1.4, latency_ms=48.8, rounds=5))
    'not steady: 1.4 FPS in batches beside 48.8 ms for one image'
    """
    if (speed.rounds or 0) < FEWEST:
        return f"not steady: {speed.rounds or 0} rounds, at least {FEWEST} are needed"
    for name, low, high in (
        ("latency", speed.latency_ms_min, speed.latency_ms_max),
        ("FPS", speed.fps_min, speed.fps_max),
    ):
        if low and high and high > SPREAD * low:
            return f"not steady: {name} from {low:.3g} to {high:.3g}"
    if speed.fps and speed.latency_ms and speed.fps * speed.latency_ms / 1e3 < IN_BATCHES:
        return (
            f"not steady: {speed.fps:.3g} FPS in batches beside {speed.latency_ms:.3g} ms for one "
            "image"
        )
    return ""


def _of_equal_networks(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Digests of equal networks that were not equally fast in one session, and in what.

    Equal: the same backbone, input, parameters and multiply-accumulates.
    """
    alike: dict[tuple[object, ...], list[Record]] = {}
    for r in records:
        size, taps = str(r.variant["image_size"]), tuple(r.variant["taps"])
        network = (r.weights.backbone, size, taps, r.variant["method"], r.variant["precision"])
        counts = (r.parameters.additional, r.macs.flow, r.macs.backbone)
        alike.setdefault((r.measured.speed.session, *network, *counts), []).append(r)
    for group in alike.values():
        times = [r.measured.speed.latency_ms for r in group]
        known = [t for t in times if t is not None]
        if known and max(known) > EQUAL * min(known):
            said = f"not steady: equal networks took {min(known):.3g} and {max(known):.3g} ms"
            yield from ((r.digest, said) for r in group)

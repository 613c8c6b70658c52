"""What claims, signs of life and checkpoints take of a study's time: by their calls, and in pairs.

The calls are timed one by one, which no noise hides. A pair is a run with them beside one without;
two runs differ by more than that on a machine that others use too, so there are many pairs.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import local
from typing import Any

from benchmarks.common import Child, Options, Part, Row, columns, in_child
from benchmarks.starts import Here
from benchmarks.turns import take_turns

OFTEN = 0.05  # minutes
SIDES = {"a checkpoint every 5 minutes, as usual": 5.0, "a checkpoint every 3 s": OFTEN}
TIMED = {
    "claims": ("__enter__", "__exit__", "take", "release", "clean", "taken", "alone", "users"),
    "claim": ("is_held", "check"),
    "signs of life": ("begin", "end", "beat", "is_dead"),
    "checkpoints": ("take_up", "look", "_write"),
}
AROUND = {"claims": ("using",), "checkpoints": ("grow", "keeping", "around")}  # with ...:
MOST = 2.0  # percent
PAIRS = 24


def measure(options: Options) -> Part:
    """Each side once and the pairs, each in a process of its own."""
    done: dict[str, Child] = {
        name: in_child(options, "safety", "side", minutes=minutes)
        for name, minutes in SIDES.items()
    }
    rows: list[Row] = [{"side": name, **child.result} for name, child in done.items()]
    part = Part(
        protocol=[
            "The embedded study's reference on its three categories, one run after another in one "
            "process. Timed, in whatever thread: claims made, looked at and given back, marks of "
            "use, signs of life, checkpoints looked at and written, and the forced writing of "
            "energies to the disk. Shares are of the whole run's time, features included.",
            "In pairs: the reference on one category, features made before; with and without "
            "take turns in one process. Without: claims that write nothing, and no checkpoint. "
            "The median of the pairs' ratios, with its 95 % interval (sign test). Where the "
            "interval reaches above what was asked, the pairs alone do not show it.",
        ],
        tables={"Claims and checkpoints": rows},
    )
    for row in rows:
        got = {"value": row["all, %"]}
        part.claim(f"Claims and {row['side']}", got, MOST, sense="at most", unit=" %")
    _add_pairs(part, in_child(options, "safety", "pairs").result)
    return part


def _add_pairs(part: Part, seconds: dict[str, list[float]]) -> None:
    from scipy.stats import quantile_test

    with_, without = seconds.values()
    more = [100 * (a / b - 1) for a, b in zip(with_, without, strict=True)]
    low, high = quantile_test(more).confidence_interval()
    part.tables["With and without, in pairs"] = [
        {"side": name, **columns(of, "s")} for name, of in seconds.items()
    ]
    got = {"value": round(median(more), 2), "low": round(low, 2), "high": round(high, 2)}
    part.claim("Claims and checkpoints, in pairs", got, MOST, sense="at most", unit=" %")


def side(options: Options) -> Row:
    """The share of each, in %, of a run of the reference."""
    from harness.claims import Claim, Claims
    from harness.heartbeat import Heartbeats
    from harness.run.checkpoint import Checkpoint

    took: Counter[str] = Counter()
    owners = dict(zip(TIMED, (Claims, Claim, Heartbeats, Checkpoint), strict=True))
    for what, names in TIMED.items():
        for name in names:
            setattr(owners[what], name, _timed(getattr(owners[what], name), what, took))
    for what, names in AROUND.items():
        for name in names:
            setattr(owners[what], name, _timed_ends(getattr(owners[what], name), what, took))
    with TemporaryDirectory(dir=options.work) as folder:
        runs, whole = _run(options, Path(folder), options.extra["minutes"])
    shares = {f"{what}, %": round(100 * took[what] / whole, 3) for what in TIMED}
    return {"runs": runs, "s": round(whole, 1), **shares,
            "all, %": round(100 * sum(took.values()) / whole, 3)}  # fmt: skip


def pairs(options: Options) -> dict[str, list[float]]:
    """Seconds of a run with claims and checkpoints, and without, in turns."""
    from harness.claims import Claims
    from harness.data.embedded.surfaces import CATEGORIES
    from harness.features import cache
    from harness.run import sweep

    with TemporaryDirectory(dir=options.work) as folder:

        def turn(kind: type, minutes: float) -> float:
            cache.Claims = sweep.Claims = kind  # type: ignore[misc,attr-defined]
            shutil.rmtree(Path(folder, "runs"), ignore_errors=True)
            runs, seconds = _run(options, Path(folder), minutes, CATEGORIES[:1])
            assert runs == 1, "the records of the turn before are gone"
            return seconds

        sides = {"with": lambda: turn(Claims, 5.0), "without": lambda: turn(_unwritten(), 0.0)}
        return take_turns(sides, rounds=options.turns(PAIRS))


def _run(
    options: Options, folder: Path, minutes: float, categories: tuple[str, ...] = ()
) -> tuple[int, float]:
    """Run the embedded study's reference; how many runs were recorded, and the seconds."""
    from harness.experiment.settings import Settings
    from harness.run.plan import make_plan
    from harness.run.sweep import run_study
    from harness.studies import get_study

    study = get_study("surfaces", variants=["base"], seeds=[0], smoke=options.quick)
    settings = Settings(
        results=folder, data=None, device="cpu", jobs=1, speed=False, checkpoint_minutes=minutes,
        categories=categories,
    )  # fmt: skip
    plan = make_plan(study, settings)
    began = time.perf_counter()
    outcome = run_study(plan, settings, lambda text: None, executor=Here())
    return outcome.recorded, time.perf_counter() - began


def _unwritten() -> type:
    """Claims of a start that is alone and knows it: each is given, and nothing is written."""
    from harness.claims import Claim, Claims

    class Unwritten(Claim):
        def is_held(self) -> bool:
            return True

    class Alone(Claims):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def take(self, work: str) -> Claim:
            return Unwritten(Path(), work, self.token)

        def release(self, claim: Claim) -> None:
            pass

        def taken(self) -> set[str]:
            return set()

        def alone(self) -> bool:
            return True

        def clean(self) -> int:
            return 0

        def using(self, names: Iterable[str]) -> Any:
            return nullcontext()

        def each(self, works: Iterable[str], waiting: object) -> Iterator[str]:
            yield from works

    return Alone


_DEPTH = local()  # of timed calls within timed ones, which count once


def _timed(function: Callable[..., Any], what: str, took: Counter[str]) -> Callable[..., Any]:
    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        depth = _DEPTH.n = getattr(_DEPTH, "n", 0) + 1
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            _DEPTH.n = depth - 1
            if depth == 1:
                took[what] += time.perf_counter() - began

    return call


def _timed_ends(function: Callable[..., Any], what: str, took: Counter[str]) -> Callable[..., Any]:
    """The same of what stands in a ``with``: its beginning and its end, not what is inside."""

    @contextmanager
    def call(*given: Any, **named: Any) -> Iterator[Any]:
        manager = function(*given, **named)
        begin, end = (_timed(getattr(manager, n), what, took) for n in ("__enter__", "__exit__"))
        value = begin()
        yield value
        end(None, None, None)

    return call

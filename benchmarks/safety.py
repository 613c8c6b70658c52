"""What claims, signs of life and checkpoints take of a study's time, by timing their calls.

Two whole runs, with and without, differ by more than that on a machine that others use too.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import local
from typing import Any

from benchmarks.common import Child, Options, Part, Row, in_child

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


def measure(options: Options) -> Part:
    """Each side once, in a process of its own."""
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
            "energies to the disk. Shares are of the whole run's time, features included."
        ],
        tables={"Claims and checkpoints": rows},
    )
    for row in rows:
        got = {"value": row["all, %"]}
        part.claim(f"Claims and {row['side']}", got, MOST, sense="at most", unit=" %")
    return part


def side(options: Options) -> Row:
    """The share of each, in %, of a run of the reference."""
    from harness.claims import Claim, Claims
    from harness.experiment.settings import Settings
    from harness.heartbeat import Heartbeats
    from harness.run.checkpoint import Checkpoint
    from harness.run.plan import make_plan
    from harness.run.sweep import run_study
    from harness.studies import get_study

    took: Counter[str] = Counter()
    owners = dict(zip(TIMED, (Claims, Claim, Heartbeats, Checkpoint), strict=True))
    for what, names in TIMED.items():
        for name in names:
            setattr(owners[what], name, _timed(getattr(owners[what], name), what, took))
    for what, names in AROUND.items():
        for name in names:
            setattr(owners[what], name, _timed_ends(getattr(owners[what], name), what, took))
    study = get_study("surfaces", variants=["base"], seeds=[0], smoke=options.quick)
    with TemporaryDirectory(dir=options.work) as folder:
        settings = Settings(
            results=Path(folder), data=None, device="cpu", jobs=1, speed=False,
            checkpoint_minutes=options.extra["minutes"],
        )  # fmt: skip
        plan = make_plan(study, settings)
        began = time.perf_counter()
        outcome = run_study(plan, settings, lambda text: None, executor=Here())
        whole = time.perf_counter() - began
    shares = {f"{what}, %": round(100 * took[what] / whole, 3) for what in TIMED}
    return {"runs": outcome.recorded, "s": round(whole, 1), **shares,
            "all, %": round(100 * sum(took.values()) / whole, 3)}  # fmt: skip


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


class Here:
    """An executor that runs every task in this process."""

    def prepare(self) -> None:
        """Start nothing."""

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Run them one after another."""
        from harness.run.executors.contract import Event
        from harness.run.job import run_job

        for task in filter(None, tasks):
            for job in task:
                run_job(job, lambda epoch, loss: None, print)
                yield Event(job, "done")

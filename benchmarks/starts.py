"""Whole starts of ``harness run``, each in a fresh process, by one executor or another.

An executor of its own, :class:`Here`, runs trainings where it stands: what any other one adds is
measured beside it. Imports no torch: see common.py.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks.common import Child, Options, Row, in_child

VARIANTS = ("base", "coupling=two-sided", "actnorm=affine")  # of the embedded study
SHORT = 16  # trainings of the short study
HERE = "here"  # in place of an executor's name


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


def in_turns(
    options: Options, sides: Mapping[str, tuple[str, int]], *, rounds: int, short: bool
) -> dict[str, list[Child]]:
    """Every side in every round, each of which begins with another side; Ray's only if it is here.

    Args:
        options: of the part.
        sides: name → executor and runs at a time.
        rounds: how often each is started.
        short: many trainings of a moment instead of some of the embedded study's.
    """
    names = [n for n, (executor, _) in sides.items() if executor != "ray" or find_spec("ray")]
    done: dict[str, list[Child]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            executor, jobs = sides[name]
            with TemporaryDirectory(dir=options.work) as results:
                child = in_child(
                    options, "starts", "side", watch=True, executor=executor, jobs=jobs,
                    short=short, results=results, began=time.time(),
                )  # fmt: skip
            done[name].append(child)
            print(f"  {name}: {child.seconds:.1f} s {child.result}", flush=True)
    return done


def middle(children: list[Child], what: str) -> float:
    """The median of a figure that :func:`side` gave."""
    return round(median(c.result[what] for c in children), 2)


def side(options: Options) -> Row:
    """``harness run`` on the study; seconds to its first record, and of every further one."""
    from harness.cli.main import main
    from harness.run.executors import local
    from harness.run.process import keep_memory

    given = options.extra
    executor, instead = given["executor"], nullcontext()
    if executor == HERE:
        keep_memory()  # as workers do
        executor, instead = "local", patch.object(local, "open_executor", lambda _: Here())
    words = ["--executor", executor, "--jobs", str(given["jobs"]), "--results", given["results"]]
    with instead:
        code = main(
            ["run", _study(short=given["short"], quick=options.quick), "--no-speed", *words]
        )
    if code:
        raise SystemExit(code)
    records = Path(given["results"], "runs").rglob("seed-*.json")
    first, *others = sorted(p.stat().st_mtime for p in records)
    return {
        "first": first - given["began"],
        "further": (others[-1] - first) / len(others),
        "runs": 1 + len(others),
    }


def _study(*, short: bool, quick: bool) -> str:
    """The name under which `harness run` finds the study in this process."""
    from harness.experiment.study import Study
    from harness.studies import STUDIES, get_study

    study = get_study("surfaces", variants=list(VARIANTS), seeds=[0], smoke=quick)
    if short:
        base = study.bases["base"].replace(image_size=64, epochs=3, min_steps=0, eval_every=3)
        study = Study(
            name="short", asks="What does an executor add?", dataset="surfaces",
            categories=("brick",), bases={"base": base}, seeds=range(2 if quick else SHORT),
        )  # fmt: skip
    STUDIES["starts"] = study
    return "starts"

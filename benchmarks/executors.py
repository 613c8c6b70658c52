"""What each executor adds to a run, and what two runs at a time save.

The additions are small beside a run of the paper, so they are measured on runs of half a second:
every side does the same sixteen in a fresh process, and the sides take turns, each round in
another order.
"""

import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from benchmarks.common import Child, Options, Part, Row, columns, cores, in_child, ratio, spread

SHORT, ROUNDS = 16, 5  # trainings, and rounds, of the additions
VARIANTS = ("base", "coupling=two-sided", "actnorm=affine")  # of the embedded study, at length
ALONE = "one process, no executor"
ADDITIONS = {ALONE: "here", "--executor local": "local", "--executor ray": "ray"}
LENGTH = {
    "--executor local --jobs 1": ("local", 1), "--executor local --jobs 2": ("local", 2),
    "--executor ray --jobs 2": ("ray", 2),
}  # fmt: skip


def measure(options: Options) -> Part:
    """Both tables: one run at a time on all cores, then one and two at a time."""
    short = {name: (kind, 1) for name, kind in ADDITIONS.items()}
    additions = _turns(options, short, options.turns(ROUNDS), "short")
    length = _turns(options, LENGTH, options.turns(2), "long")
    part = Part(
        protocol=[
            f"Additions: {SHORT} trainings of 3 epochs on one category at 64 px, one at a time, "
            f"{cores()} threads each. A further run: the time from the first record to the last, "
            f"by {SHORT - 1}. Pairs are of a round: the executor's less that of the one process.",
            f"One and two at a time: {len(VARIANTS)} variants of the embedded study on its three "
            f"categories; threads × jobs = {cores()}. Processor time is sampled once a second; "
            "that of a Ray cluster is not seen.",
            "Every side is a fresh `harness run --no-speed` with features made anew. Ray's is a "
            "cluster that it starts for itself.",
        ]
    )
    own = [c.result["further"] for c in additions[ALONE]]
    rows: list[Row] = []
    for name, children in additions.items():
        further = [c.result["further"] for c in children]
        more = spread([a - b for a, b in zip(further, own, strict=True)], 3)
        row = {"side": name, "first record, s": _median(children, "first")}
        row |= columns(further, "s a further run")
        if name != ALONE:
            low, high = (round(more[k], 3) for k in ("min", "max"))
            said = f"{round(more['median'], 3)} ({low} to {high})"
            row["more than in one process, s a run"] = said
        rows.append(row)
    part.tables["What an executor adds"] = rows
    part.tables["One and two at a time"] = [
        {
            "side": name, "first record, s": _median(children, "first"),
            **columns([c.seconds for c in children], "s"),
            "share of the cores that idles, %": _idle(children) if "ray" not in name else None,
        }
        for name, children in length.items()
    ]  # fmt: skip
    one, two = ([c.seconds for c in length[n]] for n in list(LENGTH)[:2])
    part.claim("--jobs 2 against --jobs 1, whole", ratio(one, two), 1)
    return part


def _turns(
    options: Options, sides: dict[str, tuple[str, int]], rounds: int, study: str
) -> dict[str, list[Child]]:
    done: dict[str, list[Child]] = {name: [] for name in sides}
    for turn in range(rounds):
        first = turn % len(sides)
        for name, (kind, jobs) in [*sides.items()][first:] + [*sides.items()][:first]:
            if kind == "ray" and find_spec("ray") is None:
                continue
            with TemporaryDirectory(dir=options.work) as results:
                child = in_child(
                    options, "executors", "side", watch=True, kind=kind, jobs=jobs, study=study,
                    results=results, began=time.time(),
                )  # fmt: skip
            done[name].append(child)
            print(
                f"  executors: {study}: {name}: {child.seconds:.1f} s {child.result}", flush=True
            )
    return {name: children for name, children in done.items() if children}


def _median(children: list[Child], what: str) -> float:
    return round(median(c.result[what] for c in children), 2)


def _idle(children: list[Child]) -> float:
    return round(100 * (1 - median(c.busy / (cores() * c.seconds) for c in children)), 1)


def side(options: Options) -> Row:
    """``harness run`` on the study; seconds to its first record, and of every further one."""
    from benchmarks.safety import Here
    from harness.cli.main import main
    from harness.experiment.study import Study
    from harness.run.executors import local
    from harness.run.process import keep_memory
    from harness.studies import STUDIES, get_study

    given = options.extra
    study = get_study("surfaces", variants=list(VARIANTS), seeds=[0], smoke=options.quick)
    if given["study"] == "short":
        base = study.bases["base"].replace(image_size=64, epochs=3, min_steps=0, eval_every=3)
        seeds = range(2 if options.quick else SHORT)
        study = Study(
            name="short", asks="What does an executor add?", dataset="surfaces",
            categories=("brick",), bases={"base": base}, seeds=seeds,
        )  # fmt: skip
    STUDIES["executors"] = study
    executor = "local" if given["kind"] == "here" else given["kind"]
    words = ["--executor", executor, "--jobs", str(given["jobs"]), "--results", given["results"]]
    instead = given["kind"] == "here"
    if instead:
        keep_memory()  # as workers do
    with patch.object(local, "open_executor", lambda _: Here()) if instead else nullcontext():
        code = main(["run", "executors", "--no-speed", *words])
    if code:
        raise SystemExit(code)
    records = Path(given["results"], "runs").rglob("seed-*.json")
    first, *others = sorted(p.stat().st_mtime for p in records)
    return {
        "first": first - given["began"],
        "further": (others[-1] - first) / len(others),
        "runs": 1 + len(others),
    }

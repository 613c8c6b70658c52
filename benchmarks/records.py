"""A folder of results as it grows: what commands that read records take at 200, 2,000 and 20,000.

The records are made here, of one that comes along: every one is sound, of a run of its own, with
its own figures and scores; the images that they name are there.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from numpy.random import Generator
from PIL import Image

from benchmarks.common import ROOT, Options, Part, child_environment, exponent, in_child
from harness.errors import InputError
from harness.experiment.measured import Metrics, Speed
from harness.experiment.record import Images, Record
from harness.experiment.store import read_record

VARIANTS = (4, 40, 400)
QUICK = (1, 2)
STEPS = 20  # values of the study's first axis; its second has the rest
CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw",
)  # fmt: skip
SEEDS = 5
Took = dict[str, tuple[float, float]]  # command → seconds and CPU seconds
RUNS = len(CATEGORIES) * SEEDS  # of a variant
TRAIN = 6  # images of a category; its test images are those of the record that is copied
TEMPLATE = ("0ec59ea2c978", "mvtec_ad", "bottle", "seed-0.json")
STUDY = '''\
"""Which of many variants is best?"""

from harness.experiment.study import Study
from harness.experiment.variant import Variant

STUDY = Study(
    name="many",
    asks="Which of many variants is best?",
    categories={categories},
    bases={{"base": Variant(epochs=20, eval_every=5)}},
    vary=tuple(
        {{"flow_steps": 1 + i % {steps}, "learning_rate": round(1e-4 * (1 + i // {steps}), 6)}}
        for i in range({variants})
    ),
    seeds=range({seeds}),
)
'''


@dataclass(frozen=True)
class Folder:
    """Results of a study, its file, and the images that it is about."""

    results: Path
    study: Path
    data: Path
    records: int


def make(root: Path, variants: int, *, recorded: bool = True) -> Folder:
    """Write a study of so many variants, with a record of every run, below ``root``."""
    folder = Folder(root / "results", root / "many.py", root / "data", variants * RUNS * recorded)
    folder.results.mkdir(parents=True)
    (root / "many.py").write_text(
        STUDY.format(categories=CATEGORIES, steps=STEPS, variants=variants, seeds=SEEDS)
    )
    plain = read_record(ROOT.joinpath("results/reference/runs", *TEMPLATE))
    assert plain.images is not None
    rng = np.random.default_rng(0)
    for name in CATEGORIES:
        _write_images(folder.data / name, plain.images, rng)
    if recorded:
        for path, content in _contents(folder, plain, rng):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def _contents(folder: Folder, plain: Record, rng: Generator) -> Iterator[tuple[Path, bytes]]:
    """Every record's place and content: ``write_record`` would wait for the disk each time."""
    from harness.data.datasets import open_dataset
    from harness.experiment.place import Place
    from harness.studies import get_study

    dataset = open_dataset("mvtec_ad", folder=folder.data, cache=folder.data)
    loaded = {name: (c := dataset.load(name), c.contents) for name in CATEGORIES}
    study = get_study(str(folder.study))
    for variant in study.variants:
        effect = rng.normal(0, 0.01)
        fields = asdict(variant)
        digests = variant.digest, variant.training.digest
        for name, (category, contents) in loaded.items():
            data = msgspec.structs.replace(
                plain.data, digest=category.digest, train=len(category.train)
            )
            for seed in study.seeds:
                place = Place(folder.results, digests[0], "mvtec_ad", name, seed)
                record = msgspec.structs.replace(
                    _varied(plain, effect, name, contents, rng),
                    digest=digests[0], training_digest=digests[1], variant=fields,
                    category=name, seed=seed, data=data,
                )  # fmt: skip
                encoded = msgspec.json.encode(msgspec.to_builtins(record))
                yield place.record, msgspec.json.format(encoded, indent=1) + b"\n"


def _varied(
    plain: Record, effect: float, category: str, contents: list[str], rng: Generator
) -> Record:
    """The record with figures and scores of its own: a variant's effect, and chance."""
    images = plain.images
    assert images is not None

    def moved(values: Any, by: float) -> list[float]:
        given = np.array(values, dtype=float)
        return [float(v) for v in np.clip(given + effect + rng.normal(0, by, given.shape), 0, 1)]

    shift = float(effect + rng.normal(0, 0.01))

    def shifted(metrics: Metrics) -> Metrics:
        return {k: min(1.0, max(0.0, v * 0.95 + shift)) for k, v in metrics.items()}

    scores = np.array(images.score) * rng.lognormal(0, 0.5, len(images.score))
    speed = Speed(latency_ms=30 + 100 * shift, fps=40.0, additional_ms=12.0, rounds=5, session="1")
    return msgspec.structs.replace(
        plain,
        metrics=shifted(plain.metrics),
        epochs=[msgspec.structs.replace(e, metrics=shifted(e.metrics)) for e in plain.epochs],
        measured=msgspec.structs.replace(plain.measured, fit_seconds=60.0, speed=speed),
        images=msgspec.structs.replace(
            images,
            path=[_own(path, category) for path in images.path],
            sha256=contents,
            score=[float(v) for v in scores],
            found=moved(images.found, 0.01),
            clear=moved(images.clear, 0.01),
        ),
    )


def _own(path: str, category: str) -> str:
    """The place of an image that a record names, in a category of ours."""
    return f"{category}/{path.partition('/')[2]}".removesuffix(".jpg") + ".png"


def _write_images(folder: Path, images: Images, rng: Generator) -> None:
    """A category in the MVTec AD layout with the test images that a record names: noise."""
    places = {f"train/good/{i:03}.png": "good" for i in range(TRAIN)}
    places |= {
        _own(p, folder.name).partition("/")[2]: d
        for p, d in zip(images.path, images.defect, strict=True)
    }
    for place, defect in places.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(90, 130, (8, 8, 3), dtype=np.uint8)).save(path)
        if defect != "good":
            mask = folder / "ground_truth" / defect / f"{path.stem}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(np.full((2, 2), 255, np.uint8), 3)).save(mask)


WORDS = {
    "list": ["list"],
    "list STUDY": ["list", "{study}"],
    "plan STUDY": ["plan", "{study}", "--results", "{results}"],
    "plan STUDY --data": ["plan", "{study}", "--results", "{results}", "--data", "{data}"],
    "status STUDY": ["status", "{study}", "--results", "{results}"],
    "run STUDY, all recorded": ["run", "{study}", "--results", "{results}", "--data", "{data}"],
    "report STUDY": ["report", "{study}", "--results", "{results}"],
    "report": ["report", "--results", "{results}"],
    "gap": ["gap", "--results", "{results}"],
}
INSIDE = {  # functions of this module
    "reading all records": "read_all",
    "a run's start: memory": "memory",
    "a run's start: weights": "weights",
}
ROUNDS = 3  # fresh processes for each
LONGEST = 10.0  # seconds that were asked for, of the largest folder


def measure(options: Options) -> Part:
    """Every command on folders of every size, and on an empty one, each in a fresh process."""
    sizes = QUICK if options.quick else VARIANTS
    with TemporaryDirectory(dir=options.work) as name:
        folders = [make(Path(name) / "0", sizes[0], recorded=False)]
        folders += [make(Path(name) / str(v), v) for v in sizes]
        took = {f.records: _all(options, f) for f in folders}
        return _as_part(sizes, options.turns(ROUNDS), took)


def _as_part(sizes: Sequence[int], rounds: int, took: Mapping[int, Took]) -> Part:
    """What was found, by the number of records, in a table with its exponents."""
    counts = list(took)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    part = Part(
        protocol=[
            f"A person's own study of {', '.join(map(str, sizes))} variants × {len(CATEGORIES)} "
            f"categories × {SEEDS} seeds, every run recorded: synthetic records of the size of "
            "real ones, with the scores of 83 images, six evaluated epochs and nine metrics each.",
            f"Every command in a fresh process, records in the page cache: medians of {rounds}, "
            "one right after the other. "
            "CPU is user and system time with all children. Load average of the machine at the "
            f"end: {loads}.",
            "Exponent: of the CPU seconds between the last two sizes, less those of an empty "
            "folder: what a start takes, which is imports (of torch, pandas, matplotlib) and "
            "grows with nothing.",
        ]
    )
    rows: list[dict[str, Any]] = []
    for what in (*WORDS, *INSIDE):
        row: dict[str, Any] = {"command": what}
        for count in counts:
            found = took[count].get(what)
            if found:
                row[f"{count:,} s"] = round(found[0], 2)
                row[f"{count:,} CPU s"] = round(found[1], 2)
        start, few, many = (took[n].get(what, (0.0, 0.0))[1] for n in (0, *counts[-2:]))
        is_known = what in took[0] or what in INSIDE  # what a start takes
        if is_known and many - start > 0.2 and few - start > 0.02:
            row["exponent"] = round(exponent(counts[-2:], [few - start, many - start]), 2)
            got = {"value": row["exponent"]}
            part.claim(f"Records, growth of {what}", got, 1.1, sense="at most", unit="")
        if what in ("report STUDY", "status STUDY") and what in took[counts[-1]]:
            got = {"value": round(took[counts[-1]][what][0], 1)}
            text = f"Records, {what} of {counts[-1]:,}"
            part.claim(text, got, LONGEST, sense="at most", unit=" s")
        rows.append(row)
    part.tables = {"Seconds by the number of records": rows}
    return part


def _all(options: Options, folder: Folder) -> Took:
    """Command → seconds and CPU seconds."""
    paths: dict[str, Any] = {
        "study": str(folder.study),
        "results": str(folder.results),
        "data": str(folder.data),
    }
    given = {what: [word.format(**paths) for word in words] for what, words in WORDS.items()}
    if not folder.records:
        del given["run STUDY, all recorded"]  # it would train
    calls = {what: partial(_command, options, words) for what, words in given.items()}
    if folder.records:
        calls |= {what: partial(_inside, options, name, paths) for what, name in INSIDE.items()}
    took: Took = {}
    for what, call in calls.items():
        rounds = [call() for _ in range(options.turns(ROUNDS))]
        seconds, cpu = map(median, zip(*rounds, strict=True))
        took[what] = seconds, cpu
        print(f"  records: {folder.records}: {what}: {took[what]}", flush=True)
    return took


def _inside(options: Options, function: str, paths: dict[str, Any]) -> tuple[float, float]:
    seconds, cpu = in_child(options, "records", function, **paths).result
    return seconds, cpu


def _command(options: Options, words: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds, with its children's, of a command of the harness."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *words], env=child_environment(options),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode > (words[0] == "gap"):  # whose 1 is its word on the records
        raise InputError(f"harness {words[0]}: ended with {process.returncode}: {said[-300:]!r}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def read_all(options: Options) -> tuple[float, float]:
    """Seconds and CPU seconds of reading every record and keeping it."""
    from harness.experiment.store import read_records, uncollected

    def read() -> None:
        with uncollected():
            list(read_records(Path(options.extra["results"])))

    return _clocked(read)


def memory(options: Options) -> tuple[float, float]:
    """Those of counting what the study's runs would take, by the records that there are."""
    from harness.run.sweep import _memory

    plan, settings = _plan(options)
    return _clocked(
        lambda: _memory(plan, plan.cells, settings, lambda text: None, elsewhere=False)
    )


def weights(options: Options) -> tuple[float, float]:
    """Those of seeing that all records are of one weights file."""
    from harness.run.sweep import _same_weights

    plan, _ = _plan(options)
    plain = read_record(plan.place(plan.cells[0]).record)
    extractor: Any = SimpleNamespace(weights={"sha256": plain.weights.sha256})
    extractors = {v.feature_spec: extractor for v in plan.study.variants}
    return _clocked(lambda: _same_weights(plan, extractors))


def _plan(options: Options) -> Any:
    from harness.experiment.settings import Settings
    from harness.run.machine import settle
    from harness.run.plan import make_plan
    from harness.studies import get_study

    results, data = (Path(options.extra[k]) for k in ("results", "data"))
    settings = settle(Settings(results=results, data=data))
    return make_plan(get_study(options.extra["study"]), settings, checked=False), settings


def _clocked(call: Callable[[], object]) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu

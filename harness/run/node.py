"""A task on a node of a cluster: its features made there, its runs, and what they leave.

Where the node sees the driver's folder of results, everything is as on the driver's machine. Where
it does not, the node keeps features in a folder of its own, and what runs leave goes back in
pieces, the record last. Nothing here knows what carries an order here and news back.
"""

import hashlib
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

import harness
from harness.data.contract import Category, Depth, Sample
from harness.data.datasets import EMBEDDED, open_dataset
from harness.errors import InputError, RunFailed
from harness.experiment.settings import Settings
from harness.experiment.study import Cell
from harness.features.cache import FeatureCache, making
from harness.features.defective import all_there, ensure_all
from harness.features.extractor import Extractor
from harness.files import temporary, write_whole
from harness.run.checkpoint import code_digest
from harness.run.executors.contract import Event, Executor, open_executor
from harness.run.job import Job
from harness.run.machine import arithmetic, cores
from harness.run.plan import defective_wanted
from harness.run.process import give_back_memory, set_arithmetic

PIECE = 4 * 2**20  # bytes of a file that go at a time
LEFT = ("gallery", "weights", "record")  # what a run leaves, beside its training's energies


class News(NamedTuple):
    """Tell the driver what happens to a task.

    Attributes:
        kind: an event's (``epoch``, ``said``, ``done``, ``failed``); or ``here``: its features are
            there now; ``file``: a piece of what a run leaves, an empty one where it is whole;
            ``wants``: the energies of its training are to be sent along; ``refused``: this node
            cannot run the task.
        job: which job of the task, by number.
        epoch: its number, from 1.
        text: the reason, what is said, or which file.
        traceback: of a failure that nobody foresaw.
        content: bytes of a file.
        passes: images that passed a backbone here.
        reused: images whose features were there.

    >>> News("epoch", epoch=3).job
    0
    """

    kind: str
    job: int = 0
    epoch: int = 0
    text: str = ""
    traceback: str = ""
    content: bytes = b""
    passes: int = 0
    reused: int = 0


@dataclass(frozen=True)
class Order:
    """Hold what a node needs to run a task; plain values that pickle.

    Attributes:
        jobs: those of the task.
        weights: the folder of weights files.
        cache_limit: bytes of the feature cache.
        driver: names the driver's machine and folder of results: a node's own folder is for it.
        folder: where the driver runs; relative paths are meant from there.
        recorded: of each job the record that there is already; see :func:`recorded`.
        trained: whether the driver has the energies of the training.
        energies: those, where the node asked for them.
    """

    jobs: Sequence[Job]
    weights: Path | None
    cache_limit: int
    driver: str
    folder: Path
    recorded: Sequence[bytes]
    trained: bool = False
    energies: bytes = b""


def recorded(jobs: Sequence[Job]) -> list[bytes]:
    """Read the records of jobs that are run again for their weights; empty where there is none.

    A node that does not see them holds the scores to them, as :func:`harness.run.job.run_job`.
    """
    return [j.place.record.read_bytes() if j.keep and j.place.record.is_file() else b""
            for j in jobs]  # fmt: skip


def versions() -> dict[str, str]:
    """Name the software that has to be the same on every node.

    >>> sorted(versions())
    ['code of trainings', 'harness', 'torch']
    """
    torch_version = str(torch.__version__)
    return {
        "harness": harness.__version__, "code of trainings": code_digest(), "torch": torch_version,
    }  # fmt: skip


def work(expected: Mapping[str, str], packed: bytes) -> Iterator[News]:
    """Run a task here and tell what happens.

    Args:
        expected: the driver's :func:`versions`.
        packed: an :class:`Order`, pickled; opened only where the versions are the same.
    """
    try:
        if (found := versions()) != expected:
            other = ", ".join(f"{k} {found[k]}" for k in found if found[k] != expected.get(k))
            wanted = ", ".join(f"{k} {v}" for k, v in expected.items() if v != found.get(k))
            raise RunFailed(f"expected {wanted}; got {other}; install the same on every node")
        yield from _work(pickle.loads(packed))  # from the driver
    except (RunFailed, InputError, OSError) as error:
        yield News("refused", text=f"node {socket.gethostname()}: {error}")


def _work(order: Order) -> Iterator[News]:
    with suppress(OSError):  # a node that has no such folder is given absolute paths, or none
        os.chdir(order.folder)
    first = order.jobs[0]
    shared = first.claim is not None and first.claim.is_held()
    own = None if shared else own_folder(order.driver)
    features = FeatureCache(own / "features" if own else first.cache, order.cache_limit)
    _workers(first).prepare()  # beside the features
    with features.claims, features.claims.using([first.key.digest]):
        category = photos_here(first, own)
        jobs = [replace(j, category=category, cache=features.folder) for j in order.jobs]
        reused = _make_features(features, jobs, order.weights)
        yield News("here", text=first.key.digest, passes=features.passes, reused=reused)
        if shared:
            yield from _told(jobs)
            return
        with _own_results(features.folder) as results:
            yield from _apart([replace(j, results=results, claim=None) for j in jobs], order)


def _told(jobs: Sequence[Job]) -> Iterator[News]:
    """Run the jobs in a process of their own, as any task of this machine."""
    ended = 0

    def tasks() -> Iterator[Sequence[Job] | None]:
        yield jobs
        while ended < len(jobs):
            yield None

    events = _workers(jobs[0]).run(tasks())
    with closing(events) as told:  # type: ignore[type-var] # a generator
        event: Event
        for event in told:
            ended += event.kind in ("done", "failed")
            number = next(i for i, job in enumerate(jobs) if job == event.job)
            yield News(event.kind, number, event.epoch, event.reason, event.traceback)


def _workers(job: Job) -> Executor:
    """Worker processes of this machine; kept from task to task is the server that starts them.

    Two may be at work, and there is one task: so another is asked for twice a second, and a
    request to end, which reaches this process between two steps of Python, is heard.
    """
    return open_executor(Settings(executor="local", jobs=2, device=job.device))


def _apart(jobs: Sequence[Job], order: Order) -> Iterator[News]:
    """Run the jobs in a folder that the driver does not see, and send what they leave."""
    energies, sent = jobs[0].training_place.energies, order.trained
    if order.trained and not order.energies:
        yield News("wants")
        return
    if order.energies:
        write_whole(energies, order.energies)
    for job, content in zip(jobs, order.recorded, strict=True):
        if content:
            write_whole(job.place.record, content)
    for news in _told(jobs):
        if news.kind in ("done", "failed"):
            job = jobs[news.job]
            if not sent and job.is_trained():
                yield from _pieces(energies, "energies", news.job)
                sent = True
            if news.kind == "done":
                for kind in LEFT:
                    yield from _pieces(getattr(job.place, kind), kind, news.job)
        yield news


def _pieces(path: Path, kind: str, job: int) -> Iterator[News]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        while content := file.read(PIECE):
            yield News("file", job, text=kind, content=content)
    yield News("file", job, text=kind)


def own_folder(driver: str) -> Path:
    """Find this node's own folder for a driver's results; nobody else's.

    Raises:
        InputError: somebody else's folder is in its place.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    ours = Path(tempfile.gettempdir()) / f"fastflow-harness-{user}"
    ours.mkdir(mode=0o700, exist_ok=True)
    if ours.is_symlink() or ours.stat().st_uid != user:
        raise InputError(f"{ours}: expected a folder of this user; got another's; remove it")
    folder = ours / hashlib.sha256(driver.encode(errors="surrogateescape")).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _own_results(features: Path) -> Iterator[Path]:
    """A folder for what a task leaves; one of a killed process goes as other leftovers go."""
    folder = temporary(features / "results")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def photos_here(job: Job, own: Path | None) -> Category:
    """Find a job's photos on this machine, and see that they are the driver's.

    Args:
        job: whose category is sought; the embedded set is drawn where it is not.
        own: this node's own folder; None: it sees the driver's.

    Raises:
        RunFailed: they are not here, or others are.
    """
    category = job.category
    if own is None and category.drawn and category.root.is_dir():
        return category
    if category.drawn and not category.root.is_dir():
        drawn = open_dataset(EMBEDDED, folder=None, cache=own or job.cache.parent)
        category = _below(category, drawn.root)
    return _checked(category, job.key.data_digest)


@cache
def _checked(category: Category, digest: str) -> Category:
    """A category whose photos were read here, once a process, and are those of this digest."""
    samples = (*category.train, *category.test)
    files = [f for s in samples for f in (s.path, *s.masks)]
    if missing := [f for f in files if not f.exists()]:
        raise RunFailed(
            f"expected the photos of {category.name} at {missing[0].absolute()}; found none "
            f"({len(missing)} of {len(files)} files lack); put them there, or give --data a "
            "folder that every node sees"
        )
    here = replace(category)  # without what was read on the driver's machine
    if here.digest != digest:
        raise RunFailed(
            f"expected the driver's photos of {category.name} below {category.root.absolute()}; "
            "got others; copy them anew"
        )
    return here


def _below(category: Category, root: Path) -> Category:
    """The same images below another folder."""

    def moved(path: Path) -> Path:
        return root / os.path.relpath(path, category.root)

    samples = (*category.train, *category.test)
    depth = Depth(tuple(moved(s.path) for s in samples if not s.source))

    def there(sample: Sample) -> Sample:
        masks = tuple(map(moved, sample.masks))
        return replace(sample, path=moved(sample.path), masks=masks, depth=depth)

    train, test = (tuple(map(there, split)) for split in (category.train, category.test))
    return replace(category, root=root, train=train, test=test)


def _make_features(features: FeatureCache, jobs: Sequence[Job], weights: Path | None) -> int:
    """Make the task's features, unless they are here; returns how many images were.

    The others of this node that need them wait meanwhile, so it is done on all cores.
    """
    job = jobs[0]
    key, spec, shown = job.key, job.key.spec, job.shown
    set_arithmetic(tf32=job.tf32)
    torch.set_num_threads(cores())
    if (computed := arithmetic(job.device)) != key.arithmetic:
        raise RunFailed(f"expected to compute in {key.arithmetic}; got {computed}")
    wanted = defective_wanted(Cell(j.variant, j.category.name, j.seed) for j in jobs)
    kinds = wanted[spec, job.category.name]
    features.evict()
    for _ in features.claims.each([making(key.digest)], lambda work, holder: None):
        if all_there(features, key, kinds):
            return spec.images(len(shown.train), len(shown.test)) + len(kinds) * len(shown.train)
        extractor = Extractor.load(spec, weights)
        if (found := extractor.weights["sha256"]) != job.weights["sha256"]:
            raise RunFailed(
                f"expected the driver's weights of {spec.backbone} (SHA-256 "
                f"{job.weights['sha256'][:12]}…, from {job.weights['source']}); got others "
                f"({found[:12]}…); copy them to every node, or put them where all nodes see them"
            )
        ensure_all(features, key, kinds, extractor, shown, device=job.device)
    features.evict()
    give_back_memory()
    return 0

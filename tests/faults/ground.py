"""Where faults are tried: a tiny study, its undisturbed results, and what is counted."""

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults.starts import STUDY, files, leftovers, records, start, trainings
from tiny import write_category

CATEGORIES = ("left", "right")


@dataclass
class Tally:
    """What became of a kind of fault; every number but ``tried`` has to be zero.

    Attributes:
        tried: faults.
        lost: records that an undisturbed run has and the completed one lacks.
        damaged: records that can't be read, or say another thing than the undisturbed run's.
        twice: trainings that were there and were made again.
        tracebacks: outputs with one.
        orphans: processes that outlived their start.
        left: files that the completed study should not have, temporary ones among them.
        stuck: starts that did not end, or whose exit code was not the expected one.
        phases: what was going on at the moment of the fault, and how often.
    """

    tried: int = 0
    lost: int = 0
    damaged: int = 0
    twice: int = 0
    tracebacks: int = 0
    orphans: int = 0
    left: int = 0
    stuck: int = 0
    phases: Counter = field(default_factory=Counter)
    notes: list = field(default_factory=list)

    @classmethod
    def of(cls, counts):
        """Go on counting."""
        return cls(**{**counts, "phases": Counter(counts.get("phases", {}))})

    @property
    def faults(self):
        """All that should not be."""
        return sum(v for k, v in self.counts.items() if k not in ("tried", "phases", "notes"))

    @property
    def counts(self):
        """All of it, as JSON has it."""
        return {**vars(self), "phases": dict(self.phases)}


class Ground:
    """A folder with data, study and the undisturbed run's results.

    Args:
        folder: where; it is made, and what is there of an earlier time is used again.
        options: of every start beside the study's.
    """

    def __init__(self, folder, *options, seed=0):
        self.folder, self.options = folder.resolve(), options
        self.random = random.Random(seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(CATEGORIES):
            if not (self.folder / "data" / name).is_dir():
                write_category(self.folder / "data" / name, seed=i)
        (self.folder / "faulty.py").write_text(STUDY)
        self.made = 0
        whole = self.folder / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        undisturbed, seen = self.start(whole), {}
        while undisturbed.process.poll() is None:
            seen.setdefault(undisturbed.phase, time.time())
            time.sleep(0.02)
        assert undisturbed.wait() == 0, undisturbed.text
        self.seconds = time.time() - undisturbed.begun
        self.training = seen["tables"] - seen["training"]
        self.table = table(undisturbed.text)
        self.records, self.files = records(whole), files(whole)
        assert self.records
        assert self.table

    def start(self, results, *options, **others):
        return start(self.folder, results, *self.options, *options, **others)

    def fresh(self):
        """A new folder of results."""
        self.made += 1
        results = self.folder / f"results-{self.made}"
        shutil.rmtree(results, ignore_errors=True)
        return results

    def moment(self, one):
        """Wait for a random share of an undisturbed run; every other time, of its trainings."""
        share = self.random.uniform(0, 1)
        if self.random.random() < 0.5:
            time.sleep(share * self.seconds)
            return
        while one.process.poll() is None and one.phase in ("starting", "features, workers"):
            time.sleep(0.05)
        time.sleep(share * self.training)

    def look(self, results, tally):
        """Count what is wrong with the records that are there in the middle."""
        there = records(results)
        tally.damaged += sum(self.records.get(k) != v for k, v in there.items())

    def ended(self, one, tally, expected=(0,)):
        """Count what is wrong with a start that has to be over."""
        code = one.wait()
        if code not in expected:
            tally.stuck += 1
            last = one.text.strip().splitlines()[-1:]
            tally.notes.append(f"expected exit code {expected}; got {code}: {last}")
        if "Traceback" in one.text:
            tally.tracebacks += 1
            tally.notes.append(one.text[-2000:])
        if orphans := one.orphans():
            tally.orphans += orphans
            tally.notes.append(f"{orphans} processes outlived their start")
        one.said.unlink()

    def complete(self, results, tally, *, remove=True):
        """Start again without a fault, and hold what is there then to the undisturbed run."""
        before = trainings(results)
        one = self.start(results)
        code, text = one.wait(), one.text
        self.ended(one, tally)
        after = trainings(results)
        if again := [name for name, made in before.items() if after.get(name) != made]:
            tally.twice += len(again)
            tally.notes.append(f"trained again: {again}")
        there = records(results)
        tally.lost += len(self.records.keys() - there.keys())
        tally.damaged += sum(there[k] != v for k, v in self.records.items() if k in there)
        if code == 0 and table(text) != self.table:
            tally.damaged += 1
            tally.notes.append("another table")
        extra = sorted(files(results) - self.files)
        if found := [*extra, *map(str, leftovers(self.folder, results))]:
            tally.left += len(found)
            tally.notes.append(f"left: {found[:10]}")
        for path in (self.folder / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if remove:
            shutil.rmtree(results, ignore_errors=True)


def table(text):
    """The lines of the table that a run prints."""
    lines = text.splitlines()
    first = next(
        (i for i, line in enumerate(lines) if line.split()[:2] == ["variant", "runs"]), None
    )
    return [] if first is None else lines[first : first + 4]


def every_file(results):
    """Kind → files of it in a folder of results."""
    kinds = {}
    for path in sorted(p for p in Path(results).rglob("*") if p.is_file()):
        name = path.name
        kind = (
            "features" if path.suffix == ".npy"
            else "features' description" if name == "meta.json"
            else "gallery" if name.endswith(".gallery.npz")
            else "energies" if path.suffix == ".npz"
            else "record" if name.startswith("seed-") and path.suffix == ".json"
            else "page" if path.is_relative_to(results / "reports")
            else "other"
        )  # fmt: skip
        kinds.setdefault(kind, []).append(path)
    return kinds

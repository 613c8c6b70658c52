"""Where faults are tried: a tiny study, its undisturbed results, and what is counted."""

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from faults.starts import PHASES, STUDY, files, leftovers, pages, records, start, trainings
from tiny import write_category

CATEGORIES = ("left", "right")
OPTIONS = ("--checkpoint-minutes", "0.005", "--report")  # of every start
# Where a moment may lie: from the beginning of one phase to that of another.
STAGES = {
    "starting": "over", "features, workers": "training", "training": "tables", "pages": "over",
}  # fmt: skip


@dataclass
class Tally:
    """What became of a kind of fault; every number but the first two has to be zero.

    Attributes:
        tried: faults that disturbed something.
        missed: those that came when nothing was left to disturb, which are not among ``tried``.
        lost: files, records and pages among them, that an undisturbed run has and the completed
            one lacks.
        damaged: records and pages that can't be read, or say another thing than the undisturbed
            run's.
        twice: trainings that were there and were made again.
        tracebacks: outputs with one.
        orphans: processes that outlived their start.
        left: files that the completed study should not have, temporary ones among them.
        stuck: starts that did not end, or whose exit code was not the expected one.
        phases: what was going on at the moment of the fault, and how often.
    """

    tried: int = 0
    missed: int = 0
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
        harmless = ("tried", "missed", "phases", "notes")
        return sum(v for k, v in self.counts.items() if k not in harmless)

    @property
    def counts(self):
        """All of it, as JSON has it."""
        return {**vars(self), "phases": dict(self.phases)}


class Ground:
    """A folder with data, study and the undisturbed run's results.

    Args:
        folder: where; it is made, and what is there of an earlier time is used again.
        seed: of the moments.
        within: the share of a stage, from its beginning, in which moments lie.
        study: its file's content.
        categories: of the data.
    """

    def __init__(self, folder, seed=0, *, within=1.0, study=STUDY, categories=CATEGORIES):
        self.folder = folder.resolve()
        self.random, self.stages = random.Random(seed), tuple(STAGES)
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(categories):
            if not (self.folder / "data" / name).is_dir():
                write_category(self.folder / "data" / name, seed=i)
        (self.folder / "faulty.py").write_text(study)
        self.made = -1
        self.whole = whole = self.fresh()
        undisturbed, seen = self.start(whole), {}
        while undisturbed.process.poll() is None:
            seen.setdefault(undisturbed.phase, time.time())
            time.sleep(0.02)
        assert undisturbed.wait() == 0, undisturbed.text
        seen["starting"] = undisturbed.begun
        seen.setdefault("over", time.time())
        for phase, following in reversed(list(pairwise(PHASES))):
            seen.setdefault(phase, seen[following])  # it passed between two looks
        self.spans = {k: within * (seen[end] - seen[k]) for k, end in STAGES.items()}  # seconds
        self.table = table(undisturbed.text)
        self.records, self.files, self.pages = records(whole), files(whole), pages(whole)
        assert self.records
        assert self.table
        assert all(self.pages.values())

    def start(self, results, *options, **others):
        return start(self.folder, results, *OPTIONS, *options, **others)

    def fresh(self):
        """A new folder of results."""
        self.made += 1
        results = self.folder / f"results-{self.made}"
        shutil.rmtree(results, ignore_errors=True)
        return results

    def moment(self, one, among=tuple(STAGES), before="over"):
        """Wait for a random moment of a random stage.

        Returns:
            the phase that the start is in then; empty where it is past those ``before``.
        """
        stage = self.random.choice([s for s in among if s in self.stages])
        while one.is_before(stage):
            time.sleep(0.02)
        time.sleep(self.random.uniform(0, self.spans[stage]))
        return one.phase if one.is_before(before) else ""

    def look(self, results, tally):
        """Count what is wrong with the records and pages that are there in the middle."""
        there = records(results)
        tally.damaged += sum(self.records.get(k) != v for k, v in there.items())
        tally.damaged += list(pages(results).values()).count(None)

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

    def hold(self, there, whole, tally):
        """Count what says another thing than the undisturbed run's."""
        if wrong := [
            name for name, says in there.items() if name in whole and says != whole[name]
        ]:
            tally.damaged += len(wrong)
            tally.notes.append(f"says another thing: {wrong[:10]}")

    def complete(self, results, tally):
        """Start again without a fault, and hold what is there then to the undisturbed run."""
        before = trainings(results)
        one = self.start(results)
        code, text = one.wait(), one.text
        self.ended(one, tally)
        after = trainings(results)
        if again := [name for name, made in before.items() if after.get(name) != made]:
            tally.twice += len(again)
            tally.notes.append(f"trained again: {again}")
        self.hold(records(results), self.records, tally)
        self.hold(pages(results), self.pages, tally)
        there = files(results)
        if missing := sorted(self.files - there):
            tally.lost += len(missing)
            tally.notes.append(f"lost: {missing[:10]}")
        if code == 0 and table(text) != self.table:
            tally.damaged += 1
            tally.notes.append("another table")
        extra = sorted(there - self.files)
        if found := [*extra, *map(str, leftovers(self.folder, results))]:
            tally.left += len(found)
            tally.notes.append(f"left: {found[:10]}")
        for path in (self.folder / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(results)


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

"""The index of a folder of results: what was asked, what came out, and what is not known.

Everything is read off the records and the ledger as they are now; a page says only which question
it answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pandas as pd

from harness.errors import InputError
from harness.experiment.record import Record
from harness.experiment.store import read_records, uncollected
from harness.paper import boards
from harness.paper import tables as paper_tables
from harness.paper.gap import VERDICTS, gaps
from harness.paper.ledger import ledger
from harness.paper.protocol import Protocol
from harness.report.commands import command
from harness.report.pages import NOTEBOOKS, PAGES, about, page_names
from harness.report.site.boards import Board, Cell, Column
from harness.report.site.markup import Html, block, section
from harness.report.site.pictures import Picture
from harness.report.study_page import StudyPage
from harness.studies import EMBEDDED, STUDIES

MIRRORED = ("table1", "table2", "table3", "table4", "kernels_by_backbone", "disturbed")
TITLES = {
    "table1": "Table 1: complexity", "table2": "Table 2: MVTec AD by category",
    "table3": "Table 3: BTAD", "table4": "Table 4: CIFAR-10",
    "kernels_by_backbone": "Ablation of the kernels", "disturbed": "Disturbed images",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Hold what the index says of a study.

    Attributes:
        name: of the page or study.
        page: the parts of its page; None where what was asked of it cannot be read any more.
        href: of its page; empty where it has none.
        photos: of its page of photos; empty where it has none.
        why: what is wrong with it; empty for nothing.

    >>> Entry("x", None, why="gone").done
    0
    """

    name: str
    page: StudyPage | None
    href: str = ""
    photos: str = ""
    why: str = ""

    @property
    def done(self) -> int:
        """Count its recorded runs."""
        return len(self.page.selection.records) if self.page else 0

    @property
    def last(self) -> str:
        """Say when its last run ended; empty for none."""
        runs = self.page.selection.records if self.page else ()
        return max((r.measured.finished for r in runs), default="")[:16].replace("T", " ")

    def shown(self) -> dict[str, Any]:
        """Say everything that the index shows of it."""
        page = self.page
        if page is None:
            return {
                "name": self.name,
                "href": self.href,
                "why": self.why,
                "thumb": [],
                "marks": [],
            }
        s, best = page.selection, page.verdict.winner
        full = s.runs
        said = {
            "name": self.name, "href": self.href, "photos": self.photos, "why": self.why,
            "asks": s.study.asks, "answer": page.inline(page.verdict.said), "done": self.done,
            "runs": full, "share": round(100 * self.done / full) if full else 0,
            "failed": len(s.failures()), "damaged": len(s.damaged), "last": self.last,
            "best": page.names[best] if best else None, "thumb": self._thumb(),
            "marks": list(_marks(page)), "run": "", "report": "",
        }  # fmt: skip
        if self.done < full:
            said["run"] = page.command("run")
        if not self.href:
            said["report"] = page.command("report")
        return said

    def _thumb(self) -> list[Picture]:
        """Its winner's map of the hardest photo, beside the photo."""
        if not self.page or not self.page.verdict.winner:
            return []
        found = self.page.pictures(self.page.verdict.winner, most=1)
        return list(found[0][0].images) if found else []


def _marks(page: StudyPage) -> Iterator[str]:
    records = page.selection.records
    if any(r.smoke for r in records):
        yield "smoke run: no result"
    if any(r.random_weights for r in records):
        yield "random weights"
    if any(r.selection.oracle for r in records):
        yield "has oracles"
    if len({r.seed for r in records}) < 3 and records:
        yield "fewer than three seeds"


@dataclass(frozen=True)
class Overview:
    """Hold a folder of results, and make the parts of its index.

    >>> Overview(Path("nowhere"), (), ()).entries
    []
    """

    results: Path
    records: tuple[Record, ...]
    damaged: tuple[str, ...]

    @classmethod
    def of(cls, results: str | Path) -> Self:
        """Read a folder of results; what is damaged in it is named and left out."""
        folder, damaged = Path(results), list[str]()
        read = read_records(folder, damaged=lambda error: damaged.append(str(error)))
        with uncollected():
            return cls(folder, tuple(read), tuple(damaged))

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Judge every published figure; see :func:`harness.paper.gap.gaps`."""
        return gaps(ledger(), self.records, paper_tables.accepted_counts())

    @cached_property
    def entries(self) -> list[Entry]:
        """List the studies that have a page or a record, the last that ran first."""
        reports = self.results / "reports"
        there = page_names(reports)
        found = [
            _entry(reports, name, there)
            for name in there
            if name not in PAGES and not name.startswith("qualitative-")
        ]
        covered = {d for e in found if e.page for d in e.page.selection.labels}
        recorded = {r.digest for r in self.records}
        for name, study in STUDIES.items():
            own = set(study.labels())
            mine = [r for r in self.records if r.digest in own] if own & recorded else []
            if mine and own - covered & recorded:
                sets = Counter(r.dataset for r in mine)
                dataset = sets.most_common(1)[0][0]
                categories = list(dict.fromkeys(r.category for r in mine if r.dataset == dataset))
                page = StudyPage.of(name, self.results, dataset=dataset, categories=categories)
                found.append(Entry(name, page))
        return sorted(found, key=lambda e: (e.done > 0, e.last, e.name), reverse=True)

    def opening(self) -> Html:
        """Open the index: what is here, in few words."""
        own = self._own()
        counts = own["verdict"].value_counts()
        verdicts = [(v, int(counts.get(v, 0))) for v in VERDICTS]
        return block(
            "index_opening", runs=len(self.records), studies=len(self._begun()),
            verdicts=verdicts, figures=len(own), damaged=self.damaged,
            folder=str(self.results.resolve().name),
        )  # fmt: skip

    def tables(self) -> Html:
        """Show each of the paper's tables with a strip of its figures, by verdict."""
        there = page_names(self.results / "reports")
        shown = []
        for name in MIRRORED:
            mine = boards.of_study(STUDIES[name], self.judged)
            counts = mine["verdict"].value_counts()
            shown.append(
                {
                    "name": TITLES[name], "href": f"{name}.html" if name in there else "",
                    "cells": boards.strip(mine), "reasons": boards.reasons(mine),
                    "counts": [(v, int(counts[v])) for v in VERDICTS if v in counts],
                    "run": command("run", name, dataset=STUDIES[name].dataset)
                    + (" --report" if name in NOTEBOOKS else ""),
                }
            )  # fmt: skip
        others = [(n, asks) for n, asks in PAGES.items() if n in there]
        return block("index_tables", tables=shown, verdicts=VERDICTS, others=others,
                     legend=paper_tables.LEGEND)  # fmt: skip

    def studies(self) -> Html:
        """Show every study that has a run with its state, its question and its answer."""
        return block("index_studies", entries=[e.shown() for e in self._begun()])

    def machines(self) -> Html:
        """Tabulate which runs were measured on which machine, with which code."""
        if not self.records:
            return Html("")
        groups: Counter[tuple[str, ...]] = Counter()
        last: dict[tuple[str, ...], str] = {}
        for r in self.records:
            e = r.environment
            key = (e.device_name or e.device, e.device, e.arithmetic or "not recorded",
                   str(e.threads), e.harness, (e.commit or "unknown")[:12])  # fmt: skip
            groups[key] += 1
            last[key] = max(last.get(key, ""), r.measured.finished[:10])
        heads = ("machine", "device", "arithmetic", "threads", "harness", "commit", "runs", "last")
        columns = [Column(h, words=h not in ("threads", "runs")) for h in heads]
        rows = [
            [*map(Cell, key), Cell(str(count), float(count)), Cell(last[key])]
            for key, count in groups.most_common()
        ]
        board = Board("machines", "Machines and code", columns, rows, sortable=False)
        return section("Measured on") + board.html

    def unknown(self) -> Html:
        """Say plainly what is not known."""
        counts = self._own()["verdict"].value_counts()
        open_ = ", ".join(f"{int(counts[v])} {v}" for v in VERDICTS[3:] if v in counts)
        limits = Protocol(self.results, self.records).limitations()
        return block("index_unknown", open=open_, limits=limits)

    def next(self) -> Html:
        """Say what to run next, as commands to copy, first the rest of what has begun."""
        waiting = [
            {"name": e.name, "href": e.href, "asks": e.page.selection.study.asks,
             "runs": e.page.selection.runs, "run": e.page.command("run")}
            for e in self.entries if e.page and not e.done
        ]  # fmt: skip
        said: list[tuple[str, str]] = []
        if not any(r.dataset == EMBEDDED for r in self.records):
            said.append((
                "The embedded study needs no download and takes minutes:",
                command("run", EMBEDDED, results=self._elsewhere()) + " --report",
            ))  # fmt: skip
        for e in self._begun():
            if e.page and (missing := e.page.selection.runs - e.done):
                said.append((f"{missing} runs of {e.name} are missing:", e.page.command("run")))
        if pages := [e for e in self.entries if e.page and not e.href][:3]:
            said.append((
                f"No page yet of {', '.join(e.name for e in pages)}; all pages are made by",
                command("report", results=self._elsewhere()),
            ))  # fmt: skip
        if not any(int(n) for v, n in self._own()["verdict"].value_counts().items()
                   if v in ("reproduced", "gap", "exceeds")):  # fmt: skip
            said.append((
                "No figure of the paper is judged yet; one backbone of its Table 2, on MVTec AD:",
                "harness run table2 --data FOLDER --variant ResNet18 --report",
            ))  # fmt: skip
        said.append(("What each published figure stands at:",
                     command("gap", results=self._elsewhere())))  # fmt: skip
        return block("index_next", commands=said, waiting=waiting)

    def _begun(self) -> list[Entry]:
        """The studies that have a run, and those that cannot be read."""
        return [e for e in self.entries if e.done or not e.page]

    def _own(self) -> pd.DataFrame:
        """The figures that FastFlow's paper prints of itself."""
        own = self.judged
        return own[(own["by"] == "FastFlow") & (own["method"] == "FastFlow")]

    def _elsewhere(self) -> Path | None:
        return None if self.results.resolve().name == "results" else self.results


def read(results: str | Path) -> Overview:
    """Read a folder of results for its index."""
    return Overview.of(results)


def _entry(reports: Path, name: str, there: list[str]) -> Entry:
    """What a page is about, read anew off the records."""
    said = about(reports / f"{name}.ipynb")
    href = f"{quote(name)}.html"
    photos = f"qualitative-{name}"
    photos = f"{quote(photos)}.html" if photos in there else ""
    given: Mapping[str, Any] = said.get("parameters") or {}
    try:
        page = StudyPage.of(**{"variants": (), **given})
        _ = page.selection.records
    except (InputError, TypeError) as error:
        why = str(error) if isinstance(error, InputError) else "what was asked of it is not known"
        return Entry(name, None, href, photos, why)
    return Entry(name, page, href, photos)

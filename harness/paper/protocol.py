"""The page on the method: how it was measured, on what, and what the figures do not say."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.escape import in_markdown
from harness.experiment.record import Record
from harness.experiment.store import read_records
from harness.report.commands import command
from harness.report.names import architecture
from harness.report.pages import about, page_names
from harness.report.site.boards import Board, from_frame
from harness.report.site.markup import Html, part, prose

FEW_SEEDS, FEW_PHOTOS = 5, 30  # below these a report says so
PACKAGES = ("torch", "timm", "FrEIA", "numpy", "scipy", "python")
ALWAYS = (
    "The last epoch is the headline, unless a variant is marked: no epoch, threshold or variant "
    "is chosen with the test's labels but where it says *oracle*.",
    "Categories are taken as fixed: nothing here says what other categories would give.",
    "Speeds compare within one session of one machine; times that papers print are of other "
    "machines, stand beside ours and are not judged.",
    "The threshold that is drawn beside photos is chosen on the test's labels, and shows what is "
    "possible.",
)


@dataclass(frozen=True)
class Protocol:
    """Hold a folder of results, and say how it came about.

    >>> Protocol(Path("nowhere"), ()).limitations().text.count("<li>")
    4
    """

    results: Path
    records: tuple[Record, ...]

    def opening(self) -> Html:
        """Say what is here."""
        sets = Counter(r.dataset for r in self.records)
        said = ", ".join(f"{n} of {in_markdown(name)}" for name, n in sets.most_common())
        lines = [
            "# How it was measured",
            "**On what, by which code, with which commands, and what these figures do not say.**",
            f"{len(self.records)} recorded runs: {said}." if said else "Nothing has been run yet.",
        ]
        return prose("\n\n".join(lines))

    def protocols(self) -> list[Board | Html]:
        """Tabulate how scores became metrics, and which epochs counted."""
        if not self.records:
            return [prose("*No records.*")]
        rows = Counter(
            (
                r.dataset, str(r.protocol.aupro_fpr_limit), str(r.protocol.map_size),
                r.protocol.resize, r.protocol.masks, r.selection.rule if r.loss else "in one pass",
                "yes" if r.selection.oracle else "",
            )
            for r in self.records
        )  # fmt: skip
        heads = ["data", "AUPRO up to", "map size", "resize", "masks", "epoch", "oracle"]
        frame = pd.DataFrame([(*k, n) for k, n in rows.most_common()], columns=[*heads, "runs"])
        says = (
            "An image-level metric is of one score an image, a pixel metric of all pixels of all "
            "test images together, AUPRO of connected defective regions. Means are over "
            "categories and seeds; ± is the standard deviation over seeds of the mean over "
            "categories; intervals are 95 %."
        )
        return [prose(says), from_frame("protocols", "Protocols", frame.set_index("data"))]

    def versions(self) -> Board | Html:
        """Tabulate machines, versions and commits."""
        if not self.records:
            return prose("*No records.*")
        rows: Counter[tuple[str, ...]] = Counter()
        for r in self.records:
            e = r.environment
            known = {**e.versions, "python": e.python}
            rows[
                e.device_name or e.device, e.arithmetic or "not recorded", str(e.threads),
                e.harness, (e.commit or "unknown")[:12], *(known.get(p, "–") for p in PACKAGES),
            ] += 1  # fmt: skip
        heads = ["machine", "arithmetic", "threads", "harness", "commit", *PACKAGES, "runs"]
        frame = pd.DataFrame([(*k, n) for k, n in rows.most_common()], columns=heads)
        return from_frame("versions", "Machines and versions", frame.set_index("machine"))

    def data(self) -> Board | Html:
        """Tabulate the images and the weights, by digest."""
        if not self.records:
            return prose("*No records.*")
        rows: Counter[tuple[object, ...]] = Counter()
        for r in self.records:
            d, w = r.data, r.weights
            rows[
                r.dataset, r.category, d.train, d.test - d.defective, d.defective, d.masks,
                d.form or "–", d.copy or "–", d.digest[:12], architecture(w.backbone),
                w.source, w.sha256[:12] or "–",
            ] += 1  # fmt: skip
        heads = ["data", "category", "train", "good", "defective", "masks", "form", "copy",
                 "digest", "backbone", "weights from", "SHA-256", "runs"]  # fmt: skip
        frame = pd.DataFrame([(*k, n) for k, n in sorted(rows.items(), key=str)], columns=heads)
        return from_frame("data", "Images and weights", frame.set_index("data"))

    def commands(self) -> Html:
        """List the exact commands that make the pages anew, each page's own."""
        reports = self.results / "reports"
        said = (about(reports / f"{name}.ipynb").get("command") for name in page_names(reports))
        where = None if self.results.resolve().name == "results" else self.results
        every = dict.fromkeys([command("report", results=where), *filter(None, said)])
        return Html("\n".join(part("command", line).text for line in every))

    def limitations(self) -> Html:
        """Say plainly what the figures leave open."""
        return prose("\n".join(f"- {line}" for line in (*self._limits(), *ALWAYS)))

    def _limits(self) -> Iterator[str]:
        """What the records at hand leave open."""
        runs: dict[tuple[str, str, str], set[int]] = {}
        for r in self.records:
            runs.setdefault((r.digest, r.dataset, r.category), set()).add(r.seed)
        if few := sum(len(seeds) < FEW_SEEDS for seeds in runs.values()):
            yield (
                f"**Few seeds**: {few} of {len(runs)} variants on a category have fewer than "
                f"{FEW_SEEDS}: the spread between trainings is known roughly; of one, not at all."
            )
        photos = {(r.dataset, r.category): r.data for r in self.records}
        small = [c for (_, c), d in photos.items()
                 if min(d.defective, d.test - d.defective) < FEW_PHOTOS]  # fmt: skip
        if small:
            yield (
                f"**Few photos**: {len(small)} of {len(photos)} categories have fewer than "
                f"{FEW_PHOTOS} good or defective test photos; an AUROC of so few moves by points "
                "with the photos that were taken."
            )
        part_of = [f"{ds}/{c}" for (ds, c), d in photos.items() if d.complete is False]
        if part_of:
            names = in_markdown(", ".join(part_of))
            yield f"**A part of the data**: {names} have fewer images than published."
        if other := [f"{s}/{c}" for (s, c), d in photos.items() if d.published_form is False]:
            yield f"**Another form**: {in_markdown(', '.join(other))} are not stored as published."
        if any(ds == "surfaces" for ds, _ in photos):
            yield (
                "**Drawn defects**: the embedded surfaces are photographs on which defects are "
                "drawn. They compare variants and say nothing of real defects."
            )
        if smoke := sum(r.smoke for r in self.records):
            yield f"**Smoke runs**: {smoke} runs of one epoch on a few images are no results."
        if random := sum(r.random_weights for r in self.records):
            yield f"**Random weights**: {random} runs have a backbone that was never trained."


def read(results: str | Path) -> Protocol:
    """Read a folder of results; what is damaged in it is named by the index."""
    folder = Path(results)
    return Protocol(folder, tuple(read_records(folder, damaged=lambda error: None)))

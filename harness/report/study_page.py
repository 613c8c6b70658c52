"""A study's page: what its notebook shows, from the answer down to the settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from harness.escape import in_markdown
from harness.experiment.record import Record
from harness.experiment.store import once
from harness.report import photos, plots, sentences, tables
from harness.report.answer import answer, oracles
from harness.report.commands import command
from harness.report.drawing import Panel, Plate
from harness.report.names import Name, names
from harness.report.selection import Selection, select
from harness.report.site.markup import Html, block, prose
from harness.report.site.pictures import Scale
from harness.report.verdict import Verdict, verdict

MOST = 25  # variants that a chart or table shows


@dataclass(frozen=True)
class StudyPage:
    """Hold a study's records and what was asked of it, and make the parts of its page.

    Attributes:
        study: its name, or the path of its file.
        selection: its records.
        asked: the options of :func:`harness.studies.get_study`.

    >>> StudyPage.of("kernels", "nowhere", dataset="mvtec_ad", categories=["screw"]).shown
    []
    """

    study: str
    selection: Selection
    asked: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        study: str,
        results: str | Path,
        *,
        dataset: str,
        categories: Sequence[str],
        **asked: Any,  # noqa: ANN401
    ) -> Self:
        """Make the page as a notebook is asked for it; see :func:`select`.

        While records are held, the index looks at the same page as the notebook made.
        """

        def make() -> Any:  # noqa: ANN401 - mypy knows no functions of a class's own type
            chosen = select(study, results, dataset=dataset, categories=categories, **asked)
            return cls(study, chosen, asked)

        what = (study, str(Path(results).resolve()), dataset, list(categories), asked)
        page: Self = once(f"{cls.__name__} {json.dumps(what, sort_keys=True, default=str)}", make)
        return page

    @cached_property
    def frame(self) -> pd.DataFrame:
        """List the runs; see :func:`harness.report.tables.runs`."""
        return tables.runs(self.selection)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Average the runs of every variant; see :func:`harness.report.tables.summary`."""
        return tables.summary(self.frame, self.selection.study)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """List every evaluated epoch; see :func:`harness.report.tables.epochs`."""
        return tables.epochs(self.selection)

    @cached_property
    def shown(self) -> list[str]:
        """List those of the headline metrics that some run has."""
        return tables.measured(self.frame)

    @cached_property
    def names(self) -> dict[str, Name]:
        """Name the variants, by label."""
        return names(self.selection, oracles(self.selection))

    @cached_property
    def chief(self) -> list[str]:
        """List the variants that charts and tables show: all; of many the reference and the best.

        The best by the mean of the first metric that was measured.
        """
        labels = list(self.selection.labels.values())
        if len(labels) <= MOST:
            return labels
        means = self.summary.set_index("label").get(self.shown[0]) if self.shown else None
        ranked = labels if means is None else list(means.sort_values(ascending=False).index)
        best = set(dict.fromkeys([self.reference, *ranked][:MOST]))
        return [label for label in labels if label in best]

    @property
    def leaves_out(self) -> str:
        """Say that charts and tables do not show every variant; empty where they do."""
        few, many = len(self.chief), len(self.selection.labels)
        of = f"the reference and the best {few - 1} of {many} variants"
        return f" Shown: {of}; the downloads have all." if few < many else ""

    @cached_property
    def verdict(self) -> Verdict:
        """Say the answer in one line."""
        return verdict(self.selection)

    @property
    def reference(self) -> str:
        """Name the variant that the others are compared with."""
        return next(iter(self.selection.labels.values()))

    @property
    def records(self) -> str:
        """Say which records a figure is drawn from."""
        runs = self.selection.records
        categories = ", ".join(dict.fromkeys(r.category for r in runs))
        seeds = ", ".join(map(str, sorted({r.seed for r in runs})))
        folder = f"{self.selection.results.name}/runs"
        return f"Drawn from {len(runs)} records in {folder}: {categories}; seeds {seeds}."

    def of_variant(self, label: str) -> list[Record]:
        """List a variant's records, category by category."""
        digests = {name: digest for digest, name in self.selection.labels.items()}
        return list(self.selection.by_variant.get(digests[label], {}).values())

    def prose(self, markdown: str) -> Html:
        """Turn sentences into HTML, the variants by their short names."""
        return prose(markdown, self.names)

    def opening(self) -> Html:
        """Open the page: the answer in one line, its photos and scores, then what was run."""
        run = self.command("run")
        said = list(sentences.warnings(self.frame, self.selection))
        return block(
            "opening",
            name=self.selection.study.name,
            dataset=self.selection.dataset,
            asks=self.selection.study.asks,
            mirrors=self.selection.study.mirrors,
            verdict=[self.inline(line) for line in self.verdict.lines],
            facts=self.facts(),
            hero=self._hero(),
            warnings=[self.prose(w) for w in said if not w.startswith("**Note**")],
            notes=[self.prose(w) for w in said if w.startswith("**Note**")],
            run=run if len(self.frame) < self.selection.runs else "",
        )

    def answer(self) -> Html:
        """Answer the question in full."""
        return self.prose(answer(self.selection))

    def facts(self) -> dict[str, str]:
        """List what was run, where and when, in few words."""
        s = self.selection
        said = {
            "runs": f"{len(self.frame)} of {s.runs}",
            "variants": str(len(s.labels)),
            "images": f"{s.dataset}: {', '.join(s.categories[:6])}"
            + (f" and {len(s.categories) - 6} more" if len(s.categories) > 6 else ""),
            "seeds": ", ".join(map(str, s.study.seeds)),
        }
        if s.records:
            machines = dict.fromkeys(
                r.environment.device_name or r.environment.device for r in s.records
            )
            said["machine"] = ", ".join(machines)
            said["last run"] = max(r.measured.finished for r in s.records)[:10] or "not known"
        return said

    def histograms(self, label: str, most: int = 15) -> Plate | None:
        """Draw a variant's scores of good and bad images by category, the hardest first.

        Of its first seed; None where the records do not list their images.
        """
        found = sorted(self.first_seed(label), key=lambda r: r.metrics.get("image_auroc", 2.0))
        known = [r for r in found if r.images and len(r.images.score) > 1][:most]
        panels, rows = [], []
        for record in known:
            if (images := record.images) is None:
                continue
            cut = photos.best_threshold(images.score, images.labels)
            panels.append(plots.histogram(images.score, images.labels, cut, record.category))
            listed = zip(images.path, images.defect, images.score, strict=True)
            rows += [(record.category, *row, cut) for row in listed]
        if not panels:
            return None
        columns = ["category", "image", "defect", "score", "threshold"]
        seed = known[0].seed
        caption = (
            f"Image scores of {self.names[label].text}, seed {seed}: good test images above the "
            f"line, defective ones below; dashed: the threshold. {photos.THRESHOLD_NOTE}"
        )
        return Plate(f"scores-{self.selection.study.name}", panels, caption, self._record(known),
                     pd.DataFrame(rows, columns=columns))  # fmt: skip

    def pictures(self, label: str, most: int = 4) -> list[tuple[photos.Pair, Scale]]:
        """Show a variant's hardest and plainest test images, in its hardest category with maps."""
        found = sorted(self.first_seed(label), key=lambda r: r.metrics.get("image_auroc", 2.0))
        for record in found:
            kept = photos.shots(self.selection, record)
            if kept:
                scale = photos.common_scale([kept], str(record.variant.get("score_map", "")))
                cut = self.cut(record)
                chosen = list(photos.worst_and_best(kept))[:most]
                return [(photos.pair(shot, scale, cut, says), scale) for says, shot in chosen]
        return []

    def cut(self, record: Record) -> float:
        """Find the threshold at which a run's F1 is largest; nan without its images' scores."""
        images = record.images
        return photos.best_threshold(images.score, images.labels) if images else np.nan

    def first_seed(self, label: str) -> list[Record]:
        """List a variant's records of its first seed, by category."""
        runs = self.of_variant(label)
        first = min((r.seed for r in runs), default=0)
        return [r for r in runs if r.seed == first]

    def _record(self, records: Sequence[Record]) -> str:
        places = [f"runs/{r.digest}/{r.dataset}/{r.category}/seed-{r.seed}.json" for r in records]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return f"Drawn from {', '.join(places[:3])}{more}."

    def _hero(self) -> dict[str, Any]:
        """The winner's photos and scores; without one the reference's photos."""
        shown = self.verdict.winner or self.reference
        shots = self.pictures(shown)
        plate = self.histograms(shown, most=1) if self.verdict.winner else None
        panel: Panel | None = plate.panels[0] if plate else None
        category = panel.title if panel else ""
        return {
            "name": self.names[shown], "pairs": [p for p, _ in shots], "category": category,
            "scale": shots[0][1] if shots else None, "histogram": panel,
            "note": photos.THRESHOLD_NOTE if panel else "",
        }  # fmt: skip

    def inline(self, markdown: str) -> Html:
        """Turn one sentence into HTML, without the paragraph around it."""
        text = self.prose(markdown).text
        return Html(text.removeprefix("<p>").removesuffix("</p>"))

    def command(self, verb: str) -> str:
        """Write the command that runs or reports what was asked."""
        own = self.selection
        asked = {k: v for k, v in self.asked.items() if v}
        where = None if own.results.name == "results" else own.results
        return command(verb, self.study, results=where, dataset=own.dataset, **asked)

    def no_maps(self, label: str) -> Html:
        """Say that there are no pictures of a variant."""
        return self.prose(sentences.no_gallery(in_markdown(label), self.selection.dataset))

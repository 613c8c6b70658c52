"""The page on the gap: every published figure beside ours."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.errors import InputError
from harness.escape import in_markdown
from harness.experiment.store import read_records
from harness.paper import tables
from harness.paper.gap import gaps
from harness.paper.ledger import ledger
from harness.report import plots
from harness.report.drawing import Plate
from harness.report.site.boards import Board, from_frame
from harness.report.site.markup import Html, prose

JUDGED = ("reproduced", "gap", "exceeds", "undecided")


@dataclass(frozen=True)
class GapPage:
    """Hold every published figure with its verdict: FastFlow's own, and the others.

    >>> GapPage(pd.DataFrame(), pd.DataFrame()).own.empty
    True
    """

    own: pd.DataFrame
    others: pd.DataFrame
    damaged: tuple[str, ...] = ()

    def opening(self) -> Html:
        """Say what came out in words, after what is wrong with records that are left out."""
        left_out = [
            f"> A record is **damaged** and left out: {in_markdown(d)}" for d in self.damaged
        ]
        return prose("\n\n".join([*left_out, tables.gap_opening(self.own, self.others)]))

    def forest(self) -> Plate | Html:
        """Draw ours minus published for whatever can be judged."""
        every = pd.concat([self.own, self.others])
        judged = every[every["verdict"].isin(JUDGED)]
        if judged.empty:
            return prose("*Nothing that can be judged has been run.*")
        columns = ["by", "table", "setting", "backbone", "category", "metric", "value", "ours",
                   "low", "high", "gap", "seeds", "verdict"]  # fmt: skip
        caption = (
            "Ours minus published with the 95 % interval over seeds. Colours: "
            f"{', '.join(f'{v} ({n})' for v, n in judged['verdict'].value_counts().items())}."
        )
        records = "Drawn from every record in this folder's runs."
        panel = plots.gap_forest(judged)
        return Plate("gap", [panel], caption, records, judged[columns], wide=True)

    def counts(self) -> Board:
        """Count the verdicts on reproductions and compared methods."""
        by = self.others.groupby(["by", "method", "backbone"], sort=False)["verdict"]
        table = by.value_counts().unstack(fill_value=0)
        return from_frame("gap-counts", "Verdicts by source", table)


def read(results: str | Path) -> GapPage:
    """Judge every published figure by a folder of results."""
    damaged: list[InputError] = []
    records = read_records(Path(results), damaged=damaged.append)
    table = gaps(ledger(), records, tables.accepted_counts())
    own = table[(table["by"] == "FastFlow") & (table["method"] == "FastFlow")]
    return GapPage(own, table.drop(own.index), tuple(map(str, damaged)))

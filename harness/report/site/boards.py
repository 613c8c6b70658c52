"""Tables of a page: sortable, aligned by their digits, and offered as CSV, LaTeX and Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pandas as pd

from harness.escape import in_csv, in_latex, in_markdown
from harness.report.names import Name
from harness.report.site.markup import Html, download, part

DASH = "–"  # for what does not exist


@dataclass(frozen=True)
class Column:
    """Head a column.

    Attributes:
        name: what stands above it.
        words: whether it holds text, and stands to the left.
        says: what its name leaves open.

    >>> Column("image AUROC").words
    False
    """

    name: str
    words: bool = False
    says: str = ""


@dataclass(frozen=True)
class Cell:
    """Hold what stands in one place of a table.

    Attributes:
        text: as it is shown.
        value: what it is sorted by and downloaded as; None: the text.
        spread: of the figure, as text; empty for none.
        bar: where (low, mean, high) lie on the column's scale, in %; empty for none.
        variant: a name that is shown in place of the text.
        best: whether it is the best of its column.
        look: a class of the page's style.
        says: more, when it is pointed at.

    >>> Cell("97.0", 97.02, spread="0.4").written
    '97.0 ± 0.4'
    """

    text: str = ""
    value: float | str | None = None
    spread: str = ""
    bar: tuple[float, float, float] | tuple[()] = ()
    variant: Name | None = None
    best: bool = False
    look: str = ""
    says: str = ""

    @property
    def sort(self) -> float | str | None:
        """Give what the column is sorted by: nothing for what is not known."""
        if isinstance(self.value, float) and not isfinite(self.value):
            return ""
        return "" if self.text == DASH and self.value is None else self.value

    @property
    def written(self) -> str:
        """Give it as text alone."""
        if self.variant:
            marks = ", ".join(self.variant.marks)
            return self.variant.text + (f" ({marks})" if marks else "")
        return f"{self.text} ± {self.spread}" if self.spread else self.text


@dataclass(frozen=True)
class Board:
    r"""Hold a table.

    Attributes:
        name: of the files that it is downloaded as.
        title: what it shows, for those who do not see it.
        columns: their heads; the first one names the rows.
        rows: of as many cells.
        caption: what must be known to read it.
        sortable: whether a press on a column's name sorts by it.
        shown: those of the rows that stand on the page, where the downloads have more; None: all.

    >>> board = Board("b", "B", (Column("variant", words=True),), [[Cell("base")]])
    >>> board.as_csv()
    'variant\nbase\n'
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = True
    shown: Sequence[Sequence[Cell]] | None = None

    def _repr_html_(self) -> str:
        return str(part("table", self))

    def __html__(self) -> str:
        """Give the table as a part of a page."""
        return self._repr_html_()

    def __repr__(self) -> str:
        """Say no more than that: a notebook keeps it beside the HTML."""
        return f"<Board {self.name}>"

    @property
    def html(self) -> Html:
        """Give the table as a part of a page."""
        return Html(self._repr_html_())

    @property
    def downloads(self) -> list[tuple[str, str, str]]:
        """List the forms to download: suffix, words, link."""
        return [
            ("csv", "CSV", download(self.as_csv(), "text/csv")),
            ("tex", "LaTeX", download(self.as_latex(), "application/x-tex")),
            ("md", "Markdown", download(self.as_markdown(), "text/markdown")),
        ]

    def as_csv(self) -> str:
        """Write it as CSV, figures with all their digits, and a column for every spread."""
        data: dict[str, list[Any]] = {}
        for i, column in enumerate(self.columns):
            cells = [row[i] for row in self.rows]
            data[column.name] = [_value(c) for c in cells]
            if any(c.spread for c in cells):
                data[f"{column.name} sd"] = [c.spread for c in cells]
        return as_csv(pd.DataFrame(data))

    def as_markdown(self) -> str:
        """Write it in Markdown."""
        heads = [in_markdown(c.name) for c in self.columns]
        rule = ["---" if c.words else "---:" for c in self.columns]
        rows = [[in_markdown(c.written) for c in row] for row in self.rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *rows))

    def as_latex(self) -> str:
        """Write it in LaTeX, for the package booktabs."""
        form = "".join("l" if c.words else "r" for c in self.columns)
        heads = " & ".join(in_latex(c.name) for c in self.columns)
        rows = [
            " & ".join(rf"\textbf{{{in_latex(c.written)}}}" if c.best else in_latex(c.written)
                       for c in row) + r" \\"
            for row in self.rows
        ]  # fmt: skip
        lines = (
            rf"\begin{{tabular}}{{{form}}}", r"\toprule", rf"{heads} \\", r"\midrule", *rows,
            r"\bottomrule", r"\end{tabular}",
        )  # fmt: skip
        return "\n".join(lines) + "\n"


def from_frame(name: str, title: str, table: pd.DataFrame, caption: str = "") -> Board:
    """Make a board of a table whose cells are as they are shown; its index names the rows.

    >>> table = pd.DataFrame({"n": [2]}, index=pd.Index(["a"], name="kind"))
    >>> from_frame("t", "T", table).as_markdown().splitlines()[-1]
    '| a | 2 |'
    """
    table = table.reset_index()
    words = [not pd.api.types.is_numeric_dtype(table[c]) for c in table.columns]
    columns = [Column(_joined(c), words=w) for c, w in zip(table.columns, words, strict=True)]
    rows = [[_shown(v) for v in row] for row in table.to_numpy(dtype=object)]
    return Board(name, title, columns, rows, caption)


def _joined(name: object) -> str:
    return ": ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _shown(value: Any) -> Cell:  # noqa: ANN401
    if pd.isna(value):
        return Cell(DASH)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(f"{value:g}" if number else str(value), float(value) if number else None)


def as_csv(table: pd.DataFrame) -> str:
    r"""Write a table as CSV; text that a spreadsheet would take for a formula is quoted.

    >>> as_csv(pd.DataFrame({"a": ["=1+1", "b"]}))
    "a\n'=1+1\nb\n"
    """
    return in_csv(map(str, table.columns), table.itertuples(index=False))


def figures(values: Sequence[float], spreads: Sequence[float] = (), *, digits: int = 1,
            best: bool = True, says: Sequence[str] = ()) -> list[Cell]:  # fmt: skip
    """Write a column of figures with their spreads as bars on one scale, and mark the best.

    Args:
        values: as they are shown; nan for what does not exist.
        spreads: standard deviations; none, or as many.
        digits: after the point.
        best: whether the largest is marked.
        says: what each figure says when it is pointed at; none, or as many.

    >>> [c.text for c in figures([97.02, nan])], figures([1.0, 2.0])[1].best
    (['97.0', '–'], True)
    """
    barred, spreads = len(spreads) > 0, list(spreads) or [nan] * len(values)
    ends = [
        (v - (s if isfinite(s) else 0), v + (s if isfinite(s) else 0))
        for v, s in zip(values, spreads, strict=True)
        if isfinite(v)
    ]
    low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=1.0)
    shown = [round(v, digits) for v in values if isfinite(v)]
    most = max(shown) if best and len(set(shown)) > 1 else nan
    cells = []
    for i, (value, spread) in enumerate(zip(values, spreads, strict=True)):
        if not isfinite(value):
            why = says[i] if says else ""
            cells.append(Cell(why.partition(":")[0] or DASH, nan, says=why))
            continue
        sd = spread if isfinite(spread) else 0.0
        at = [100 * (v - low) / (high - low) if high > low else 50.0
              for v in (value - sd, value, value + sd)]  # fmt: skip
        cells.append(
            Cell(
                f"{value:.{digits}f}", round(float(value), 6),
                spread=f"{spread:.{digits}f}" if isfinite(spread) else "",
                bar=(round(at[0], 1), round(at[1], 1), round(at[2], 1)) if barred else (),
                best=round(value, digits) == most, says=says[i] if says else "",
            )
        )  # fmt: skip
    return cells


def _value(cell: Cell) -> object:
    if cell.variant:
        return cell.variant.full
    return cell.written if cell.value is None else cell.value

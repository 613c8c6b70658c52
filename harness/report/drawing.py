"""Charts as they stand on a page: drawings whose text is text, in the page's own colours.

Names come in every script, and no font that comes along has them all; a browser finds its own,
joins Arabic letters, and lets words be found and copied. Colours of the palette become the page's
variables, so that one drawing serves light and dark.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.report.names import Name
from harness.report.site.boards import as_csv
from harness.report.site.markup import Html, download, part
from harness.report.site.palette import replacements

MEASURED_BY = ("DejaVu Sans", "Last Resort High-Efficiency")  # the second one has every sign
UNSEEN = "\u200b"  # a space without width
SETTINGS: Any = {
    "font.family": MEASURED_BY,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",  # the same figure is the same text
    "text.parse_math": False,  # a name may hold $
}


@dataclass(frozen=True)
class Panel:
    """Hold one chart with what it says to those who do not see it.

    >>> Panel(Figure(), "AUROC", "Two bars.").title
    'AUROC'
    """

    figure: Figure
    title: str
    says: str

    @property
    def svg(self) -> Html:
        """Draw it."""
        return Html(as_svg(self.figure, self.title, self.says))


@dataclass(frozen=True)
class Plate:
    """Hold a figure of a page: small charts side by side, with their caption, records and data.

    Attributes:
        name: of the file that its data are downloaded as.
        panels: the charts.
        caption: what is seen.
        records: which records it is drawn from.
        data: what is drawn, a row each.
        key: the variants' colours, where the charts do not name them.
        wide: whether a chart takes the page's whole width.

    >>> Plate("p", [], "Nothing.", "no records", pd.DataFrame()).downloads[0][1]
    'Data as CSV'
    """

    name: str
    panels: Sequence[Panel]
    caption: str
    records: str
    data: pd.DataFrame
    key: Sequence[Name] = field(default=())
    wide: bool = False

    def _repr_html_(self) -> str:
        return str(part("figure", self))

    def __html__(self) -> str:
        """Give the figure as a part of a page."""
        return self._repr_html_()

    def __repr__(self) -> str:
        """Say no more than that: a notebook keeps it beside the HTML."""
        return f"<Plate {self.name}>"

    @property
    def downloads(self) -> list[tuple[str, str, str]]:
        """List the forms to download: suffix, words, link."""
        return [("csv", "Data as CSV", download(as_csv(self.data), "text/csv"))]


def shown(name: str) -> str:
    """Write a name so that a legend has it: matplotlib leaves out what begins with ``_``.

    >>> shown("nut"), shown("_nut").endswith("_nut")
    ('nut', True)
    """
    return f"{UNSEEN}{name}" if name.startswith("_") else name


def as_svg(figure: Figure, title: str, says: str) -> str:
    """Draw a figure as SVG that stands in a page, text as text and colours as the page's.

    Args:
        figure: drawn in the colours of :mod:`harness.report.site.palette`.
        title: its name.
        says: what it shows, for those who do not see it.

    >>> with mpl.rc_context(SETTINGS):
    ...     figure = Figure(figsize=(2, 1))
    ...     text = figure.text(0, 0, "漢字 & $", color="#1d1c1a")
    ...     drawn = as_svg(figure, "a < b", "Signs.")
    >>> re.findall("<text[^>]*>(.*)</text>", drawn), "var(--ink)" in drawn
    (['漢字 &amp; $'], True)
    >>> drawn[drawn.index("<title>"):][:29]
    '<title>a &lt; b</title><desc>'
    """
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    file = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        if layout := figure.get_layout_engine():  # done once: to save would draw all twice for it
            FigureCanvasSVG(figure)
            figure.dpi = 72  # SVG's points: text is measured as it is drawn
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    text = file.getvalue().decode()
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # for every element
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font(?:-family)?: [^;\"]*(?=[;\"])", _font, text)
    text = text.replace(UNSEEN, "")
    for drawn, named in replacements().items():
        text = text.replace(drawn, named)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)  # hundredths of a point are seen by nobody
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", text)  # of no use, and the same in every drawing
    text = re.sub(r"\n\s*", "\n", text)
    _, size, rest = re.split(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', text, maxsplit=1)
    label, about = html.escape(title), html.escape(says)
    return (
        f'<svg role="img" aria-label="{label}. {about}" {size} '
        'style="stroke-linejoin: round; stroke-linecap: butt">'  # what the style said
        f"<title>{label}</title><desc>{about}</desc>{rest[: rest.rindex('</svg>')].strip()}</svg>"
    )


def _font(found: re.Match[str]) -> str:
    """The size alone: the page has its own fonts."""
    size = re.search(r"[\d.]+px", found[0])
    return f"font-size: {size[0]}" if size else "font-family: inherit"

"""Figures as they stand on a page: drawings whose text is text, which the reader's fonts draw.

Names come in every script, and no font that comes along has them all; a browser finds its own,
joins Arabic letters, and lets words be found and copied.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure

MEASURED_BY = ("DejaVu Sans", "Last Resort High-Efficiency")  # the second one has every sign
UNSEEN = "\u200b"  # a space without width
SETTINGS: Any = {
    "font.family": MEASURED_BY,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",  # the same figure is the same text
    "text.parse_math": False,  # a name may hold $
}


def draw_text_as_text() -> None:
    """Let matplotlib keep text as it is, and a notebook show figures by :func:`as_html`."""
    mpl.rcParams.update(SETTINGS)
    shell: Any = get_ipython()
    if shell:
        shell.display_formatter.formatters["text/html"].for_type(Figure, as_html)


def shown(name: str) -> str:
    """Write a name so that a legend has it: matplotlib leaves out what begins with ``_``.

    >>> shown("nut"), shown("_nut").endswith("_nut")
    ('nut', True)
    """
    return f"{UNSEEN}{name}" if name.startswith("_") else name


def as_html(figure: Figure) -> str:
    """Draw a figure as SVG that can stand in a page, photos as pixels and text as text.

    Args:
        figure: made after :func:`draw_text_as_text`; it is as wide as its dots an inch say, and
            no wider than the page.

    >>> from matplotlib.figure import Figure
    >>> with mpl.rc_context(SETTINGS):
    ...     figure = Figure(figsize=(2, 1))
    ...     text = figure.text(0, 0, "漢字 & $")
    ...     print(re.findall("<text[^>]*>(.*)</text>", as_html(figure)))
    ['漢字 &amp; $']
    """
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    file = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(file, format="svg", metadata=nothing, dpi=figure.dpi)
    text = file.getvalue().decode()
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # for every element
    text = text.replace(repr(MEASURED_BY[1]), "sans-serif").replace(UNSEEN, "")
    _, size, rest = re.split(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', text, maxsplit=1)
    width = float(size.split()[2]) / 72 * figure.dpi
    look = f"width: {width:.0f}px; max-width: 100%; height: auto"
    joins = "stroke-linejoin: round; stroke-linecap: butt"  # what the style said
    return f'<svg role="img" {size} style="{look}; {joins}">{rest}'

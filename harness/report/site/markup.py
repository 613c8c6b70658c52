"""HTML that is safe by its making: parts are templates, and every value in them is escaped."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


@dataclass(frozen=True, repr=False)
class Html:
    """Hold a piece of a page; a notebook shows it as it is.

    >>> Html("<b>") + Html("</b>") == Html("<b></b>"), str(Html("<i>"))
    (True, '<i>')
    """

    text: str

    def __str__(self) -> str:
        """Give the HTML."""
        return self.text

    def __html__(self) -> str:
        """Give the HTML, to a template that would escape text."""
        return self.text

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        """Say no more than that: a notebook keeps it beside the HTML."""
        return "<Html>"

    def __add__(self, other: "Html") -> "Html":
        """Put one piece behind the other."""
        return Html(self.text + other.text)


@cache
def _parts() -> Any:  # noqa: ANN401
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("parts.html.j2").module


def part(name: str, *values: object) -> Html:
    """Fill one of the parts of ``parts.html.j2``.

    >>> part("command", "a < b").text[:39]
    '<div class="command"><code>a &lt; b</co'
    """
    return Html(str(getattr(_parts(), name)(*values)))


def block(name: str, /, **values: object) -> Html:
    """Fill a template of this folder that is a whole block of a page."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return Html(environment.get_template(f"{name}.html.j2").render(values))


def prose(markdown: str, known: Mapping[str, Any] | None = None) -> Html:
    """Turn sentences in Markdown into HTML, variants by their short names.

    Args:
        markdown: with names written by :func:`harness.escape.in_markdown`.
        known: label → :class:`harness.report.names.Name`.

    >>> prose("**a** b").text
    '<p><strong>a</strong> b</p>'
    """
    from nbconvert.filters import markdown2html

    text = str(markdown2html(markdown)).strip()
    text = re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", text)
    for label in sorted(known or {}, key=len, reverse=True):
        name = (known or {})[label]
        if "=" in label and name.text != label:
            found = rf"(?<![\w=>\"]){re.escape(label)}(?![\w=-]|[.,]\w)"
            shown = str(part("variant", replace(name, colour="", marks=())))
            text = shown.join(re.split(found, text))
    return Html(text)


def section(title: str, *, level: int = 2) -> Html:
    """Write a heading that can be linked to.

    >>> section("What it costs").text
    '<h2 id="what-it-costs">What it costs</h2>'
    """
    anchor = re.sub(r"\W+", "-", title.lower()).strip("-") or "section"
    return block("heading", title=title, anchor=anchor, level=level)


def download(content: str, kind: str) -> str:
    """Make a link that holds a file's content.

    >>> download("a", "text/csv")
    'data:text/csv;charset=utf-8;base64,YQ=='
    """
    data = b64encode(content.encode("utf-8", "surrogatepass")).decode()
    return f"data:{kind};charset=utf-8;base64,{data}"


def joined(pieces: Sequence[Html]) -> Html:
    """Put pieces one behind the other."""
    return Html("\n".join(p.text for p in pieces))

"""Names in other languages: what somebody called a folder stays a name wherever it is written.

A category, a defect or a file may be named ``<script>``, ``a|b``, ``$(rm -r .)`` or ``=1+1``, and
hold newlines and what a terminal takes for orders. Whatever writes a name asks here; JSON and SVG
are written by libraries that do the same.
"""

import csv
import io
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TextIO

# What orders text from right to left, unseen: with it a name can be read as another.
UNSEEN = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ORDERS = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{UNSEEN}]")
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "\u00a0": "~",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def in_line(text: str) -> str:
    r"""Write a text so that it is one line and nothing but text: orders to a terminal are shown.

    >>> print(in_line("a\nb\x1b[2J \u202egnp"))
    a b\x1b[2J \u202egnp
    """
    return ORDERS.sub(_shown, " ".join(text.splitlines()))


def in_markdown(text: str) -> str:
    """Write a text so that Markdown shows it as it is, in a table too.

    >>> in_markdown("a|b <c> *d* `e`"), in_markdown("metal_nut, kernels=3,1")
    ('a&#124;b &#60;c&#62; &#42;d&#42; &#96;e&#96;', 'metal_nut, kernels=3,1')
    """
    special = (
        r"[|<>*`$~&\\]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])"  # a _ within a word is no emphasis
    )
    return re.sub(special, lambda found: f"&#{ord(found[0])};", in_line(text))


def in_latex(text: str) -> str:
    r"""Write a text so that LaTeX sets it as it is.

    >>> print(in_latex(r"$\frac{$ 50%"))
    \$\textbackslash{}frac\{\$ 50\%
    """
    return "".join(LATEX.get(sign, sign) for sign in in_line(text))


def in_shell(words: Iterable[object]) -> str:
    """Write words as a command that a person can copy into a shell.

    >>> in_shell(["harness", "train", "--category", "$(rm -r .)"])
    "harness train --category '$(rm -r .)'"
    """
    return shlex.join(map(str, words))


def in_csv(header: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Write a table of CSV in which no text is a formula: it gets an apostrophe before it.

    >>> in_csv(["name", "points"], [["=1+1", -0.5]])
    "name,points\n'=1+1,-0.5\n"
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows([_no_formula(value) for value in row] for row in rows)
    return text.getvalue()


def _no_formula(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return "" if value != value else value  # nan: nothing, as None


def _shown(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


class OnTerminal:
    r"""Write to a stream what is text; of orders to a terminal only new lines and tabs are kept.

    It is a net: whatever prints a name into a line writes it by :func:`in_line`.

    >>> import sys
    >>> print("cle\x1b[2Jar", file=OnTerminal(sys.stdout))
    cle\x1b[2Jar
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text; returns how many characters of it."""
        kept = (c if c in "\n\t" else _shown(m) if (m := ORDERS.match(c)) else c for c in text)
        self.stream.write("".join(kept) if ORDERS.search(text) else text)
        return len(text)

    def __getattr__(self, name: str) -> object:
        """Be the stream in all else."""
        return getattr(self.stream, name)

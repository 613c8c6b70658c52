"""docs/api.md, made from docstrings: ``python -m harness.cli.api docs/api.md``."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

HEADER = """\
# In Python

What the commands do is a few functions, listed here by what one wants to do. This page is made
from their docstrings: `python -m harness.cli.api docs/api.md`. The examples in it are run by the
tests.

"""
BLOCK = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
ENTRY = re.compile(r"^    (\w+|\*\w+): ")
WIDE = 95  # characters of a line of code


class Section(NamedTuple):
    """Hold a part of the page: its heading, what to know first, and what it lists.

    Attributes:
        heading: of the second level.
        says: what to know first.
        entries: ``module:name``, or ``module:Class`` and names of its methods after it.
    """

    heading: str
    says: str
    entries: tuple[str, ...]


SECTIONS = (
    Section(
        "From photos to a detector",
        "`from harness import Detector, fit` is enough to learn from a folder of good photos and "
        "to score new ones; [detect.md](detect.md) says what the thresholds promise.",
        (
            "harness:fit",
            "harness:Detector load __call__ save set_rates set_interest",
            "harness.detect.parts:Prediction",
            "harness.detect.threshold:Threshold",
            "harness.detect.region:Interest read",
        ),
    ),
    Section(
        "Heat maps of new photos",
        "What `harness predict` and `harness export` do.",
        (
            "harness.detect.predict:sources_of",
            "harness.detect.predict:predict",
            "harness.detect.predict:Finding",
            "harness.detect.overlay:on_photo",
            "harness.detect.overlay:regions",
            "harness.detect.overlay:overlay",
            "harness.detect.export:export",
        ),
    ),
    Section(
        "A study",
        "A study lists variants; a plan has a cell for every variant, category and seed; running "
        "it leaves a record for each. What is recorded is never trained again.",
        (
            "harness.experiment.variant:Variant replace changes",
            "harness.studies:get_study",
            "harness.studies.outside:load_study",
            "harness.experiment.study:Study where set only",
            "harness.experiment.study:one_factor",
            "harness.experiment.settings:Settings",
            "harness.run.plan:make_plan",
            "harness.run.sweep:run_study",
            "harness.run.sweep:Outcome",
            "harness.detect.make:make_detector",
        ),
    ),
    Section(
        "Records as tables",
        "Records are files of JSON; tables of pandas are made of them, and nothing is trained. "
        "Metrics are shares, not %.",
        (
            "harness.report.selection:select",
            "harness.report.selection:Selection",
            "harness.report.tables:runs",
            "harness.report.tables:summary",
            "harness.report.tables:epochs",
            "harness.report.tables:by_defect",
            "harness.report.images:images",
            "harness.report.answer:answer",
            "harness.report.best:best",
            "harness.report.best:Best",
            "harness.experiment.store:read_records",
            "harness.experiment.store:read_record",
        ),
    ),
    Section(
        "What is raised",
        "Both hold one line with what was expected, what came and what to do.",
        ("harness.errors:InputError", "harness.errors:RunFailed"),
    ),
)


def as_markdown() -> str:
    """Write the page as docs/api.md has it."""
    parts = [HEADER]
    for section in SECTIONS:
        parts.append(f"## {section.heading}\n\n{textwrap.fill(section.says, 99)}\n\n")
        parts += [part for entry in section.entries for part in _entry(entry)]
    return "".join(parts).rstrip() + "\n"


def _entry(entry: str) -> Iterator[str]:
    """A function; or a class, and those of its methods that are named after it."""
    where, *methods = entry.split()
    module, _, name = where.partition(":")
    described = getattr(import_module(module), name)
    yield f"### {name}\n\n```python\nfrom {module} import {name}\n{_signature(described, name)}"
    yield f"```\n\n{_rendered(described)}\n"
    for method in methods:
        one = inspect.getattr_static(described, method)
        made = isinstance(one, classmethod | staticmethod)
        call = name if made else name.lower()
        call += "" if method == "__call__" else f".{method}"
        one = one.__func__ if made else one
        yield f"#### {name}.{method}\n\n```python\n{_signature(one, call)}```\n\n"
        yield f"{_rendered(one)}\n"


def _signature(described: object, called: str) -> str:
    """How it is called, as its source has it; nothing of a class whose attributes say it."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(described))).body  # type: ignore[arg-type]
    if isinstance(node, ast.ClassDef):
        made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not made:
            return ""
        node = made[0]
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    if given.args and given.args[0].arg in ("self", "cls"):
        given.args = given.args[1:]
    returned = (
        f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    )
    line = f"{called}({ast.unparse(given)}){returned}"
    if len(line) <= WIDE:
        return f"{line}\n"
    broken = ",\n    ".join(_split(ast.unparse(given)))
    return f"{called}(\n    {broken},\n){returned}\n"


def _split(arguments: str) -> list[str]:
    """Arguments at the commas between them."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _rendered(described: object) -> str:
    """A docstring of Google's style as Markdown."""
    lines, out = (inspect.getdoc(described) or "").splitlines(), [""]
    block = code = ""
    for line in lines:
        if line.startswith(">>> ") and not code:
            code = "```"
            out.append("```pycon")
        if code and not line:
            out.append(code)
            code = ""
        if found := BLOCK.match(line):
            block = found[1]
            out += [f"**{block}**", ""] if out[-1] == "" else ["", f"**{block}**", ""]
        elif code:
            out.append(line)
        elif line.startswith("    ") and block:
            out.append(_plain(ENTRY.sub(r"- `\1`: ", line)).strip())
        else:
            block = block if not line else ""
            out.append(_plain(line))
    return "\n".join([*out, *filter(None, [code])]).strip() + "\n"


def _plain(text: str) -> str:
    """Roles and literals of reStructuredText as Markdown's code."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")

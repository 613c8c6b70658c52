"""Pages of the site made in this process: a kernel takes seconds, and these are many."""

import json
from dataclasses import asdict

import IPython.display
import nbformat

from harness.bundled import bundled
from harness.report import pages
from harness.report.pages import Made


def cells(notebook):
    source = bundled("notebooks", f"{notebook}.ipynb")
    return [c for c in json.loads(source.read_text())["cells"] if c["cell_type"] == "code"]


def displayed(monkeypatch, notebook, results, **given):
    """What a notebook displays, a list a cell."""
    shown, parts = [], []
    monkeypatch.setattr(IPython.display, "display", lambda *objects: shown.extend(objects))
    first, *rest = ("".join(c["source"]) for c in cells(notebook))
    names = {}
    exec(first, names)
    names |= {"results": str(results), **given}
    for source in rest:
        shown.clear()
        exec(source, names)
        parts.append([part._repr_html_() for part in shown])
    return parts


def render(monkeypatch, notebook, name, results, made=None, **given):
    """Write the page that a kernel would."""
    book = nbformat.v4.new_notebook()
    for parts in displayed(monkeypatch, notebook, results, **given):
        data = [nbformat.v4.new_output("display_data", {"text/html": p}) for p in parts]
        book.cells.append(nbformat.v4.new_code_cell(outputs=data))
    book.metadata["harness"] = asdict(made or Made("Why?", "harness report", name))
    book.metadata["papermill"] = {"parameters": {"results": str(results), **given}}
    reports = results / "reports"
    reports.mkdir(exist_ok=True)
    file = reports / f"{name}.ipynb"
    file.write_text(nbformat.writes(book))
    return pages.to_html(file)

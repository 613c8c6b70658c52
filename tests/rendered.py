"""Pages of the site, and what their notebooks display."""

import json

import papermill

from harness.bundled import bundled
from harness.report import engine, pages
from harness.report.pages import Made


def cells(notebook):
    source = bundled("notebooks", f"{notebook}.ipynb")
    return [c for c in json.loads(source.read_text())["cells"] if c["cell_type"] == "code"]


def displayed(notebook, results, **given):
    """What a notebook displays, a list a cell."""
    source = str(bundled("notebooks", f"{notebook}.ipynb"))
    executed = papermill.execute_notebook(
        source, None, {"results": str(results), **given}, engine_name=engine.NAME,
        kernel_name="python3", progress_bar=False,
    )  # fmt: skip
    return [[o.data["text/html"] for o in c.outputs] for c in executed.cells if "outputs" in c]


def render(notebook, name, results, made=None, **given):
    """Write a page."""
    parameters = {"results": str(results), **given}
    made = made or Made("Why?", "harness report", name)
    return pages.execute(notebook, name, results / "reports", parameters, made=made)

"""Reports: a notebook executed on the records by papermill, as .ipynb, HTML and an index."""

import html
import json
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from harness.bundled import bundled
from harness.errors import InputError, unknown
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.files import write_whole
from harness.studies import definition, get_study

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>fastflow-harness reports</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto; color: #222 }}
 li {{ margin: 1rem 0 }} small {{ color: #666 }}
</style>
<h1>Reports</h1>
<p>Executed notebooks; each reads the run records and trains nothing.</p>
<ul>
{items}
</ul>
</html>
"""
ITEM = '<li><a href="{file}">{name}</a> <small>{when}</small><br>{asks}</li>'


LONGEST = 100  # characters of a page's name, without its suffix

# Notebooks of some studies; every other study's is ``ablations``.
NOTEBOOKS = {
    "methods": "methods",
    "table1": "table1_complexity",
    "table2": "table_by_category",
    "table3": "table_by_category",
    "table4": "table_by_category",
}
# Notebooks that are no study's, and what they ask.
PAGES = {
    "parameters": "Which reading of the paper gives its parameter counts?",
    "gap": "How far are our figures from the published ones?",
}


def write_report(
    study: str, results: Path, chosen: Mapping[str, Any], only: Sequence[str] = ()
) -> Path:
    """Execute a study's notebook.

    Args:
        study: its name, or the absolute path of its file.
        results: the folder with the records; the report goes to ``results/reports``.
        chosen: the options of :func:`harness.studies.get_study`, with dataset and categories.
        only: the categories that were asked for by name.

    Returns:
        The HTML page.
    """
    asked = _asked(study, chosen)
    name = page_name(asked, chosen, only)
    given = {"study": study, **chosen}
    return _write(NOTEBOOKS.get(study, "ablations"), name, results, given, asked.asks)


def write_qualitative(
    study: str, results: Path, chosen: Mapping[str, Any], only: Sequence[str] = ()
) -> Path:
    """Execute ``notebooks/qualitative.ipynb`` for a study: images, masks and maps."""
    asked = _asked(study, chosen)
    name = f"qualitative-{page_name(asked, chosen, only)}"
    given = {"study": study, **chosen}
    return _write("qualitative", name, results, given, asked.asks)


def page_name(study: Study, chosen: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """Name a page after its study and what was asked of it, so that none overwrites another.

    The name is cut where it is long; its last eight digits tell requests apart.

    >>> from harness.studies import STUDIES
    >>> page_name(STUDIES["surfaces"], {"dataset": "plates", "seeds": [0, 1]})[:-10]
    'surfaces--data=plates--seed=0,1'
    """
    own, dataset = definition(study) or study, chosen.get("dataset")
    asked: dict[str, Any] = {
        "data": [dataset] if dataset and dataset != own.dataset else [],
        "category": list(only),
        "variant": list(chosen.get("variants") or ()),
        **{f"where-{k}": [show(v)] for k, v in (chosen.get("where") or {}).items()},
        **{k: [show(v)] for k, v in (chosen.get("set") or {}).items()},
        "seed": [str(seed) for seed in chosen.get("seeds") or ()],
    }
    said = {name: values for name, values in asked.items() if values}
    if not said:
        return study.name
    parts = (f"{name}={','.join(values)}" for name, values in said.items())
    name = re.sub(r"[^A-Za-z0-9_.,=-]+", "-", "--".join([study.name, *parts]))[:LONGEST]
    exact = json.dumps([study.source, study.name, said])
    return f"{name}--{sha256(exact.encode(errors='surrogateescape')).hexdigest()[:8]}"


def write_page(name: str, results: Path) -> Path:
    """Execute a notebook that is no study's: a key of :data:`PAGES`."""
    return _write(name, name, results, {}, PAGES[name])


def _asked(study: str, chosen: Mapping[str, Any]) -> Study:
    """The study that a notebook's options name."""
    return get_study(
        study, **{k: v for k, v in chosen.items() if k not in ("dataset", "categories")}
    )


def _write(notebook: str, name: str, results: Path, chosen: Mapping[str, Any], asks: str) -> Path:
    parameters = {"results": str(results.resolve()), **_plain(chosen)}
    page = execute(notebook, name, results / "reports", parameters, asks=asks)
    write_index(results / "reports")
    return page


def execute(
    notebook: str, name: str, reports: Path, parameters: Mapping[str, Any], *, asks: str = ""
) -> Path:
    """Execute a notebook with parameters; writes ``<name>.ipynb`` and ``<name>.html``.

    The question that it answers, ``asks``, is kept in its metadata, for the index.

    Raises:
        InputError: a parameter that the notebook does not declare, which papermill would only
            warn of; or what went wrong inside it. No page is written then.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from harness.report.kernel import own_kernel

    source = bundled("notebooks", f"{notebook}.ipynb")
    template = str(source).replace("{", "{{").replace("}", "}}")  # papermill fills in others
    declared = papermill.inspect_notebook(template)
    for key in parameters:
        if key not in declared:
            raise unknown(f"parameter of {source.name}", key, declared)
    reports.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of papermill's own use of its libraries
        try:
            executed = papermill.execute_notebook(
                template, None, dict(parameters), kernel_name="python3", progress_bar=False,
                cwd=str(reports), extra_arguments=["--IPKernelApp.log_level=50"],
                kernel_manager_class=own_kernel(Path(folder)),
            )  # fmt: skip
        except PapermillExecutionError as error:
            what = "" if error.ename == "InputError" else f"{error.ename}: "
            raise InputError(f"report {name}: {what}{error.evalue}") from None
        except RuntimeError as error:  # the kernel died, or never began
            raise InputError(f"report {name}: {error} (out of memory?); start it again") from None
    executed.metadata["harness"] = {"asks": asks}
    final = reports / f"{name}.ipynb"
    write_whole(final, nbformat.writes(executed) + "\n")
    return to_html(final)


def to_html(notebook: Path) -> Path:
    """Make a page of the executed notebook, without its code."""
    from jupyter_core.paths import jupyter_path
    from nbconvert import HTMLExporter

    # First the templates that came with it; JUPYTER_PATH may hold another version's.
    roots = [str(Path(sys.prefix, "share", "jupyter")), *jupyter_path()]
    exporter: Any = type("Own", (HTMLExporter,), {"get_prefix_root_dirs": lambda self: roots})(
        exclude_input=True, exclude_input_prompt=True
    )
    body, _ = exporter.from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    write_whole(page, body)
    return page


def write_index(reports: Path) -> Path:
    """Write ``index.html`` with every report there is.

    Another process may write one meanwhile, and an index without it: so it is looked at again.
    """
    index, written = reports / "index.html", ""
    while (content := _index(reports)) != written:
        write_whole(index, content)
        written = content
    return index


def _index(reports: Path) -> str:
    items = []
    for page in sorted(p for p in reports.glob("*.html") if p.name != "index.html"):
        if not (source := page.with_suffix(".ipynb")).is_file():
            continue
        asks = _question(source)
        when = datetime.fromtimestamp(page.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
        items.append(
            ITEM.format(
                file=quote(page.name),
                name=html.escape(page.stem),
                when=when,
                asks=html.escape(asks),
            )
        )
    return PAGE.format(items="\n".join(items))


def _question(notebook: Path) -> str:
    """What an executed notebook answers; empty for one that says nothing, or is damaged."""
    try:
        return str(json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["harness"]["asks"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _plain(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a notebook's parameter cell can hold: tuples as lists."""
    return {
        key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
        if isinstance(value, Mapping)
        else value
        for key, value in chosen.items()
    }

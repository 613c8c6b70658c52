"""Reports: notebooks executed on the records by papermill, as .ipynb and as a small static site.

A page is one file of HTML with all that it needs: no script, font, style or picture comes from
elsewhere. ``index.html`` is a notebook too, and looks at the records themselves.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import harness
from harness.bundled import bundled
from harness.errors import InputError, unknown
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.files import cache_folder, write_whole
from harness.report.commands import command
from harness.report.site import palette
from harness.studies import definition, get_study

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
    "protocol": "How was it measured, on what, and what do these figures not say?",
}
INDEX = "index"
ASKS_INDEX = "What was asked, what came out, and what is not known?"


def write_report(
    study: str,
    results: Path,
    chosen: Mapping[str, Any],
    only: Sequence[str] = (),
    *,
    live: bool = False,
) -> Path:
    """Execute a study's notebook.

    Args:
        study: its name, or the absolute path of its file.
        results: the folder with the records; the report goes to ``results/reports``.
        chosen: the options of :func:`harness.studies.get_study`, with dataset and categories.
        only: the categories that were asked for by name.
        live: whether the page loads itself anew, while the study runs.

    Returns:
        The HTML page.
    """
    asked = _asked(study, chosen)
    name = page_name(asked, chosen, only)
    made = Made(asked.asks, _command(study, results, chosen, only), asked.name, live=live)
    return _write(NOTEBOOKS.get(study, "ablations"), name, results, _given(study, chosen), made)


def write_qualitative(
    study: str, results: Path, chosen: Mapping[str, Any], only: Sequence[str] = ()
) -> Path:
    """Execute ``notebooks/qualitative.ipynb`` for a study: images, masks and maps."""
    asked = _asked(study, chosen)
    name = f"qualitative-{page_name(asked, chosen, only)}"
    title = f"{asked.name}: photos and maps"
    made = Made(asked.asks, _command(study, results, chosen, only), title)
    return _write("qualitative", name, results, _given(study, chosen), made)


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
    made = Made(PAGES[name], command("report", results=results), name)
    return _write(name, name, results, {}, made)


@dataclass(frozen=True)
class Made:
    """Hold what a page says of itself.

    Attributes:
        asks: the question that it answers.
        command: what makes it anew.
        title: of the page.
        live: whether it loads itself anew.

    >>> Made("Why?").live
    False
    """

    asks: str
    command: str = ""
    title: str = ""
    live: bool = False


def _asked(study: str, chosen: Mapping[str, Any]) -> Study:
    """The study that a notebook's options name."""
    return get_study(
        study, **{k: v for k, v in chosen.items() if k not in ("dataset", "categories")}
    )


def _given(study: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {"study": study, **chosen}


def _command(
    study: str, results: Path, chosen: Mapping[str, Any], only: Sequence[str]
) -> str:  # fmt: skip
    asked = {k: v for k, v in chosen.items() if k != "categories"}
    return command("report", study, results=results, categories=only, **asked)


def _write(notebook: str, name: str, results: Path, chosen: Mapping[str, Any], made: Made) -> Path:
    parameters = {"results": str(results.resolve()), **_plain(chosen)}
    return execute(notebook, name, results / "reports", parameters, made=made)


def execute(
    notebook: str, name: str, reports: Path, parameters: Mapping[str, Any], *, made: Made
) -> Path:
    """Execute a notebook with parameters; writes ``<name>.ipynb`` and ``<name>.html``.

    What the page says of itself, ``made``, is kept in the notebook's metadata.

    Raises:
        InputError: a parameter that the notebook does not declare, which papermill would only
            warn of; or what went wrong inside it. No page is written then.
    """
    import nbformat
    import papermill

    import_matplotlib()

    from harness.report import engine

    source = bundled("notebooks", f"{notebook}.ipynb")
    template = str(source).replace("{", "{{").replace("}", "}}")  # papermill fills in others
    declared = papermill.inspect_notebook(template)
    for key in parameters:
        if key not in declared:
            raise unknown(f"parameter of {source.name}", key, declared)
    reports.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of papermill's own use of its libraries
        try:
            executed = papermill.execute_notebook(
                template, None, dict(parameters), engine_name=engine.NAME, kernel_name="python3",
                progress_bar=False,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"report {name}: {error}") from error
        except Exception as error:
            what = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
            raise InputError(f"report {name}: {what}: {error}") from error
    executed.metadata["harness"] = asdict(made)
    final = reports / f"{name}.ipynb"
    write_whole(final, nbformat.writes(executed) + "\n")
    return to_html(final)


def import_matplotlib() -> None:
    """Import matplotlib without a person's settings, with its list of fonts where that is kept.

    To make the list takes seconds, and settings are for working by hand.

    Raises:
        InputError: a file of settings in the current folder, which is always read, is none.
    """
    if "matplotlib" in sys.modules:
        return
    kept = cache_folder() / "matplotlib"
    with suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    given = {"MATPLOTLIBRC": os.devnull, "MPLBACKEND": "agg"}
    if os.access(kept, os.W_OK | os.X_OK):
        given["MPLCONFIGDIR"] = str(kept)
    before = {name: os.environ.get(name) for name in given}
    os.environ |= given
    try:
        import matplotlib.font_manager  # noqa: F401
    except ValueError as error:
        raise InputError(
            f"matplotlibrc: expected settings of matplotlib in this folder; got {error}; remove it"
        ) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def to_html(notebook: Path) -> Path:
    """Make a page of the executed notebook by the site's own template."""
    from nbconvert.exporters.templateexporter import TemplateExporter

    site = Path(__file__).parent / "site"
    exporter: Any = TemplateExporter(
        template_name=site.name, extra_template_basedirs=[str(site.parent)],
        template_extension=".html.j2", file_extension=".html",
    )  # fmt: skip
    body, _ = exporter.from_filename(str(notebook), resources={"site": _about(notebook, site)})
    page = notebook.with_suffix(".html")
    write_whole(page, str(body))
    return page


def _about(notebook: Path, site: Path) -> dict[str, Any]:
    """What the template is told beside the cells."""
    said = about(notebook)
    name = notebook.stem
    title = said.get("title") or name
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "name": name, "title": f"{title} · fastflow-harness", "asks": said.get("asks", ""),
        "command": said.get("command", ""), "live": bool(said.get("live")), "made": now,
        "version": harness.__version__,
        "css": palette.as_css() + "\n" + (site / "style.css").read_text(encoding="utf-8"),
        "js": (site / "script.js").read_text(encoding="utf-8"),
    }  # fmt: skip


def write_index(results: Path) -> Path:
    """Write ``reports/index.html`` with what is recorded and every page there is.

    Another process may write a page meanwhile, and an index without it: so it is looked at again.
    """
    reports, seen = results / "reports", None
    while (there := page_names(reports)) != seen:
        made = Made(ASKS_INDEX, command("report", results=results), "Reports")
        index = execute(INDEX, INDEX, reports, {"results": str(results.resolve())}, made=made)
        seen = there
    return index


def page_names(reports: Path) -> list[str]:
    """List the pages that a folder of reports has beside the index."""
    pages = (p.stem for p in reports.glob("*.html") if p.with_suffix(".ipynb").is_file())
    return sorted(name for name in pages if name != INDEX)


def about(notebook: Path) -> dict[str, Any]:
    """Read what a page says of itself; empty for one that says nothing, or is damaged."""
    try:
        said = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
        given = said.get("papermill", {}).get("parameters", {})
        return {**said["harness"], "parameters": given}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _plain(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a notebook's parameter cell can hold: tuples as lists."""
    return {
        key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
        if isinstance(value, Mapping)
        else value
        for key, value in chosen.items()
    }

"""Notebooks: parameters are checked, sources are clean, pages come out whole."""

import base64
import html
import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import ModuleType

import matplotlib
import nbformat
import papermill
import pytest
from handmade import write_run
from IPython.core.interactiveshell import InteractiveShell
from rendered import cells, displayed

from harness import files
from harness.bundled import bundled
from harness.cli import main as cli
from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError
from harness.experiment.place import Place
from harness.paper import gap_page
from harness.report import pages
from harness.report.engine import InProcess
from harness.report.names import readable
from harness.report.pages import Made
from harness.studies import STUDIES, get_study, outside
from harness.studies.paper import CAIT, RESNET18

MADE = Made("Why?")
NOTEBOOKS = sorted(p.stem for p in bundled("notebooks").glob("*.ipynb"))


def test_every_notebook_is_somebodys():
    assert set(NOTEBOOKS) == {
        "table1_complexity", "table_by_category", "ablations",
        "methods", "parameters", "qualitative", "gap", "protocol", "index",
    }  # fmt: skip
    assert set(pages.NOTEBOOKS) <= set(STUDIES)
    assert {*pages.NOTEBOOKS.values(), *pages.PAGES} <= set(NOTEBOOKS)
    assert {*pages.PAGES, "qualitative", "index"} == set(outside.RESERVED)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_sources_have_no_outputs_and_a_parameters_cell(name):
    code = cells(name)
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_never_train(name):
    text = bundled("notebooks", f"{name}.ipynb").read_text()
    for word in (
        "torch",
        "harness.run.job",
        "harness.run.sweep",
        "harness.run.train",
        "run_study",
        "fit(",
    ):
        assert word not in text


@pytest.mark.parametrize("name", sorted(set(pages.NOTEBOOKS.values())))
def test_a_tables_notebook_opens_on_a_study_of_its_own(name):
    declared = {}
    exec("".join(cells(name)[0]["source"]), declared)
    assert pages.NOTEBOOKS[declared["study"]] == name
    assert declared["dataset"] == STUDIES[declared["study"]].dataset
    assert declared["categories"] == []  # all


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name):
    assert all(len(c["source"]) < 10 for c in cells(name))


def test_an_undeclared_parameter_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"unknown parameter of ablations\.ipynb 'studdy'"):
        pages.execute("ablations", "x", tmp_path, {"studdy": "surfaces"}, made=MADE)
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_notebook_is_one_line_and_leaves_no_page(tmp_path):
    given = {"results": str(tmp_path), "study": "table2", "dataset": 3}
    with pytest.raises(InputError, match=r"^report x: AttributeError: .*"):
        pages.execute("table_by_category", "x", tmp_path / "reports", given, made=MADE)
    assert list((tmp_path / "reports").iterdir()) == []


class Undrawn:
    """Stands for a chart that cannot be drawn."""

    def _repr_html_(self):
        raise MemoryError("1 GiB")


def test_what_cannot_be_drawn_leaves_no_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gap_page.GapPage, "forest", lambda page: Undrawn())
    given = {"results": str(tmp_path)}
    with pytest.raises(InputError, match=r"^report x: out of memory: 1 GiB$"):
        pages.execute("gap", "x", tmp_path / "reports", given, made=MADE)
    assert list((tmp_path / "reports").iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path):
    write_run(tmp_path, CAIT, "screw", 0, 0.5)
    write_run(tmp_path, CAIT, "screw", 1, 0.5)
    moved = Place.of(tmp_path, CAIT, "mvtec_ad", "screw", 0).record
    moved.write_text("{")
    text = show("table_by_category", tmp_path)
    assert f"A record is damaged and left out: {moved}: expected a run record" in text
    assert "50.0 (1 seed)" in text
    for other in ("index", "gap"):
        assert f"A record is damaged and left out: {moved}" in show(other, tmp_path)


def test_all_reports_are_written_but_one_that_cannot_be(tmp_path, monkeypatch, capsys):
    written = []

    def write(study, *rest, **more):
        if study == "table2":
            raise InputError("report table2: out of memory")
        written.append(study)

    monkeypatch.setattr(pages, "write_report", write)
    monkeypatch.setattr(pages, "write_page", lambda s, *rest: written.append(s))
    monkeypatch.setattr(pages, "write_index", lambda results: written.append("index"))
    assert cli.main(["report", "--results", str(tmp_path)]) == 2
    assert written == [
        "surfaces", "methods", "table1", "table3", "table4", "parameters", "gap", "protocol",
        "index",
    ]  # fmt: skip
    assert capsys.readouterr().err == "harness: left out: report table2: out of memory\n"


@pytest.mark.parametrize("study", [[], ["surfaces"]])
def test_this_start_is_known_to_live_while_any_page_is_written(tmp_path, monkeypatch, study):
    write, written = files.write_whole, []

    def known(path, content):
        written.append(path.name)
        assert (tmp_path / "claims" / f"{files.token()}.json").is_file(), path
        write(path, content)

    monkeypatch.setattr(pages, "write_whole", known)
    assert cli.main(["report", *study, "--results", str(tmp_path)]) == 0
    assert {"surfaces.html", "index.html"} <= set(written)
    assert list((tmp_path / "claims").iterdir()) == []


def test_two_reports_at_once_each_write_a_whole_page(tmp_path, monkeypatch):
    together = Barrier(2, timeout=20)
    replace = Path.replace

    def both_have_written(path, target):
        together.wait()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", both_have_written)
    monkeypatch.setattr(pages, "to_html", lambda notebook: notebook)
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda source, *rest, **more: nbformat.read(source, 4)
    )
    with ThreadPoolExecutor(2) as pool:
        for page in pool.map(
            lambda asks: pages.execute("gap", "x", tmp_path, {}, made=Made(asks)), "ab"
        ):
            assert json.loads(page.read_text())["metadata"]["harness"]["asks"] in "ab"
    assert [p.name for p in tmp_path.iterdir()] == ["x.ipynb"]


def test_a_page_that_comes_meanwhile_is_in_the_index(tmp_path, monkeypatch):
    reports = tmp_path / "reports"
    reports.mkdir()

    def page(name):
        (reports / f"{name}.ipynb").write_text("damaged" if name == "b" else "{}")
        (reports / f"{name}.html").write_text("")

    page("a")
    seen = []

    def execute(*given, made):
        seen.append(pages.page_names(reports))
        page("b")  # another process's, which wrote the index with it
        return reports / "index.html"

    monkeypatch.setattr(pages, "execute", execute)
    pages.write_index(tmp_path)
    assert seen == [["a"], ["a", "b"]]
    assert pages.about(reports / "b.ipynb") == pages.about(reports / "a.ipynb") == {}


def test_an_unknown_notebook_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"expected notebooks/nothing\.ipynb beside the harness"):
        pages.execute("nothing", "x", tmp_path, {}, made=MADE)


def show(name, results, **given):
    """What a notebook displays, as text."""
    return text_of(displayed(name, results, **given))


def text_of(parts):
    """The words of HTML, a cell of a table or a paragraph a line."""
    page = "\n".join(part for cell in parts for part in cell)
    page = re.sub(r"<svg.*?</svg>", "[figure]", page, flags=re.DOTALL)
    page = re.sub(r"</(td|th|p|li|h.)>", "\n", page)
    words = html.unescape(re.sub(r"<[^>]*>", "", page))
    return "\n".join(line.strip() for line in words.splitlines() if line.strip())


@pytest.mark.parametrize("study", ["table3", "table4"])
def test_the_other_tables_by_category(study, tmp_path):
    dataset = STUDIES[study].dataset
    text = show("table_by_category", tmp_path, study=study, dataset=dataset)
    first = next(iter(PUBLISHED_COUNTS[dataset]))
    assert re.search(rf"^{first}$", text, re.MULTILINE)
    assert "paper" in text
    pixel = text.index("pixel AUROC (%)") if study == "table3" else -1
    assert pixel < text.index("image AUROC (%)")  # what the paper prints comes first


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_renders_on_nothing_and_says_so(name, tmp_path):
    text = show(name, tmp_path)
    said = {
        "parameters": "Answer. No single reading gives all 5",  # needs no run
        "gap": " not run, ",  # parameters are judged without a run
        "protocol": "Nothing has been run yet.",
        "index": "harness run surfaces --results",
    }
    assert said.get(name, "Nothing has been run: every figure of ours is missing.") in text
    assert not re.search(r"\bnan\b", text.lower())


@pytest.fixture
def recorded(tmp_path):
    """The table of MVTec AD whole for ResNet18 with three seeds; one category of CaiT."""
    for i, category in enumerate(PUBLISHED_COUNTS["mvtec_ad"]):
        for seed in range(3):
            write_run(tmp_path, RESNET18, category, seed, 0.97 + 0.001 * (i % 3) + 0.002 * seed)
    write_run(tmp_path, CAIT, "screw", 0, 0.5)
    return tmp_path


def test_table2_on_records(recorded):
    text = show("table_by_category", recorded)
    assert "46 of 405" in text
    assert "97.3 ± 0.2" in text  # the mean of ResNet18: 97.1, 97.3, 97.5
    assert "gathierry, last epoch" in text
    assert "anomalib, best epoch on test" in text
    assert "2 undecided" in text  # screw of CaiT, image and pixel: one seed
    assert "−47.80" in text


def test_table2_on_a_part_of_the_data_has_no_mean(recorded):
    text = show("table_by_category", recorded, categories=["bottle", "screw"])
    assert text.splitlines()[text.splitlines().index("mean") + 1] == "–"


def test_table1_on_records(recorded):
    text = show("table1_complexity", recorded)
    assert "97.9\n97.30\n" in text
    assert "4.9\n4.657\n" in text


def test_gap_on_records(recorded):
    text = show("gap", recorded)
    assert "[figure]" in text
    assert "Nothing that can be judged" not in text


def test_a_persons_own_settings_change_no_page(recorded, monkeypatch):
    """Those of matplotlib, and a shell of IPython's that is there already, of a terminal too."""
    before = displayed("gap", recorded)
    monkeypatch.setitem(matplotlib.rcParams, "axes.labelpad", 40.0)
    shell = InteractiveShell.instance(user_module=ModuleType("own"))
    shell.display_formatter.active_types = ["text/plain"]
    try:
        assert displayed("gap", recorded) == before
        assert shell.display_formatter.active_types == ["text/plain"]
        assert InteractiveShell.instance() is shell
        assert matplotlib.rcParams["axes.labelpad"] == 40.0
    finally:
        InteractiveShell.clear_instance()


def test_what_runs_a_notebook_makes_no_folder(tmp_path, monkeypatch):
    """A killed process would leave it for ever."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.v4.new_notebook(metadata={"papermill": {}})
    looks = (
        "import os\nfrom IPython.display import HTML, display\n"
        f"display(HTML(str(os.listdir({str(tmp_path)!r}))))"
    )
    notebook.cells = [nbformat.v4.new_code_cell(looks)]
    executed = InProcess.execute_notebook(notebook, "python3", progress_bar=False)
    assert executed.cells[0].outputs[0].data["text/html"] == "[]"
    assert not InteractiveShell.initialized()


def test_changed_settings_are_said(tmp_path):
    changed = RESNET18.replace(epochs=20)
    for category in PUBLISHED_COUNTS["mvtec_ad"]:
        write_run(tmp_path, changed, category, 0, 0.97)
    text = show("table1_complexity", tmp_path, set={"epochs": 20}, seeds=[0])
    assert "epochs 20 instead of 500" in text
    assert "not comparable" in text


def test_a_tables_report_and_the_index(recorded, capsys):
    """What a reader opens first."""
    assert cli.main(["report", "table2", "--results", str(recorded)]) == 0
    page = recorded / "reports" / "table2.html"
    assert f"report: {page}" in capsys.readouterr().out
    assert STUDIES["table2"].asks in page.read_text()
    assert f"harness report table2 --data FOLDER --results {recorded}" in page.read_text()
    index = (recorded / "reports" / "index.html").read_text()
    assert STUDIES["table2"].asks in index
    assert '<a href="table2.html">Table 2: MVTec AD by category</a>' in index
    assert "46 of 405 runs" in index
    assert not list((recorded / "reports").glob(".*"))


MANY = """
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant

STUDY = Study(name="many", asks="Which?", bases={"base": Variant(learning_rate=1e-3)}, seeds=(0,),
              vary=one_factor(learning_rate=[i * 1e-5 for i in range(1, 31)]))
"""


def test_of_many_variants_a_page_shows_some_and_offers_all(tmp_path):
    (tmp_path / "many.py").write_text(MANY)
    study = get_study(str(tmp_path / "many.py"))
    for i, variant in enumerate(study.variants):
        write_run(tmp_path, variant, "screw", 0, 0.5 + i / 100)
    given = {"study": study.source, "dataset": "mvtec_ad", "categories": ["screw"]}
    parts = displayed("ablations", tmp_path, **given)
    text = text_of(parts)
    assert "Shown: the reference and the best 24 of 31 variants; the downloads have all." in text
    assert "No diagram of ranks: it would compare every two of 31 variants." in text
    (whole,) = ("".join(cell) for cell in parts if any("Every variant" in part for part in cell))
    table, names = text_of([[whole]]), study.labels().values()
    shown = [n for n in names if re.search(rf"{re.escape(readable(n))}(?![\d.e-])", table)]
    assert len(shown) == 25
    assert shown[0] == next(iter(names))  # the reference, which is the worst
    (file,) = re.findall(r'data:text/csv;charset=utf-8;base64,([^"]*)', whole)
    assert all(name in base64.b64decode(file).decode() for name in names)


def test_what_was_asked_is_in_a_pages_name():
    study = STUDIES["kernels"]
    asked = [
        {}, {"dataset": "mine"}, {"set": {"epochs": 3}}, {"where": {"kernels": (3,)}},
        {"seeds": [0]}, {"variants": ["a, kernels=3"]}, {"variants": ["a; kernels=3"]},
        {"dataset": "a/b"}, {"dataset": "a b"}, {"set": {"epochs": 3}, "seeds": [0]},
        {"variants": [f"variant {i}" for i in range(40)]},
        {"variants": [f"variant {i}" for i in range(41)]},
    ]  # fmt: skip
    names = [pages.page_name(study, one) for one in asked]
    names.append(pages.page_name(study, {}, ["screw"]))
    assert names[0] == "kernels"
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.,=-]{1,130}", name) for name in names)

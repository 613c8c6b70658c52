"""Notebooks: parameters are checked, sources are clean, Markdown and HTML come out whole."""

import json

import pytest

from harness import reports
from harness.errors import InputError


@pytest.fixture(params=["ablations"])
def source(request):
    return reports.shipped("notebooks", f"{request.param}.ipynb")


def test_sources_have_no_outputs_and_a_parameters_cell(source):
    cells = json.loads(source.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]


def test_notebooks_never_train(source):
    text = source.read_text()
    assert "torch" not in text
    assert "harness.run" not in text


def test_an_undeclared_parameter_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"unknown parameter of ablations\.ipynb 'studdy'"):
        reports.execute("ablations", "x", tmp_path, {"studdy": "surfaces"})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_notebook_is_an_error():
    with pytest.raises(InputError, match=r"expected the notebook nothing\.ipynb"):
        reports.find_notebook("nothing")

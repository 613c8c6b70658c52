"""The tree is the architecture: a package may import only those above it in this order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "harness"
ORDER = (
    "escape", "errors", "files", "heartbeat", "claims", "bundled", "progress", "experiment",
    "studies", "data", "features", "methods", "score", "run", "detect", "report", "paper",
    "cli", "__main__",
)  # fmt: skip
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__")


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_up_the_list(path):
    own = ORDER.index(path.relative_to(ROOT).with_suffix("").parts[0])
    for name in imported(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        if package == "harness" and rest.split(".")[0] in ORDER:
            assert ORDER.index(rest.split(".")[0]) <= own, f"{path.name} imports {name}"


@pytest.mark.parametrize("module", ["experiment.variant", "cli.main", "report.pages"])
def test_values_the_command_and_the_report_need_no_torch(module):
    code = f"import sys, harness.{module}; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modules_and_functions_stay_short():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path}: split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


NO_VERB = {"a", "all", "an", "as", "every", "how", "its", "one", "the", "what", "where", "whether"}


def test_public_docstrings_begin_with_a_verb():
    """A rough sieve: no article, no plural or third person where a verb belongs."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and (text := ast.get_docstring(node)):
                word = text.split()[0].strip("`:,.").lower()
                assert word not in NO_VERB, f"{path}: {node.name}"
                assert not word.endswith("s"), f"{path}: {node.name}"

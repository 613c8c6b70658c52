"""Imports point one way: each band may import only what CONTRIBUTING.md says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "harness"
# Band of every module, lowest first. Each may import its own band and those in MAY.
BANDS = {
    "errors": ("errors",),
    "facts": (
        "methods", "variant", "study", "studies", "records", "published", "official", "shipped",
    ),
    "method": (
        "weights", "backbones", "flow", "native", "fastflow", "fast", "baselines", "scoring",
        "metrics", "cost",
    ),
    "data": ("datasets", "features"),
    "run": (
        "environment", "process", "build", "train", "run", "executors", "plan", "grid",
        "parameters", "estimate",
    ),
    "report": ("tables", "prose", "plots", "reports", "gap", "regression", "beside"),
    "door": ("cli", "commands", "data_commands", "gap_commands", "doctor", "__main__"),
}  # fmt: skip
MAY = {
    "errors": set(),
    "facts": {"errors"},
    "method": {"errors"},
    "data": {"errors", "facts", "method"},
    "run": {"errors", "facts", "method", "data"},
    "report": {"errors", "facts"},
    "door": set(BANDS),
}
BAND = {module: band for band, modules in BANDS.items() for module in modules}
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def module_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "harness":
                yield from (f"harness.{alias.name}" for alias in node.names)


def test_every_module_has_a_band():
    assert {module_of(p) for p in FILES} == set(BAND)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    band = BAND[module_of(path)]
    allowed = MAY[band] | {band}
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "harness" and len(parts) > 1:
            assert BAND[parts[1]] in allowed, f"{path.name} ({band}) imports {name}"


@pytest.mark.parametrize("module", ["harness.cli", "harness.tables", "harness.reports"])
def test_the_door_and_the_report_do_not_import_torch(module):
    code = f"import sys, {module}; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modules_and_functions_stay_short():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path}: split it along the bands"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"

"""The documentation: links lead somewhere, generated pages are current, counts are the code's."""

import re
from pathlib import Path

import pytest
from test_architecture import ORDER

import harness
from harness.cli.main import COMMANDS
from harness.experiment.reference import as_markdown

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md"])


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_table_of_fields_is_made_from_the_code():
    assert text_of(ROOT / "docs" / "fields.md") == as_markdown()


def test_readme_comes_to_the_point():
    assert text_of(ROOT / "README.md").count("\n") <= 110


def test_the_citation_is_of_this_version():
    found = re.search(r"^version: (\S+)$", text_of(ROOT / "CITATION.cff"), re.MULTILINE)
    assert found[1] == harness.__version__


def test_the_tree_is_described_in_its_order():
    table = text_of(ROOT / "docs" / "architecture.md").partition("## The values")[0]
    packages = re.findall(r"^\| `harness/(\w+)/` ", table, re.MULTILINE)
    assert packages == [name for name in ORDER if (ROOT / "harness" / name).is_dir()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist(page):
    known = {name for commands in COMMANDS.values() for name in commands}
    for line in "\n".join(re.findall(r"```sh\n(.*?)```", text_of(page), re.DOTALL)).splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["harness"]:
            assert words[1] in known or " ".join(words[1:3]) in known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_are_named_exist(page):
    """Paths in backquotes with a folder in them, below the root or the package."""
    for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|cpp|ipynb))`", text_of(page)):
        roots = (ROOT, ROOT / "harness")
        assert any((root / name).exists() for root in roots), name

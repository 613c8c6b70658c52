"""docs/api.md: made from the docstrings as they are."""

import re
from pathlib import Path

from harness.cli.api import as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_is_made_from_the_docstrings():
    assert PAGE.read_text(encoding="utf-8") == as_markdown()


def test_nothing_of_the_docstrings_own_markup_is_left():
    text = re.sub(r"```.*?```", "", as_markdown(), flags=re.DOTALL)
    for markup in (r":\w+:`", "``", r"^    ", r"^(Args|Returns|Raises):", ">>>"):
        assert not re.search(markup, text, re.MULTILINE), markup

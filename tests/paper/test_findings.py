"""docs/findings.md: every number comes from the committed records."""

import re
from pathlib import Path

import pytest
from handmade import write_rows

from harness.errors import InputError
from harness.paper.findings import TAG, render
from harness.studies import STUDIES

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "docs" / "findings.in").read_text(encoding="utf-8")
REFERENCE = ROOT / "results" / "reference"


def test_the_page_is_made_from_the_committed_records():
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == render(
        TEMPLATE, REFERENCE
    )


def test_no_figure_in_the_template_is_typed_in():
    """No percentage with a decimal outside a tag, but for those of others, which name a source."""
    for line in TAG.sub("", TEMPLATE).splitlines():
        if "source:" not in line:
            assert not re.search(r"\b\d{2}\.\d\b", line), line


def test_the_committed_records_hold_no_images_and_no_energies():
    files = [p for p in (REFERENCE / "runs").rglob("*") if p.is_file()]
    assert files
    assert {p.suffix for p in files} == {".json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<nothing surfaces>>", "nothing"),
        ("<<fall no_study surfaces grass aupro base>>", "no_study"),
        ("<<fall surfaces surfaces grass aupro nobody>>", "nobody"),
        ("<<fall surfaces surfaces>>", "expected 5 words"),
    ],
)
def test_a_wrong_tag_is_named(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        render(text, tmp_path)


def test_figures_by_pencil(tmp_path):
    base, other, *_ = STUDIES["surfaces"].variants
    write_rows(tmp_path, [(base, "grass", 0, 0.90), (base, "grass", 1, 0.94)], best=0.95)
    write_rows(tmp_path, [(other, "grass", 0, 0.91)])

    def shown(tag):
        return render(f"<<{tag}>>", tmp_path)

    assert shown("fall surfaces d grass image_auroc base") == "3.0"
    assert shown("fall surfaces d grass aupro base") == "not run"
    assert shown("runs surfaces d grass") == "3 of 27"
    assert shown("minutes surfaces d grass") == "0"
    table = shown("table surfaces d grass").splitlines()
    assert table[0] == ("| variant | grass: image AUROC | grass: pixel AUROC | grass: AUPRO |")
    assert table[2] == "| base | 92.0 ± 2.8 | 90.0 ± 0.0 | not run |"
    assert table[3].endswith("| 91.0 (one seed) | 90.0 (one seed) | not run |")
    assert len(table) == 4

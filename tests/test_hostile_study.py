"""A study of categories whose names are orders to whatever shows them, from photos to pages."""

from html.parser import HTMLParser

import pytest
from tiny import write_category

from harness.cli.main import main

pytestmark = pytest.mark.long

STUDY = """\
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant

STUDY = Study(
    name="mine", asks="Mine?", dataset="mvtec_ad", seeds=(0,), bases={"base": Variant(
        backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1,), flow_steps=1,
        epochs=1, batch_size=8, eval_every=1,
    )}, vary=one_factor(smoothing=(2.0,)),
)
"""
HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)<∕script>", "a|b", '"]', "$(touch made)",
    r"$\frac{$", "two\nlines", "`touch made`", "=1+1", "it's", "\x1b[2Jred", "\u202egnp",
    "{{7*7}}",
]  # fmt: skip
SECOND = 's">"<b onmouseover=alert(1)>'  # a defect's


class Elements(HTMLParser):
    """What a page asks a browser to do."""

    def __init__(self, text):
        super().__init__()
        self.handlers, self.outside, self.images = [], [], []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append((tag, name, value))
            if name in ("src", "href") and (value or "").startswith(("x", "http:", "//")):
                self.outside.append((tag, name, value))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for i, name in enumerate(HOSTILE):
        write_category(folder / "data" / name, good=4, bad=2, seed=i)
        where = folder / "data" / name
        for part in ("test", "ground_truth"):
            (where / part / "bright").rename(where / part / SECOND)
    (folder / "mine.py").write_text(STUDY)
    return folder


def call(folder, *arguments):
    asked = ["--data", folder / "data", "--results", folder / "r"]
    return main([str(a) for a in (arguments[0], folder / "mine.py", *asked, *arguments[1:])])


def test_run_and_report_take_no_name_for_an_order(results, monkeypatch, capsys):
    monkeypatch.chdir(results)
    assert call(results, "plan") == 0
    assert call(results, "run", "--no-speed", "--report") == 0
    said = capsys.readouterr()
    assert not set(said.out + said.err) & set("\x1b\u202e")
    assert "Traceback" not in said.err
    pages = sorted((results / "r" / "reports").glob("*.html"))
    assert len(pages) >= 2
    for page in pages:
        text = page.read_text()
        found = Elements(text)
        assert not [h for h in found.handlers if "alert" in (h[2] or "")], page.name
        assert not found.outside, page.name
        assert "<script>alert" not in text, page.name
        assert "49" not in text or "{{7*7}}" in text or "7*7" in text
    for command in ("images", "best", "status"):
        assert call(results, command) in (0, 1), command
        said = capsys.readouterr()
        assert not set(said.out + said.err) & set("\x1b\u202e"), command
        assert "Traceback" not in said.err
    assert not list(results.rglob("made"))

"""Charts: names of every script as text, the page's colours, a picture of each that stays."""

import html
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images

from harness.report import plots
from harness.report.differences import Difference
from harness.report.drawing import Panel, Plate, as_svg
from harness.report.names import Name
from harness.report.ranks import Ranks
from harness.score.statistics import Estimate

NAMES = (
    "plain", "漢字", "カタカナ", "한국어 부품", "Привет", "مرحبا بالعالم", "שלום", "ทดสอบ",
    "हिन्दी", "😀🔩", "a$b$c", "_under", "<i>&", "e\u0301", "\x07",
)  # fmt: skip


def texts(panel):
    """What stands in the drawing as text; a warning is an error in every test."""
    drawn = as_svg(panel.figure, panel.title, panel.says)
    return [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)]


def named(*labels):
    return {label: Name(label, label) for label in labels}


def frame_of(labels):
    rows = [(n, "a", s, 0.9 - 0.01 * i + 0.004 * s) for i, n in enumerate(labels) for s in (0, 1)]
    return pd.DataFrame(rows, columns=["label", "category", "seed", "image_auroc"])


def differences_of(labels):
    return [
        Difference(n, 9, Estimate(i - 1.0, 0.2, 6), Estimate(i - 1.0, 0.4, 20), "seeds", 0.01 + i)
        for i, n in enumerate(labels)
    ]


def curves_of(labels):
    rows = [(n, "a", 0, e, 0.9 - 0.1 / e - 0.01 * i)
            for i, n in enumerate(labels) for e in (1, 2, 4)]  # fmt: skip
    return pd.DataFrame(rows, columns=["label", "category", "seed", "epoch", "image_auroc"])


def gaps_of():
    row = {"by": "FastFlow", "setting": "", "backbone": "resnet18", "category": "mean"}
    rows = [
        row | {"metric": m, "ours": 97.0, "low": 96.5, "high": 97.5, "gap": g, "verdict": v}
        for m, g, v in (("image_auroc", 0.1, "reproduced"), ("pixel_auroc", -1.0, "gap"))
    ]
    return pd.DataFrame(rows)


def pairs_of():
    rows = [(c, "both", 0.5 + i / 9, 0.6 + i / 9) for c in ("nut", "bolt") for i in range(3)]
    return pd.DataFrame(rows, columns=["category", "figure", "validation", "test"])


def ranks_of(labels):
    mean = pd.Series({n: 1.0 + i for i, n in enumerate(labels)})
    pairs = pd.DataFrame(0.01, labels, labels)
    return Ranks(mean, 0.01, pairs, 12)


COSTS = pd.DataFrame(
    {"label": ["one", "two", "three"], "image_auroc": [0.9, 0.95, 0.93], "ms": [1.0, 2.0, 4.0]}
)
THREE = ("one", "two", "three")
CHARTS = {
    "runs": lambda: plots.runs(frame_of(THREE), "image_auroc", named(*THREE), "a"),
    "forest": lambda: plots.forest(
        differences_of(THREE), named("base", *THREE), "base", "image_auroc"
    ),
    "front": lambda: plots.front(COSTS, named(*THREE), "image_auroc", "ms", "latency (ms)"),
    "learning": lambda: plots.learning(
        curves_of(THREE), named(*THREE), "image_auroc", dict.fromkeys(THREE, 4)
    ),
    "histogram": lambda: plots.histogram(
        [0.1, 0.2, 0.2, 0.6, 0.5, 0.8, 0.9], [0, 0, 0, 0, 1, 1, 1], 0.4, "grass"
    ),
    "critical_difference": lambda: plots.critical_difference(
        ranks_of(THREE), named(*THREE), "Ranks"
    ),
    "gap_forest": lambda: plots.gap_forest(gaps_of()),
    "prediction": lambda: plots.prediction(pairs_of(), "both"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_looks_as_it_did(name, request, tmp_path):
    """Beside the picture in ``charts/``; remove that and run the test to draw it anew."""
    made, kept = tmp_path / f"{name}.png", request.path.parent / "charts" / f"{name}.png"
    with mpl.rc_context(plots.STYLE):
        CHARTS[name]().figure.savefig(made, dpi=50)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(made.read_bytes())
        pytest.fail(f"drawn anew: look at {kept}")
    assert compare_images(str(kept), str(made), tol=8) is None


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_in_the_pages_colours_and_says_what_it_shows(name):
    panel = CHARTS[name]()
    svg = panel.svg.text
    assert svg.startswith(f'<svg role="img" aria-label="{panel.title}. ')
    assert f"<title>{panel.title}</title><desc>{html.escape(panel.says)}</desc>" in svg
    assert "var(--" in svg
    assert len(panel.says) > 10
    assert not re.findall(r"(?:fill|stroke): #(?!fff|000)\w+", svg)  # none that dark would hide
    assert "<style" not in svg  # it would hold for the whole page
    assert svg == CHARTS[name]().svg.text  # the same figure is the same text


@pytest.mark.parametrize("chart", ["runs", "forest"])
def test_a_chart_has_every_name_as_text(chart):
    if chart == "runs":
        panel = plots.runs(frame_of(NAMES), "image_auroc", named(*NAMES), "a")
    else:
        known = named("base", *NAMES)
        panel = plots.forest(differences_of(NAMES), known, "base", "image_auroc")
    found = texts(panel)
    assert set(NAMES) <= set(found)
    assert found.count("_under") == 1


def test_room_is_made_for_wide_names():
    """A name of 20 Chinese signs needs as much room as 20 times the letters' height."""
    wide = "一" * 20
    panel = plots.runs(frame_of([wide, "b"]), "image_auroc", named(wide, "b"), "a")
    stands = r'font-size: ([\d.]+)px[^>]*x="([\d.]+)"[^>]*>一{20}<'
    ((size, x),) = re.findall(stands, panel.svg.text)
    assert float(x) >= 20 * 0.95 * float(size)


def test_a_figure_names_its_records_and_offers_its_data():
    panel = Panel(CHARTS["runs"]().figure, "<b>", "Two dots.")
    data = pd.DataFrame({"variant": ["<b>"], "value": [1.0]})
    page = Plate("x", [panel], "Dots.", "Drawn from 2 records.", data, [Name("<i>", "i")])
    text = page._repr_html_()
    assert "Drawn from 2 records." in text
    assert 'download="x.csv"' in text
    assert "<b>" not in text
    assert "<i>" not in text.replace('<i style="', "")


def test_infinite_and_absent_figures_are_left_out():
    """No chart fails on what was not measured."""
    unknown = Difference("one", 0, Estimate(np.nan), Estimate(np.nan), "seeds")
    assert plots.forest([unknown], named("base", "one"), "base", "image_auroc").svg
    assert plots.forest([], named("base"), "base", "image_auroc").svg
    rows = {"label": ["one", "one", "base"], "image_auroc": [np.nan, np.nan, 0.5]}
    drawn = plots.runs(pd.DataFrame(rows), "image_auroc", named("base", "one"), "a category")
    assert drawn.svg
    assert drawn.says.endswith("means: base 50.0.")
    assert plots.runs(pd.DataFrame(rows)[:0], "image_auroc", named("base"), "no run").svg
    nothing = COSTS.assign(ms=np.nan)
    plots.front(nothing, named(*THREE), "image_auroc", "ms", "latency (ms)")
    plots.histogram([0.5, 0.5], [True, True], np.nan, "one kind")

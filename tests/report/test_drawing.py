"""Figures keep names of every script as text, without a warning and without a box."""

import html
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from handmade import write_run

from harness.experiment.place import Place
from harness.report import plots
from harness.report.drawing import as_html
from harness.report.selection import Selection
from harness.studies import STUDIES

NAMES = (
    "plain", "漢字", "カタカナ", "한국어 부품", "Привет", "مرحبا بالعالم", "שלום", "ทดสอบ",
    "हिन्दी", "😀🔩", "a$b$c", "_under", "<i>&", "e\u0301", "\x07",
)  # fmt: skip


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        plots.style()
        yield
    plt.close("all")


def texts(figure):
    """What stands in the drawing as text; a warning is an error in every test."""
    return texts_of(as_html(figure))


def texts_of(page):
    return [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", page)]


def test_a_chart_has_every_name_as_text():
    one = {"label": "base", "image_auroc": 0.9}
    frame = pd.DataFrame([one | {"category": name} for name in NAMES])
    found = texts(plots.metric_by_variant(frame, ["image_auroc"]))
    assert set(NAMES) <= set(found)
    assert found.count("_under") == 1


def test_names_of_variants_stand_at_the_axis_and_in_legends():
    rows = {"metric": "image_auroc", "value": 0.9}
    epochs = pd.DataFrame([rows | {"label": n, "epoch": e} for n in NAMES for e in (1, 2)])
    assert set(NAMES) <= set(texts(plots.learning_curves(epochs, ["image_auroc"])))
    costs = {"additional_params": 1e6, "bank_bytes": 0, "image_auroc": 0.9}
    summary = pd.DataFrame([costs | {"variant": name} for name in NAMES])
    assert {f"{name} (1.00 M)" for name in NAMES} <= set(texts(plots.pareto(summary)))


def test_room_is_made_for_wide_names():
    """A name of 20 Chinese signs needs as much room as 20 times the letters' height."""
    frame = pd.DataFrame(
        [{"label": n, "image_auroc": 0.9, "category": "a"} for n in ("一" * 20, "b")]
    )
    page = as_html(plots.metric_by_variant(frame, ["image_auroc"]))
    (place,) = re.findall(r'font-size: (\d+)px[^>]*x="([\d.]+)"[^>]*>一{20}<', page)
    assert float(place[1]) >= 20 * 0.95 * float(place[0])


def test_photos_have_their_names_as_text_beside_them(tmp_path):
    study = STUDIES["surfaces"]
    label = study.labels()[study.variants[0].digest]
    write_run(tmp_path, study.variants[0], "漢字", 0, 0.9, dataset="surfaces")
    kept = Place.of(tmp_path, study.variants[0], "surfaces", "漢字", 0).gallery
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[1, 2:5, 2:5] = True
    np.savez(kept, images=images, masks=masks, maps=np.random.default_rng(0).random((2, 8, 8)),
             scores=[0.1, 0.2], defects=["good", "欠け_2"])  # fmt: skip
    selection = Selection(study, tmp_path, "surfaces", ("漢字",))
    first, second = (as_html(plots.gallery(selection, label, "漢字")) for _ in range(2))
    assert first == second
    assert {f"漢字: {label}, seed 0", "欠け 2"} <= set(texts_of(first))
    assert first.count("data:image/png;base64") == 4
    assert "<style" not in first  # it would hold for the whole page

"""The site in a browser: nothing from outside, nothing too wide, readable by everybody.

`nox -s site` runs these. They need Chromium (`apt-get install chromium`), and are skipped without
it unless HARNESS_BROWSER=required.
"""

import os
import shutil
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from handmade import write_run
from rendered import render

from harness.bundled import bundled
from harness.experiment.place import Place
from harness.report.pages import PAGES
from harness.studies import STUDIES
from harness.studies.paper import CAIT

pytestmark = pytest.mark.site
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS, SCHEMES = (390, 820, 1400), ("light", "dark")
MB = 1 << 20
SURFACES = {"study": "surfaces", "dataset": "surfaces", "categories": ["brick", "grass", "gravel"]}
NOTEBOOKS = {
    "surfaces": ("ablations", SURFACES), "qualitative-surfaces": ("qualitative", SURFACES),
    "methods": ("methods", {"study": "methods", "dataset": "mvtec_ad", "categories": []}),
    "table1": ("table1_complexity", {"study": "table1", "dataset": "mvtec_ad", "categories": []}),
    "table2": ("table_by_category", {"study": "table2", "dataset": "mvtec_ad", "categories": []}),
    **{name: (name, {}) for name in (*PAGES, "index")},
}  # fmt: skip


def needed():
    """Skip where there is no browser; fail where it has to be there."""
    lacks = [n for n in ("playwright", "axe_core_python") if find_spec(n) is None]
    lacks += [] if CHROMIUM else ["chromium"]
    if lacks and os.environ.get("HARNESS_BROWSER") == "required":
        pytest.fail(f"HARNESS_BROWSER=required: expected {', '.join(lacks)}; found none")
    if lacks:
        pytest.skip(f"no {', '.join(lacks)} here")


def write_pages(results):
    for name, (notebook, given) in NOTEBOOKS.items():
        render(notebook, name, results, **given)
    return results / "reports"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded study's accepted records with photos of two variants, and every page."""
    needed()
    results = tmp_path_factory.mktemp("site") / "results"
    shutil.copytree(bundled("results", "baseline") / "runs", results / "runs")
    ramp = np.linspace(0, 1, 128, dtype=np.float32)
    maps = np.stack([np.outer(np.roll(ramp, 11 * i), ramp) for i in range(10)])
    images = (200 * np.stack([maps] * 3, axis=-1)).astype(np.uint8)
    for variant in STUDIES["surfaces"].variants:
        for category in SURFACES["categories"]:
            masks = np.zeros((10, 128, 128), bool)
            masks[:7, 40:70, 30:90] = True
            np.savez(
                Place.of(results, variant, "surfaces", category, 0).gallery,
                images=images, masks=masks, maps=maps, scores=np.linspace(0, 1, 10),
                defects=[*"abcdeaa", *3 * ["good"]], rows=range(10),
            )  # fmt: skip
    return write_pages(results)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    needed()
    return write_pages(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    needed()
    results = tmp_path_factory.mktemp("damaged")
    for seed in (0, 1):
        write_run(results, CAIT, "screw", seed, 0.5)
    Place.of(results, CAIT, "mvtec_ad", "screw", 0).record.write_text("{")
    return write_pages(results)


@pytest.fixture(scope="module")
def browser():
    needed()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as made:
        opened = made.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, page, scheme):
    """A page in a browser, with what went wrong and what was asked of other places."""
    context = browser.new_context(color_scheme=scheme)
    tab, wrong = context.new_page(), []
    tab.set_default_timeout(120_000)
    tab.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("requestfailed", lambda asked: wrong.append(f"failed: {asked.url[:80]}"))
    tab.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url)
        ),
    )
    tab.goto(page.as_uri())
    return context, tab, wrong


def check(browser, page, schemes=SCHEMES):
    import axe_core_python

    axe = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
    for scheme in schemes:
        context, tab, wrong = opened(browser, page, scheme)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            root = "document.documentElement"
            over = tab.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
            assert over <= 0, f"{page.name} at {width} px is {over} px too wide"
        tab.set_viewport_size({"width": 390, "height": 844})
        tab.evaluate(axe)
        found = tab.evaluate("axe.run().then(r => r.violations)")
        serious = [
            (v["id"], v["nodes"][0]["html"][:120], v["nodes"][0]["any"][:1])
            for v in found if v["impact"] in ("serious", "critical")
        ]  # fmt: skip
        assert serious == [], f"{page.name}, {scheme}"
        assert wrong == [], f"{page.name}, {scheme}"
        context.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_stands_alone_at_every_width(browser, embedded, name):
    check(browser, embedded / f"{name}.html")


@pytest.mark.parametrize(("folder", "name"), [*product(("empty", "damaged"), ("index", "table2"))])
def test_so_it_does_with_nothing_and_with_a_damaged_record(browser, request, folder, name):
    check(browser, request.getfixturevalue(folder) / f"{name}.html", ("light",))


def test_the_pages_are_small(embedded):
    sizes = {p.name: p.stat().st_size for p in embedded.iterdir()}
    assert max(size for name, size in sizes.items() if name.endswith(".html")) < 1.5 * MB, sizes
    assert sum(sizes.values()) < 6 * MB, sizes


def test_a_table_sorts_and_the_first_metric_is_seen_on_a_phone(browser, embedded):
    context, tab, _ = opened(browser, embedded / "surfaces.html", "light")
    tab.set_viewport_size({"width": 390, "height": 844})
    table = tab.locator("table").first
    head = table.locator("th").nth(1)
    box = head.bounding_box()
    assert box["x"] + box["width"] <= 390
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    shown = table.locator("tbody td:nth-child(2)").evaluate_all(
        "cs => cs.map(c => c.dataset.sort)"
    )
    assert shown == sorted(shown, key=float, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    context.close()


def test_a_reader_chooses_light_or_dark(browser, embedded):
    context, tab, _ = opened(browser, embedded / "index.html", "light")
    paper = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(paper)
    tab.locator("#theme").click()
    assert tab.evaluate(paper) != before
    tab.reload()
    assert tab.evaluate(paper) != before
    context.close()

"""What pages are made of: names, tables in four forms, photos, verdicts, two sets compared."""

import base64
import csv
import io
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from handmade import changed, record, write_rows, write_run

from harness.cli import main as cli
from harness.errors import InputError
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.store import read_records, write_record
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.files import scratch
from harness.paper.overview import Entry, Overview
from harness.paper.protocol import Protocol
from harness.report import photos, watching
from harness.report.commands import command
from harness.report.compare import compare, records_of
from harness.report.names import Name, names, readable
from harness.report.selection import Selection
from harness.report.site.boards import Board, Cell, Column, figures
from harness.report.site.markup import block, part, prose
from harness.report.site.pictures import Scale, heat, photo
from harness.report.study_page import StudyPage
from harness.report.verdict import verdict
from harness.studies import STUDIES

STUDY = Study(
    name="s", asks="Better?", bases={"base": Variant()}, seeds=(0, 1),
    vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)),
)  # fmt: skip
BASE, KERNELS, TWO = STUDY.variants
BAD = "<script>\"&'|$_^{}\\"


def selected(results, study=STUDY):
    return Selection(study, results, "d", ("a", "b"))


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)
def test_no_two_variants_of_a_study_read_alike(study):
    shown = [readable(label) for label in study.labels().values()]
    assert len(set(shown)) == len(shown)


def test_names_have_a_colour_each_and_keep_the_whole():
    shown = names(selected(Path("nowhere")))
    assert [n.text for n in shown.values()] == [
        "base", "3 × 3 and 1 × 1 kernels", "two-sided coupling",
    ]  # fmt: skip
    assert len({n.colour for n in shown.values()}) == 3
    assert shown["base"].marks == ("reference",)


def test_a_table_in_four_forms():
    columns = [Column("variant", words=True), Column("image AUROC")]
    rows = [[Cell("=1+1"), Cell("97.0", 97.02, spread="0.4", best=True)], [Cell(BAD), Cell("–")]]
    board = Board("t", "T", columns, rows)
    assert list(csv.reader(io.StringIO(board.as_csv()))) == [
        ["variant", "image AUROC", "image AUROC sd"], ["'=1+1", "97.02", "0.4"], [BAD, "–", ""],
    ]  # fmt: skip
    assert board.as_markdown() == (
        "| variant | image AUROC |\n| --- | ---: |\n| =1+1 | 97.0 ± 0.4 |\n"
        "| &#60;script&#62;\"&#38;'&#124;&#36;&#95;^{}&#92; | – |\n"
    )
    latex = board.as_latex()
    assert r"=1+1 & \textbf{97.0 $\pm$ 0.4} \\" in latex
    assert r"\$\_\textasciicircum{}\{\}\textbackslash{}" in latex
    page = board._repr_html_()
    assert "<script>" not in page
    assert '<td class="best " data-sort="97.02">97.0<span class="sd"> ± 0.4</span>' in page
    (link,) = [h for _, says, h in board.downloads if says == "CSV"]
    assert base64.b64decode(link.partition("base64,")[2]).decode() == board.as_csv()


def test_the_best_is_marked_where_there_is_one_and_bars_share_a_scale():
    cells = figures([90.0, 95.0, np.nan], [5.0, 0.0, np.nan])
    assert [c.best for c in cells] == [False, True, False]
    assert cells[0].bar == (0.0, 50.0, 100.0)
    assert cells[2].text == "–"
    assert not any(c.best for c in figures([1.0, 1.0]))
    assert figures([np.nan], says=["not steady: 1 round"])[0].text == "not steady"


def test_every_part_escapes_what_it_is_given():
    bad = Name(BAD, BAD, "", "", (BAD,))
    shown = [part("command", BAD), part("variant", bad), block("heading", title=BAD, anchor="x",
             level=2), prose("take kernels=3.", {"kernels=3": bad})]  # fmt: skip
    assert all("<script" not in html.text for html in shown)
    assert "title=" in shown[-1].text


def test_the_threshold_is_where_f1_is_largest():
    assert photos.best_threshold([1, 2, 3, 4, 5], [0, 0, 1, 1, 1]) == 2.5
    assert np.isnan(photos.best_threshold([1, 2], [1, 1]))
    scores, truth = np.array([0.1, 0.9, 0.4, 0.7, 0.2]), np.array([0, 1, 1, 0, 0], dtype=bool)
    cut = photos.best_threshold(scores, truth)
    best = max(
        2 * ((scores >= c) & truth).sum() / ((scores >= c).sum() + truth.sum()) for c in scores
    )
    flagged = scores >= cut
    assert 2 * (flagged & truth).sum() / (flagged.sum() + truth.sum()) == best


def write_gallery(results, variant, category, dataset="d"):
    place = Place.of(results, variant, dataset, category, 0)
    images = np.zeros((4, 300, 300, 3), dtype=np.uint8)
    masks = np.zeros((4, 300, 300), dtype=bool)
    masks[:2, 20:50, 20:50] = True
    maps = np.linspace(0, 1, 4 * 300 * 300).reshape(4, 300, 300)
    np.savez(place.gallery, images=images, masks=masks, maps=maps, scores=[0.2, 0.9, 0.1, 0.6],
             defects=["dent_1", "dent_1", "good", "good"], rows=[3, 4, 0, 1])  # fmt: skip


def with_images(variant, category, seed, auroc):
    listed = {"path": list("abcdef"), "defect": ["good", "good", "good", *3 * ["dent_1"]],
              "score": [0.1, 0.6, 0.15, 0.2, 0.9, 0.8]}  # fmt: skip
    made = changed(record(variant, category, seed, auroc), images=listed)
    return msgspec.convert(made, Record)


def test_a_pages_first_screen_has_the_winners_photos_and_scores(tmp_path):
    for variant, auroc in ((BASE, 0.9), (KERNELS, 0.95)):
        for seed in (0, 1):
            made = with_images(variant, "a", seed, auroc + 0.001 * seed)
            write_record(Place.of(tmp_path, variant, "d", "a", seed), made)
        write_gallery(tmp_path, variant, "a")
    page = StudyPage("s", selected(tmp_path))
    assert page.verdict.winner == "kernels=3,1"
    text = page.opening().text
    assert text.count("data:image/webp;base64,") == 8  # four photos and their maps
    assert "hardest defect: dent 1" in text
    assert "<title>a</title>" in text
    assert "the threshold 0.175" in text
    assert "harness run s --data FOLDER" in text
    shown = photos.shots(page.selection, page.first_seed("base")[0])
    assert [s.place for s in shown] == [3, 4, 0, 1]
    assert [says for says, _ in photos.worst_and_best(shown)] == [
        "hardest defect", "good photo most like a defect", "plainest defect",
        "plainest good photo",
    ]  # fmt: skip


def test_pictures_are_no_larger_than_they_are_shown():
    image, mask = np.zeros((900, 600, 3), np.uint8), np.zeros((900, 600), bool)
    shown = photo(image, mask, "black")
    assert (shown.width, shown.height) == (149, 224)
    assert len(shown.source) < 2000
    some = np.full((8, 8), np.nan)
    assert heat(some, Scale(0, 1), "nothing").source.startswith("data:image/webp")


def test_the_verdict_in_one_line(tmp_path):
    assert verdict(selected(tmp_path)).said == "Nothing has been run yet."
    study = replace(STUDY, seeds=(0, 1, 2))
    rows = [(v, c, s, level + 0.001 * s) for v, level in ((BASE, 0.8), (KERNELS, 0.95), (TWO, 0.7))
            for c in "ab" for s in range(3)]  # fmt: skip
    for variant, category, seed, auroc in rows:
        write_run(tmp_path, variant, category, seed, auroc, dataset="surfaces")
    found = verdict(Selection(study, tmp_path, "surfaces", ("a", "b")))
    assert found.clear
    assert found.winner == "kernels=3,1"
    assert found.lines[0].startswith("Image level: take kernels=3,1 (image AUROC 95.1\u00a0%).")
    one = Study(name="o", asks="?", bases={"base": BASE}, seeds=(0,))
    alone = verdict(Selection(one, tmp_path, "surfaces", ("a", "b")))
    assert alone.lines == (
        "Localisation: base (pixel AUROC 90.0\u00a0%).",
        "Image level: base (image AUROC 80.0\u00a0%).",
    )


def test_two_sets_of_records_side_by_side(tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    rows = [(BASE, c, s, 0.8 + 0.001 * s) for c in "ab" for s in range(3)]
    write_rows(one, [*rows, (TWO, "a", 0, 0.5)])
    write_rows(other, [(v, c, s, auroc + 0.05 + 0.0001 * s) for v, c, s, auroc in rows])
    found = compare(read_records(one), read_records(other))
    ((dataset, metric, a, b, difference),) = found.rows
    assert (dataset, metric, found.pairs, found.only) == ("d", "image_auroc", 6, (1, 0))
    assert (a, b) == (pytest.approx(80.1), pytest.approx(85.11))
    assert difference.deciding.mean == pytest.approx(5.01)
    assert cli.main(["compare", str(one), str(other), "--metric", "image_auroc"]) == 0
    assert "+5.01" in capsys.readouterr().out
    write_rows(other, rows, change={"data": {"digest": "other"}})
    assert cli.main(["compare", str(one), str(other)]) == 2
    assert "expected runs that both have" in capsys.readouterr().err


def test_records_of_a_commit(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b",
                        *words], check=True, capture_output=True)  # fmt: skip

    results = tmp_path / "results"
    write_rows(results, [(BASE, "a", 0, 0.8)])
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    write_rows(results, [(BASE, "a", 0, 0.9)])
    (made,) = records_of("HEAD", results)
    assert made.metrics["image_auroc"] == 0.8
    for wrong in ("--all", "nothing", "HEAD~9"):
        with pytest.raises(InputError, match="expected a folder of results, or a commit"):
            records_of(wrong, results)


def test_what_was_unpacked_of_a_commit_and_left_by_a_kill_goes(tmp_path):
    old, young = (tmp_path / f".fastflow-harness.{n:016x}-{n:08x}.tmp" for n in (1, 2))
    for left in (old, young):
        (left / "runs").mkdir(parents=True)
    os.utime(old, (0, 0))
    with scratch(tmp_path) as there:
        assert sorted(tmp_path.iterdir()) == sorted([young, there])
    assert list(tmp_path.iterdir()) == [young]


def test_a_watched_page_is_made_anew_after_each_variant(tmp_path):
    waited, written = [], []
    later = [
        lambda: write_rows(tmp_path, [(BASE, "a", 0, 0.8)]),  # a part of a variant: nothing
        lambda: write_rows(tmp_path, [(BASE, c, s, 0.8) for c in "ab" for s in (0, 1)]),
        lambda: write_rows(tmp_path, [(v, c, s, 0.8) for v in (KERNELS, TWO) for c in "ab"
                                      for s in (0, 1)]),
    ]  # fmt: skip

    def sleep(seconds):
        waited.append(seconds)
        later[len(waited) - 1]()

    watching.watch(lambda: selected(tmp_path), written.append, sleep=sleep)
    assert written == [True, True, False]
    assert len(waited) == 3


def test_commands_can_be_copied():
    asked = {"variants": ["kernels=3; rm -r x"], "seeds": [0], "set": {"kernels": [3, 1]}}
    said = command("run", "my study.py", dataset="d", categories=["a b"], **asked)
    assert said == (
        "harness run 'my study.py' --data FOLDER --category 'a b' "
        "--variant 'kernels=3; rm -r x' --set kernels=3,1 --seed 0"
    )


def test_the_index_of_a_folder(tmp_path):
    base = STUDIES["surfaces"].variants[0]
    for seed in range(3):
        write_run(tmp_path, base, "grass", seed, 0.9, dataset="surfaces", random_weights=True)
    site = Overview.of(tmp_path)
    (entry,) = [e for e in site.entries if e.name == "surfaces"]
    said = entry.shown()
    assert (said["done"], said["runs"], said["href"]) == (3, 27, "")
    assert said["report"] == f"harness report surfaces --results {tmp_path}"
    assert said["marks"] == ["random weights"]
    assert f"harness run surfaces --results {tmp_path}" in site.next().text
    tables = site.tables().text
    assert 'class="not-run"' in tables
    assert "Parameters are counted, not trained: they need no run." in tables
    assert "Not comparable: the backbone is not known." in tables
    assert "<li>resnet18, mean, image AUROC: published" in tables
    assert "Random weights" in site.unknown().text
    limits = Protocol(tmp_path, site.records).limitations().text
    assert "Few seeds" in limits
    assert "Few photos" in limits
    assert "Drawn defects" in limits


def test_what_is_not_run_stands_in_one_group_of_the_index(tmp_path):
    write_run(tmp_path, STUDIES["surfaces"].variants[0], "grass", 0, 0.9, dataset="surfaces")
    site = Overview.of(tmp_path)
    page = StudyPage.of("table1", tmp_path, dataset="mvtec_ad", categories=[])
    site.__dict__["entries"] = [*site.entries, Entry("table1", page, "table1.html")]
    assert "table1" not in site.studies().text
    begun, _, waiting = site.next().text.partition("Not run yet")
    assert "26 runs of surfaces are missing" in begun
    assert '<a href="table1.html">table1</a>' in waiting
    assert f"harness run table1 --data FOLDER --results {tmp_path}" in waiting


def test_records_are_mirrored_once(tmp_path, capsys):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    write_rows(tmp_path, [(BASE, "a", 0, 0.8), (TWO, "a", 0, 0.9)])
    arguments = ["mirror", "--results", str(tmp_path), "--store", str(tmp_path / "mlruns")]
    assert cli.main(arguments) == 0
    assert "2 runs written, 0 were there already" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert "0 runs written, 2 were there already" in capsys.readouterr().out

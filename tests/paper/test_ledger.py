"""The ledger of published figures: it loads, it says what the sources say, and no more."""

import csv
from collections import Counter
from dataclasses import fields
from types import SimpleNamespace

import pytest
from tiny import SHARED

from harness.bundled import bundled
from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError
from harness.experiment.variant import FIELDS, parse
from harness.files import read_table
from harness.paper.ledger import Published, read_published
from harness.studies.paper import PAPER

COLUMNS = [f.name for f in fields(Published) if f.name != "decimals"]
GOOD = {
    "by": "FastFlow", "table": "table1", "method": "FastFlow", "setting": "",
    "backbone": "resnet18", "dataset": "mvtec_ad", "category": "mean",
    "metric": "image_auroc", "value": "97.9", "unit": "%", "printed": "97.9",
    "status": "confirmed", "source": "s", "note": "a, b",
}  # fmt: skip


def ledger(name):
    return read_published(bundled("results", "paper", f"{name}.csv"))


def write(path, *rows, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def one(path, **changes):
    (figure,) = read_published(write(path / "l.csv", GOOD | changes))
    return figure


def test_the_shipped_ledger_loads_and_no_figure_is_there_twice():
    figures = [*ledger("published"), *ledger("reproductions")]
    assert (len(ledger("published")), len(ledger("reproductions"))) == (344, 764)
    assert len({f.key for f in figures}) == len(figures)
    assert {f.status for f in ledger("reproductions")} == {"single-source"}
    assert all(f.source and f.by for f in figures)
    for f in figures:
        if f.category not in ("", "mean") and f.dataset in PUBLISHED_COUNTS:
            assert f.category in PUBLISHED_COUNTS[f.dataset], f.name


def test_the_published_headlines_are_there():
    table1 = {
        (f.backbone, f.metric): (f.value, f.status)
        for f in ledger("published") if f.table == "table1" and f.method == "FastFlow"
    }  # fmt: skip
    assert table1["cait_m48_448", "image_auroc"] == (99.4, "confirmed")
    assert table1["resnet18", "additional_params"] == (4.9, "confirmed")
    assert table1["wide_resnet50_2", "fps"] == (21.8, "single-source")
    assert len(table1) == 4 * 5


ERRORS = {
    "metric": ({"metric": "image_aurok"}, "unknown metric 'image_aurok'; did you mean 'image_"),
    "range": ({"value": "979", "printed": "979"}, "value: expected image_auroc in 0 … 100 %; got"),
    "negative": ({"value": "-1", "printed": "-1"}, "value: expected image_auroc in 0 … 100 %"),
    "nan": ({"value": "nan"}, "value: expected a number; got 'nan'"),
    "unit": ({"unit": "fraction"}, "unit: expected % for image_auroc; got fraction"),
    "number": ({"value": "97,9"}, "value: expected a number; got '97,9'"),
    "no value": ({"value": ""}, "value: expected a number; got ''"),
    "status": ({"status": "sure"}, "status: expected one of confirmed, single-source, unverif"),
    "printed": ({"printed": "99.7"}, "printed: expected the value, as a percentage, fraction"),
    "printed text": ({"printed": "x"}, "printed: expected a number; got 'x'"),
    "printed nan": ({"printed": "nan"}, "printed: expected a number; got 'nan'"),
    "presumed": ({"presumed": "all"}, "presumed: expected one of nothing, backbone; got 'all'"),
    "printed zero": ({"value": "1", "printed": "0"}, "printed: expected the value"),
    "value zero": ({"value": "0", "printed": "5"}, "printed: expected the value"),
    "setting": ({"setting": "kernels=x"}, "setting: kernels: expected whole numbers"),
    "setting choice": ({"setting": "epoch_selection=best"}, "setting: epoch_selection: expected"),
}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS)
def test_a_wrong_row_is_named(tmp_path, changes, message):
    other = GOOD | {"category": "bottle"}
    file = write(tmp_path / "l.csv", other, GOOD | changes)
    with pytest.raises(InputError) as error:
        read_published(file)
    assert str(error.value).startswith(f"{file}, line 3: {message}")
    assert "\n" not in str(error.value)


def test_a_figure_that_is_there_twice_names_both_rows(tmp_path):
    file = write(tmp_path / "l.csv", GOOD, GOOD | {"value": "98", "printed": "98", "note": "x"})
    with pytest.raises(InputError, match=r"l\.csv, line 3: expected every figure once; .* line 2"):
        read_published(file)


def test_a_damaged_file_is_one_line(tmp_path):
    file = tmp_path / "l.csv"
    with pytest.raises(InputError, match=r"l\.csv: expected a CSV file"):
        read_published(file)
    with pytest.raises(InputError, match=r"expected a CSV file"):
        read_published(tmp_path)
    write(file, GOOD, columns=COLUMNS[:-1])
    with pytest.raises(InputError, match=r"l\.csv: expected the columns by,.*,note, each once"):
        read_published(file)
    file.write_text("")
    with pytest.raises(InputError, match=r"l\.csv: expected the columns by,.*; got none"):
        read_published(file)
    for row in ("a,b", "a" + "," * len(COLUMNS)):
        file.write_text(f"{','.join(COLUMNS)}\n{row}\n")
        with pytest.raises(InputError, match=r"l\.csv, line 2: expected 15 values; got more or"):
            read_published(file)
    file.write_bytes(b"by,table\n\xff\xfe,x\n")
    with pytest.raises(InputError, match=r"l\.csv: expected a CSV file in UTF-8"):
        read_published(file)
    file.write_text(f"{','.join(COLUMNS)}\n{'x' * 200_000}\n")
    with pytest.raises(InputError, match=r"l\.csv: expected a CSV file .*field larger"):
        read_published(file)


@pytest.mark.parametrize(
    ("value", "printed", "metric", "unit", "rounding"),
    [
        ("99.4", "99.4", "image_auroc", "%", 0.05),
        ("95", "95", "image_auroc", "%", 0.5),
        ("95", "0.95", "image_auroc", "%", 0.5),
        ("98.7", "0.987", "image_auroc", "%", 0.05),
        ("99.18", "0.9918", "image_auroc", "%", 0.005),
        # a full hundred stands among figures with one decimal, however it is written
        ("100", "100", "image_auroc", "%", 0.05),
        ("100", "1.0", "image_auroc", "%", 0.05),
        ("100", "1", "image_auroc", "%", 0.05),
        ("4.9", "4.9", "additional_params", "M", 0.05),
        ("5.574912", "5574912", "additional_params", "M", 0.5e-6),
        ("0", "0", "additional_params", "M", 0.5),
    ],
)
def test_rounding(tmp_path, value, printed, metric, unit, rounding):
    figure = one(tmp_path, value=value, printed=printed, metric=metric, unit=unit)
    assert figure.rounding == pytest.approx(rounding)


def test_a_setting_names_a_variants_fields_or_none(tmp_path):
    assert one(tmp_path, setting="kernels=3,1").fields == {"kernels": (3, 1)}
    assert one(tmp_path, setting="coreset=0.25", method="PatchCore").fields == {"coreset": 0.25}
    assert one(tmp_path, setting="share=25%").fields == {}
    assert one(tmp_path).name == "FastFlow table1: FastFlow, resnet18, mvtec_ad/mean, image_auroc"


def test_every_setting_of_the_paper_is_the_studies_own():
    by_architecture = {v.backbone.split(".")[0]: v for v in PAPER.values()}
    file = bundled("results", "paper", "settings.csv")
    rows = read_table(file, ("backbone", "field", "value", "status", "source"))
    settings = [SimpleNamespace(**row) for row in rows.values()]
    assert len(settings) == 20
    compared = Counter()
    for setting in settings:
        if setting.field == "hardware":
            continue
        assert setting.field in FIELDS
        assert setting.status in ("confirmed", "single-source")
        for architecture, variant in by_architecture.items():
            if setting.backbone in ("", architecture):
                wanted = parse(setting.field, setting.value)
                assert getattr(variant, setting.field) == wanted, setting
                compared[setting.field] += 1
    assert compared == {
        "kernels": 4, "taps": 2, "image_size": 4, "flow_steps": 4, "optimiser": 4,
        "learning_rate": 4, "weight_decay": 4, "epochs": 4, "batch_size": 4,
    }  # fmt: skip


DATASETS = {
    "-": "", "MVTec AD": "mvtec_ad", "BTAD": "btad", "CIFAR-10": "cifar10",
    "MVTec LOCO AD": "mvtec_loco",
    "MVTec AD disturbed (random zoom/rotate/translate)": "disturbed-mvtec_ad",
}  # fmt: skip
CATEGORIES = {
    "-": "", "mean (computed here)": "mean", "one unnamed category": "",
    "1": "01", "2": "02", "3": "03", "1 (VT-ADL numbers it 0)": "01", "2 (1)": "02", "3 (2)": "03",
}  # fmt: skip
NO_FIGURE = {  # settings of the paper, and what is no number
    "hardware", "chosen block index", "optimizer", "learning rate", "weight decay", "epochs",
    "batch size", "input size", "flow steps",
}  # fmt: skip
METRICS = {
    "AUROC": "auroc", "ROC-AUC": "auroc", "Avg. Detection AUROC": "image_auroc",
    "image F1": "image_f1max", "pixel F1": "pixel_f1max", "speed-up": "speed_ratio",
    "parameter reduction": "params_ratio", "trainable parameters": "additional_params",
    "trainable A.d. Params": "additional_params", "CPU time per image": "inference_time",
    "inference time": "inference_time",
}  # fmt: skip


def shared_rows(name):
    """(source, data set, category, metric, value, status) of every figure of the compilation."""
    with (SHARED / "paper" / name).open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] in NO_FIGURE or row["value"] == "absent in the table":
                continue
            names, values = [row["metric"]], [row["value"]]
            if names == ["image/pixel AUROC"]:
                names, values = ["image_auroc", "pixel_auroc"], values[0].split("/")
            scale = {"fraction": 100, "count": 1e-6}.get(row["unit"], 1)
            for metric, value in zip(names, values, strict=True):
                metric = METRICS.get(metric, metric)
                metric = "pixel_auroc" if metric.startswith("pixel AUROC") else metric
                metric = "pixel_pr_auc" if metric.startswith("PR-AUC") else metric
                # one row may stand for two backbones
                for _ in row["backbone"].split(" / "):
                    yield (
                        row["source"], DATASETS[row["dataset"]],
                        CATEGORIES.get(row["category"], row["category"]), metric,
                        round(scale * float(value), 6), row["status"],
                    )  # fmt: skip


@pytest.mark.skipif(
    not (SHARED / "paper").is_dir(), reason="the compiled figures are not on this machine"
)
def test_the_ledger_is_the_compilation_and_nothing_more():
    compiled = [row for n in ("published", "reproductions") for row in shared_rows(f"{n}.csv")]
    # CIFAR-10's AUROC is an image's; a user's AUROC of an issue is of no stated level
    compiled = Counter((*r[:3], _level(r), *r[4:]) for r in compiled)
    ours = Counter(
        (f.source, f.dataset, f.category, f.metric, round(f.value, 6), f.status)
        for n in ("published", "reproductions") for f in ledger(n)
    )  # fmt: skip
    assert not compiled - ours, "left out"
    assert not ours - compiled, "not in the compilation"


def _level(row):
    level = "image_auroc" if row[1] == "cifar10" else "auroc_unspecified"
    return level if row[3] == "auroc" else row[3]


def test_a_column_rounds_by_its_longest_figure(tmp_path):
    rows = [GOOD | {"value": v, "printed": p, "category": c} for v, p, c in (
        ("98.7", "0.987", "a"), ("98", "0.98", "b"))]  # fmt: skip
    file = tmp_path / "l.csv"
    write(file, *rows)
    assert [f.rounding for f in read_published(file)] == pytest.approx([0.05, 0.05])

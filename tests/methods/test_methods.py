"""The compared methods through the whole harness: same data, same cache, same records."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY

from harness.errors import RunFailed
from harness.experiment.choices import METHODS
from harness.experiment.store import read_record, read_records
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.methods.flow.step import FlowStep, make_flow
from harness.methods.memory.coreset import greedy_coreset
from harness.report import sentences, tables
from harness.report.selection import Selection
from harness.run.measure import count_parameters, measure
from harness.run.model import make_model
from harness.run.plan import make_plan
from harness.run.sweep import run_study
from harness.run.train import train as fit
from harness.studies.paper import rivals

SMALL = {"cflow": {"epochs": 2, "warmup_epochs": 0},
         "differnet": {"epochs": 2, "views": 2, "hidden_channels": 16}}  # fmt: skip
BASES = {m: TINY.replace(method=m, **SMALL.get(m, {})) for m in METHODS if m != "fastflow"}
STUDY = Study(name="all", asks="Do all run?", bases={"fastflow": TINY, **BASES}, seeds=(0,))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One real run of every method, in child processes."""
    from tiny import write_category

    from harness.experiment.settings import Settings

    root = tmp_path_factory.mktemp("methods")
    write_category(root / "data" / "left", seed=1)
    settings = Settings(results=root / "results", data=root / "data", device="cpu", jobs=2)
    outcome = run_study(make_plan(STUDY, settings), settings, lambda text: None)
    return settings, outcome


@pytest.mark.whole
def test_every_method_leaves_a_record(recorded):
    settings, outcome = recorded
    assert outcome.failed == []
    assert outcome.recorded == len(METHODS)
    # one pass for all that look at the same features; DifferNet's turned copies are another
    assert (outcome.passes, outcome.reused) == (32, 0)
    for record in read_records(settings.results):
        variant = Variant.from_fields(record.variant)
        method = METHODS[variant.method]
        assert variant.digest == record.digest
        assert 0.5 < record.metrics["image_auroc"] <= 1
        assert ("pixel_auroc" in record.metrics) == method.localises
        if method.localises:
            assert record.metrics["pixel_auroc"] > 0.9
        keeps = variant.method in ("spade", "padim", "patchcore")
        assert (record.parameters.flow == 0) == keeps == (not method.trained)
        assert (record.measured.bank_bytes > 0) == keeps
        assert (record.measured.speed.images_kept is not None) == keeps
        assert len(record.loss) == (variant.epochs if method.trained else 0)
        assert record.macs.flow > 0
        assert record.measured.speed.fps > 0


@pytest.mark.whole
def test_the_tables_show_them(recorded):
    settings, _ = recorded
    selection = Selection(STUDY, settings.results, make_plan(STUDY, settings).dataset, ("left",))
    frame = tables.runs(selection)
    summary = tables.summary(frame, STUDY)
    assert list(summary["label"]) == list(METHODS)
    shown = summary.set_index("label")
    assert np.isnan(shown.loc["differnet", "pixel_auroc"])
    assert shown.loc["padim", "additional_params"] == 0
    assert shown.loc["padim", "bank_bytes"] > 0 == shown.loc["cflow", "bank_bytes"]
    assert "bank (MB)" in tables.cost(frame)
    assert "bank" in tables.as_text(summary, 1)


@pytest.mark.whole
def test_a_scoring_variant_takes_up_the_fitted_scores(recorded):
    settings, _ = recorded
    later = replace(
        STUDY, bases={"patchcore": BASES["patchcore"]},
        vary=one_factor(image_score=("max",), smoothing=(0,)),
    )  # fmt: skip
    outcome = run_study(make_plan(later, settings), settings, lambda text: None)
    assert (outcome.recorded, outcome.already, outcome.failed) == (2, 1, [])
    plan = make_plan(later, settings)
    for cell in plan.cells[1:]:
        record = read_record(plan.place(cell).record)
        assert record.measured.fit_seconds is None
        assert record.measured.bank_bytes > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_decides_everything(method):
    variant = TINY.replace(method=method, **SMALL.get(method, {}))
    shapes = ((16, 1, 1),) if variant.views else ((16, 8, 8), (24, 4, 4))
    one, two = (make_model(variant, shapes, 3).state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_a_method_reaches_its_class(method):
    """What a variant hands over is what the constructor takes, but for the authors' constants."""
    constants = {"condition", "fibers", "views_per_step"}
    of_a_step = {"channels", "height", "width", "step", "kernel", "dims_in", "dims_c"}
    taken = {n for kind in METHODS[method].load().__mro__[:2] for n in _parameters(kind)}
    handed = set(Variant().replace(method=method).arguments)
    assert handed <= taken
    assert taken - handed <= {
        "self",
        "shapes",
        "generator",
        "flow",
        "hidden_layers",
        *constants,
        *of_a_step,
    }


def _parameters(kind):
    """Names that a constructor takes; FastFlow hands on what it does not know to every step."""
    taken = list(inspect.signature(kind.__init__).parameters) if "__init__" in vars(kind) else []
    if "flow" in taken:
        steps = (inspect.signature(f).parameters for f in (make_flow, FlowStep.__init__))
        taken += [name for names in steps for name in names]
    return taken


def test_published_parameter_counts():
    """FastFlow's Table 1: CFLOW-AD 10.5 M on CaiT and 81.6 M on the wide ResNet; banks none."""
    counted = {
        name: count_parameters(variant).flow
        for backbone in ("Wide-ResNet50-2", "CaiT", "ResNet18")
        for name, variant in rivals(backbone, "padim", "patchcore", "cflow").items()
    }
    assert counted["CaiT, CFLOW-AD"] == 10_512_384
    assert counted["Wide-ResNet50-2, CFLOW-AD"] == 81_647_616
    assert round(counted["ResNet18, CFLOW-AD"] / 1e6, 2) == 8.62
    assert {n for v, n in zip(counted, counted.values(), strict=True) if "CFLOW" not in v} == {0}


@pytest.mark.parametrize("method", ["spade", "padim", "patchcore"])
def test_features_that_are_not_finite_are_refused(method):
    variant = Variant().replace(method=method)
    train = [np.ones((4, 8, 2, 2), np.float32)]
    train[0][1, 0, 0, 0] = np.inf
    model = make_model(variant, [(8, 2, 2)], 0)
    with pytest.raises(RunFailed, match="not finite; try feature_dtype=float32"):
        fit(model, train, train, variant=variant, seed=0)
    with pytest.raises(ValueError, match="expected finite features"):
        greedy_coreset(torch.tensor([[0.0], [torch.nan], [1.0]]), 2)


@pytest.mark.whole
def test_a_training_step_of_differnet_looks_at_four_views():
    macs = {v: measure(TINY.replace(method="differnet", views=v), 1).macs for v in (4, 16)}
    assert macs[4].step is None
    assert macs[16].step == macs[4].flow == macs[16].flow // 4


@pytest.mark.whole
def test_the_protocol_says_what_is_fitted(recorded):
    settings, _ = recorded
    selection = Selection(STUDY, settings.results, make_plan(STUDY, settings).dataset, ("left",))
    text = sentences.protocol(selection)
    assert "fitted in one pass (1) for spade, padim, patchcore" in text
    assert "last (2 … 3) for fastflow, cflow, differnet" in text

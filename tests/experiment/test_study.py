"""Studies: their cells, selections and smoke twins."""

import pytest

from harness.errors import InputError
from harness.experiment.study import Cell, Study, grid, one_factor
from harness.experiment.variant import Variant
from harness.studies import STUDIES, get_study
from harness.studies.paper import PAPER
from harness.studies.recipe import FASTFLOW

BASE = Variant()


def make(**changes):
    settings = {"name": "s", "asks": "?", "bases": {"base": BASE}, "seeds": (0, 1)}
    return Study(**{**settings, **changes})


def test_cells_are_bases_times_vary_times_categories_times_seeds():
    study = make(vary=grid(kernels=((3,), (1,)), coupling=("one-sided", "two-sided")))
    cells = list(study.cells(["a", "b", "c"]))
    assert len(cells) == len(set(cells)) == 4 * 3 * 2
    assert cells[0] == Cell(BASE, "a", 0)


def test_equal_cells_are_run_once():
    twice = make(bases={"a": BASE, "b": BASE}, vary=({}, {"flow_steps": 8}), seeds=(0, 0))
    assert list(twice.cells(["a", "a"])) == [Cell(BASE, "a", 0)]


def test_labels_say_what_is_changed():
    study = make(vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)))
    assert list(study.labels().values()) == ["base", "kernels=3,1", "coupling=two-sided"]
    assert list(make(vary=one_factor(kernels=((3, 1),))).labels().values()) == [
        "kernels=3",
        "kernels=3,1",
    ]


def test_where_selects_and_set_changes():
    study = make(vary=one_factor(kernels=((3, 1),), coupling=("two-sided",)))
    assert study.where(kernels=(3,)).variants == (BASE, BASE.replace(coupling="two-sided"))
    assert study.where(kernels=(3,), coupling="two-sided").variants == (
        BASE.replace(coupling="two-sided"),
    )
    changed = study.set(epochs=7)
    assert {v.epochs for v in changed.variants} == {7}
    assert not {v.digest for v in changed.variants} & {v.digest for v in study.variants}


def test_a_study_of_several_methods_changes_what_each_has():
    study = STUDIES["methods"]
    fewer = study.set(epochs=3)
    assert [v.epochs for v in fewer.variants] == [3, 1, 1, 1, 3, 3]
    assert list(study.set(coreset=0.5).where(coreset=0.5).named.values()) == ["PatchCore"]
    with pytest.raises(InputError, match="views: FastFlow has no such choice"):
        study.only("FastFlow", "PaDiM").set(views=2)
    twin = study.smoke()
    assert all(v.smoke and v.epochs == 1 for v in twin.variants)
    assert len(twin.variants) == 6


def test_any_base_can_be_run_with_another_method():
    study = STUDIES["surfaces"].only("base", "smoothing=4.0")
    assert [v.method for v in study.only("base").set(method="padim").variants] == ["padim"]
    with pytest.raises(InputError, match=r"method: with it, .* equal to others .smoothing=4.0."):
        study.set(method="padim")  # whose own smoothing is 4 in both


@pytest.mark.parametrize(
    ("study", "names", "change", "says"),
    [
        (
            "kernels",
            (),
            {"kernels": (3, 1)},
            "kernels: kernels varies it, and the name 'kernels=3'",
        ),
        ("kernels", ("kernels=3",), {"kernels": (1,)}, "the name 'kernels=3' would no longer be"),
        ("surfaces", (), {"actnorm": "none"}, "and the name 'base' would no longer be"),
        (
            "surfaces",
            ("base", "flow_steps=4"),
            {"flow_steps": 4},
            "'base' would no longer be true",
        ),
        ("flow_steps", (), {"method": "cflow"}, "flow_steps: .* and the name 'flow_steps=1'"),
        ("flow_steps", ("flow_steps=8",), {"method": "padim"}, "and the name 'flow_steps=8'"),
        ("table1", (), {"kernels": (3,)}, "kernels: table1 varies it, and the name 'Wide-Res"),
        (
            "table1",
            (),
            {"image_size": 64},
            "image_size: table1 varies it, and the name 'ResNet18'",
        ),
        ("methods", (), {"method": "padim"}, "method: methods varies it, and the name 'FastFlow'"),
        ("kernels_by_backbone", (), {"backbone": "a.b"}, "backbone: .* and the name 'ResNet18"),
    ],
)
def test_what_a_study_varies_cannot_be_set(study, names, change, says):
    with pytest.raises(InputError, match=says) as caught:
        get_study(study, variants=names, set=change)
    assert "chosen by --where or --variant, or a study of your own" in str(caught.value)


def test_what_a_study_does_not_vary_can_be_set():
    assert {
        v.kernels for v in get_study("surfaces", variants=["base"], set={"kernels": (1,)}).variants
    } == {(1,)}
    assert get_study("table2", variants=["CaiT"], set={"kernels": (3,)}).variants[0].kernels == (
        3,
    )
    named = get_study("kernels_by_backbone", set={"permutation": "none", "epochs": 2}).named
    assert list(named.values()) == list(STUDIES["kernels_by_backbone"].named.values())
    assert get_study("kernels", variants=["kernels=3"], set={"kernels": (3,)}).variants[
        0
    ].kernels == (3,)


def test_rivals_stand_on_the_backbone_of_their_row():
    variants = STUDIES["table1"].named
    rows = {(v.method, v.backbone.split(".")[0]): v for v in variants}
    assert rows["cflow", "wide_resnet50_2"].taps == (2, 3, 4)
    assert rows["spade", "resnet18"].taps == (1, 2, 3, 4)
    assert rows["patchcore", "cait_m48_448"].taps == (40,)
    padim = STUDIES["table2"].only("Wide-ResNet50-2, PaDiM").variants[0]
    assert padim.channels == 550


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.where(kernels=(5,)), "no variant of s has kernels=5; expected one of: 3"),
        (lambda s: s.where(kernel=(5,)), "unknown field 'kernel'"),
        (lambda s: s.set(kernel=(5,)), "unknown field 'kernel'"),
        (lambda s: make(vary=({"kernel": 1},)), "unknown field 'kernel'"),
        (lambda s: make(seeds=()), "expected at least one of seeds"),
        (lambda s: make(seeds=(-1,)), "expected seeds in 0"),
        (lambda s: make(bases={}), "expected at least one of bases"),
        (lambda s: get_study("surface"), "unknown study 'surface'; did you mean 'surfaces'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call(make())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_question_and_a_smoke_twin(name):
    study, twin = STUDIES[name], get_study(name, smoke=True)
    assert study.asks.endswith("?")
    assert twin.name == f"{name}-smoke"
    # what differs in the number of steps alone is one smoke run
    assert len(twin.variants) == len({v.replace(min_steps=0) for v in study.variants})
    assert not {v.digest for v in twin.variants} & {v.digest for v in study.variants}
    assert {v.epochs for v in twin.variants} == {1}
    assert len(twin.seeds) == 1


def test_a_smoke_twin_needs_no_whole_batch():
    study = get_study("reproductions", smoke=True)
    assert not any(v.drop_last for v in study.variants)


def test_surfaces_has_the_promised_axes():
    base, *others = STUDIES["surfaces"].variants
    varied = [set(v.changes(base)) for v in others]
    assert all(len(v) == 1 for v in varied), "one factor at a time"
    assert {"backbone", "kernels", "flow_steps", "coupling"} <= set().union(*varied)


def test_seeds_replace_the_studys_own():
    assert get_study("surfaces", seeds=[5]).seeds == (5,)


# What the paper's tables and open questions need, and how many variants each study has.
MIRRORS = {
    "methods": 6, "table1": 13, "table2": 9, "table3": 9, "table4": 7, "kernels": 2,
    "kernels_by_backbone": 8, "hidden_width": 4, "flow_steps": 7, "coupling": 3, "block_index": 14,
    "disturbed": 4, "norm": 4, "permutation": 3, "actnorm": 3, "score_rule": 9,
    "epoch_selection": 6, "augmentation": 5,
    "reproductions": 22, "recipe": 3, "around": 11, "image_score": 16, "centring": 5,
    "tap_scale": 15, "steps": 6, "label_free": 11, "additive": 2, "learned_base": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", MIRRORS)
def test_the_mirror_studies(name):
    study = STUDIES[name]
    assert len(study.variants) == MIRRORS[name]
    labels = list(study.named.values())
    assert len(set(labels)) == len(labels) == len(study.labels())
    assert all(label == label.strip(" ,") != "" for label in labels)
    assert study.seeds == (0, 1, 2)
    # every variant can be asked for by its name, and keeps it
    for variant, label in study.named.items():
        assert study.only(label).named == {variant: label}


def test_the_studies_are_those_and_the_embedded_one():
    assert set(STUDIES) == {"surfaces", *MIRRORS}
    data = {name: s.dataset for name, s in STUDIES.items() if s.dataset != "mvtec_ad"}
    assert data == {
        "surfaces": "surfaces", "table3": "btad", "table4": "cifar10",
        "disturbed": "disturbed-mvtec_ad", "recipe": "surfaces",
    }  # fmt: skip


def test_the_reference_of_an_ablation_is_the_papers_setting():
    for name in ("kernels", "flow_steps", "coupling", "norm", "permutation", "actnorm",
                 "score_rule", "augmentation"):  # fmt: skip
        assert STUDIES[name].variants[0] == PAPER["ResNet18"], name
    assert STUDIES["hidden_width"].variants[0] == PAPER["Wide-ResNet50-2"]
    assert set(STUDIES["kernels_by_backbone"].variants) > set(PAPER.values())


def test_the_recipe_is_what_others_are_measured_against():
    for name in ("image_score", "centring", "tap_scale", "steps"):
        assert STUDIES[name].variants[0] == FASTFLOW, name
    for name in ("image_score", "centring", "tap_scale"):  # nothing is trained anew
        assert {v.training for v in STUDIES[name].variants} == {FASTFLOW.training}
    assert STUDIES["around"].variants[0] == FASTFLOW.replace(min_steps=60)
    assert FASTFLOW.epoch_selection == "last"
    assert FASTFLOW.holdout == 0


def test_tables_share_their_cells():
    one, two = (set(STUDIES[t].cells(["bottle"])) for t in ("table1", "table2"))
    assert len(one & two) == (4 + 3) * 3  # FastFlow's, and three rivals on the wide ResNet
    assert next(iter(STUDIES["table2"].variants)) == PAPER["CaiT"]
    kernels = set(STUDIES["kernels"].cells(["bottle"]))
    assert kernels < set(STUDIES["kernels_by_backbone"].cells(["bottle"]))


def test_coupling_changes_nothing_but_the_coupling_and_once_the_steps():
    base, two, four = STUDIES["coupling"].variants
    assert (base.coupling, base.flow_steps) == ("one-sided", 8)
    assert two.changes(base) == {"coupling": "two-sided"}
    assert four.changes(base) == {"coupling": "two-sided", "flow_steps": 4}


def test_block_index_changes_the_block_alone():
    taps = {"DeiT": [], "CaiT": []}
    for variant, name in STUDIES["block_index"].named.items():
        backbone = name.split(",")[0]
        assert set(variant.changes(PAPER[backbone])) <= {"taps"}
        assert name == f"{backbone}, block {variant.taps[0]}"
        taps[backbone].append(variant.taps)
    assert taps["DeiT"][0] == (7,)
    assert taps["CaiT"][0] == (40,)
    assert max(taps["DeiT"]) <= (11,)  # of 12 blocks
    assert max(taps["CaiT"]) <= (47,)  # of 48


def test_score_rules_need_no_training_of_their_own():
    assert len({v.training for v in STUDIES["score_rule"].variants}) == 1
    trainings = {v.training for v in STUDIES["epoch_selection"].variants}
    assert {v.holdout for v in trainings} == {0, 0.1}
    assert len(trainings) == 2


REPRODUCTIONS = {
    "gathierry, ResNet18": {"norm": "layer-affine", "epoch_selection": "last", "epochs": 500},
    "gathierry, DeiT": {"hidden_ratio": 0.16, "hidden_channels": None, "norm": "none"},
    "gathierry, CaiT, best epoch": {"epoch_selection": "best-pixel-on-test", "eval_every": 10},
    "anomalib, Wide-ResNet50-2": {
        "patience": 3, "epoch_selection": "best-pixel-on-test", "kernels": (3, 1),
    },
    "anomalib, ResNet18": {"kernels": (3,), "patience": 3, "norm": "layer-affine"},
    "anomalib 2 and IM-IAD, ResNet18": {
        "kernels": (3, 1), "patience": 0, "epoch_selection": "last", "epochs": 500,
    },
    "anomalib 2023, DeiT": {"patience": 10, "epoch_selection": "best-pixel-on-test"},
    "lelexx, ResNet18": {
        "coupling": "two-sided", "flow_steps": 4, "hidden_ratio": 1.06, "norm": "batch",
        "gradient_clip": 0.9, "smoothing": 6.0, "loss": "mean", "patience": 30,
    },
    "RistoranteRist, CaiT": {
        "coupling": "two-sided", "flow_steps": 20, "hidden_channels": 128, "actnorm": "data",
        "clamp": "atan", "clamp_value": 0.15, "learning_rate": 2e-4, "norm": "none",
        "score_map": "nll-log-det",
    },
    "AlessioGalluccio, ResNet18": {
        "taps": (1,), "flow_steps": 4, "coupling": "one-sided", "clamp_value": 1.2,
        "hidden_channels": 128, "learning_rate": 2e-4, "batch_size": 24, "norm": "none",
        "augmentation": "all-turned", "augmentation_degrees": 180.0, "score_map": "nll",
        "image_score": "mean", "test_turns": 16,
    },
    "wuzujiong, Wide-ResNet50-2": {
        "kernels": (3, 1), "flow_steps": 8, "coupling": "one-sided", "clamp_value": 2.5,
        "hidden_ratio": 2.0, "loss": "mean", "gradient_clip": 1.0, "epochs": 50,
        "augmentation": "paper", "augmentation_degrees": 180.0, "score_map": "nll",
        "image_score": "mean", "norm": "none", "batch_size": 32,
    },
    "HTCho1, CaiT": {
        "kernels": (1, 3), "smoothing": 4.0, "epoch_selection": "best-on-test", "eval_every": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_reproductions_recipes(name):
    (variant,) = STUDIES["reproductions"].only(name).variants
    wanted = REPRODUCTIONS[name]
    assert {k: getattr(variant, k) for k in wanted} == wanted


def test_every_reproduction_has_the_papers_backbones():
    names = set(STUDIES["reproductions"].named.values())
    assert {f"gathierry, {b}" for b in PAPER} | {f"anomalib, {b}" for b in PAPER} < names
    backbones = {v.backbone for v in PAPER.values()}
    assert {v.backbone for v in STUDIES["reproductions"].variants} == backbones | {
        "wide_resnet50_2.tv_in1k"  # torchvision's, where the recipe names it
    }


def test_names_stay_when_settings_are_changed_and_variants_chosen():
    study = get_study("kernels_by_backbone", variants=["DeiT, kernels=3"], set={"epochs": 5})
    ((variant, name),) = study.named.items()
    assert (name, variant.epochs, variant.kernels) == ("DeiT, kernels=3", 5, (3,))
    with pytest.raises(InputError, match="unknown variant of table1 'Deit'; did you mean 'DeiT'"):
        get_study("table1", variants=["Deit"])


def test_several_bases_name_the_base():
    study = make(bases={"a": BASE, "b": BASE.replace(epochs=9)}, vary=one_factor(flow_steps=(4,)))
    assert list(study.named.values()) == ["a", "a, flow_steps=4", "b", "b, flow_steps=4"]


@pytest.mark.parametrize("field", ["warmup_epochs", "eval_every"])
def test_what_comes_after_the_last_epoch_is_refused(field):
    base = Variant(epochs=3)
    with pytest.raises(InputError, match=f"^{field}: expected at most epochs, 3, .*; got 4"):
        Study(name="s", asks="?", bases={"b": base}, vary=({field: 4},))
    with pytest.raises(InputError, match=f"^{field}: expected at most epochs, 3"):
        Study(name="s", asks="?", bases={"b": base}).set(**{field: 4})
    long = Study(name="s", asks="?", bases={"b": Variant(epochs=30, **{field: 20})})
    assert getattr(long.set(epochs=3).variants[0], field) == 3  # it comes at their end
    assert getattr(long.smoke().variants[0], field) == 1
    with pytest.raises(InputError, match=f"^{field}: expected at most epochs, 3"):
        long.set(epochs=3, **{field: 20})
    more = Study(name="s", asks="?", bases={"b": base.replace(min_steps=99, **{field: 20})})
    assert getattr(more.variants[0], field) == 20  # epochs go up to reach the steps

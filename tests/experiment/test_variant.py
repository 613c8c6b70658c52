"""Variants: validation, digests, parsing."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.values import checked, show
from harness.experiment.variant import ABOUT, DEFAULTS, FIELDS, HINTS, Variant, parse

# Digests name records on disk. If one of these changes, old records are lost: do not edit a
# line, unless a default was changed on purpose and CHANGELOG says which results that changes.
GOLDEN = {
    "44136fa355b3": {},
    "806e933ce1e6": {"kernels": (3, 1)},
    "cc6325ab488e": {"epochs": 3},
    "b0b2771c98f3": {"backbone": "cait_m48_448.fb_dist_in1k", "hidden_channels": 128},
    "5ac134fcb366": {"norm": "none", "smoothing": 4.0, "taps": (7,)},
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_fits_as_it_stands(name):
    """A field at its default is not looked at again."""
    assert repr(checked(name, DEFAULTS[name], HINTS[name])) == repr(DEFAULTS[name])


@pytest.mark.parametrize(("digest", "changes"), GOLDEN.items())
def test_digest_is_stable(digest, changes):
    assert Variant(**changes).digest == digest


def test_digest_depends_on_every_field():
    other = {
        "backbone": "resnet34.tv_in1k", "weights": "random", "image_size": 128, "taps": (1,),
        "feature_dtype": "float16", "norm": "none", "flow_steps": 2, "kernels": (1,),
        "hidden_ratio": 0.5, "hidden_channels": 4, "coupling": "two-sided",
        "permutation": "none", "actnorm": "data", "clamp": "atan", "clamp_value": 1.0,
        "subnet_scale": 1.0, "loss": "mean", "optimiser": "adamw", "learning_rate": 0.1,
        "weight_decay": 0.0, "schedule": "cosine", "warmup_epochs": 1, "epochs": 2,
        "min_steps": 9, "batch_size": 4, "gradient_clip": 1.0,
        "precision": "bfloat16", "holdout": 0.1,
        "eval_every": 5, "smoke": True, "score_map": "nll", "scale_aggregation": "sum",
        "smoothing": 1.0, "image_score": "mean", "top_k": 0.5, "epoch_selection": "best-on-test",
        "drop_last": True, "init_gain": 0.5, "patience": 3, "views": 2, "coreset": 0.5,
        "neighbours": 3, "channels": 50, "align_corners": True,
        "resize": "crop", "mask_resize": "covered", "leaks": "allow", "tap_scale": "quantile",
        "tap_position": "position", "tap_reference": "held-out", "tap_weights": (1.0, 2.0, 1.0),
        "centring": "border", "image_centring": "median", "p_floor": 0.1,
        "feature_pooling": 3, "test_turns": 8,
        "augmentation": "paper", "augmentation_degrees": 5.0, "augmentation_copies": 4,
        "image_tap_scale": "none", "image_score_map": "nll",
        "coupling_function": "additive",
        "adam_epsilon": 1e-4, "warmup_steps": 5, "eval_steps": 5, "ema": 0.9,
        "feature_noise": 0.1, "zero_last": True, "subnet_norm": "layer",
        "base": "learned", "base_learning_rate": 0.1, "base_every": 5, "position_channels": 8,
        "validation": "synthetic", "tile_size": 64, "tile_overlap": 0.5,
    }  # fmt: skip
    assert {"method", *other} == set(FIELDS)
    made = {name: {name: value} for name, value in other.items()}
    made["patience"] |= {"epoch_selection": "best-on-test", "eval_every": 1}
    made["tap_reference"] |= {"holdout": 0.2}
    made["validation"] |= {"holdout": 0.1}
    made["tile_overlap"] |= {"tile_size": 64}
    bases = {method: Variant().replace(method=method) for method in METHODS}
    digests = {base.digest for base in bases.values()}
    for name, changes in made.items():
        base = next(b for b in bases.values() if name in b.choices)
        digests.add(base.replace(**changes).digest)
    assert len(digests) == len(METHODS) + len(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coupling": "both"}, "coupling: expected one of one-sided, two-sided; got 'both'"),
        (
            {"kernels": (2,)},
            r"kernels: expected odd sizes of at most 31, as in \(3, 1\); got \(2,\)",
        ),
        ({"kernels": (-1,)}, "kernels: expected odd sizes"),
        ({"kernels": ()}, "kernels: expected odd sizes"),
        ({"kernels": "3"}, "kernels: expected whole numbers, as in 3,1; got '3'"),
        (
            {"position_channels": 6},
            "position_channels: expected 0, or a multiple of 4 up to 4096; got 6",
        ),
        (
            {"base_every": 1},
            "base_every: expected 0 for none, or a number from 2 to 1000000; got 1",
        ),
        ({"epochs": 0}, "epochs: expected a number from 1 to 1000000; got 0"),
        ({"epochs": 2.5}, "epochs: expected a whole number; got 2.5"),
        ({"epochs": True}, "epochs: expected a whole number; got True"),
        ({"learning_rate": 0}, "learning_rate: expected a number from 1e-12 to 10; got 0"),
        (
            {"learning_rate": float("nan")},
            "learning_rate: expected a number from 1e-12 to 10; got nan",
        ),
        (
            {"learning_rate": float("inf")},
            "learning_rate: expected a number from 1e-12 to 10; got inf",
        ),
        ({"holdout": 1.0}, r"holdout: expected a share in \[0, 1\); got 1.0"),
        ({"top_k": 0}, r"top_k: expected a share in \(0, 1\]; got 0"),
        (
            {"feature_pooling": 2},
            "feature_pooling: expected 0 for none, or an odd size, as 3, of at most 1023",
        ),
        ({"test_turns": 1}, "test_turns: expected 0 for none, or a number from 2 to 360; got 1"),
        (
            {"tile_size": 15},
            "tile_size: expected 0 for none, or a number from 16 to 65535; got 15",
        ),
        ({"tile_overlap": 1.0}, r"tile_overlap: expected a share in \[0, 0.9\]; got 1.0"),
        (
            {"tile_size": 64, "resize": "crop"},
            "resize: expected square or pad beside tile_size; got crop",
        ),
        ({"tile_size": 64, "test_turns": 4}, "test_turns: expected 0 beside tile_size; got 4"),
        (
            {"feature_pooling": -1},
            "feature_pooling: expected 0 for none, or an odd size, as 3, of at most 1023",
        ),
        ({"taps": (3, 1)}, "taps: expected strictly increasing"),
        ({"taps": (-1,)}, "taps: expected strictly increasing"),
        ({"backbone": "resnet18"}, "backbone: expected a timm model with its weights tag"),
        ({"backbone": "../x.y"}, "backbone: expected a timm model with its weights tag"),
        ({"hidden_channels": 0}, "hidden_channels: expected a whole number from 1 to 65536, or"),
        ({"hidden_channels": 1.5}, "hidden_channels: expected a whole number or none; got 1.5"),
        ({"smoke": 1}, "smoke: expected true or false; got 1"),
        ({"drop_last": "yes"}, "drop_last: expected true or false; got 'yes'"),
        ({"patience": 3}, "patience: expected an epoch_selection that compares epochs"),
        (
            {"patience": 3, "epoch_selection": "best-on-test"},
            "patience: .* eval_every above 0; got best-on-test and 0",
        ),
        ({"tap_weights": (1, 2)}, "tap_weights: expected one a tap, 3; got 2"),
        (
            {"tap_weights": (0, 0, 0)},
            "tap_weights: expected numbers from 0 to 1000, not all below 0.001",
        ),
        (
            {"norm": None},
            "norm: expected one of none, layer, layer-affine, batch, standard, whiten; got None",
        ),
        (
            {"warmup_steps": 5, "warmup_epochs": 2},
            "warmup_steps: expected 0 beside warmup_epochs above 0.*; got 5 and 2",
        ),
        (
            {"eval_steps": 5, "eval_every": 2},
            "eval_steps: expected 0 beside eval_every above 0.*; got 5 and 2",
        ),
        ({"epoch_selection": "lowest-holdout-loss"}, "expected holdout above 0; got 0"),
        ({"validation": "synthetic"}, "validation: synthetic needs .* expected holdout above 0"),
        (
            {"epoch_selection": "label-free", "holdout": 0.1},
            "epoch_selection: label-free .* expected validation=synthetic, .* got validation=none",
        ),
    ],
)
def test_errors_name_field_expectation_and_value(changes, message):
    with pytest.raises(InputError, match=message):
        Variant(**changes)


HUGE = [
    ("image_size", "100000"), ("image_size", "10000000000000"), ("image_size", "64,5000"),
    ("kernels", "99"), ("kernels", "1000000001"), ("kernels", "3," * 20_000), ("epochs", "----1"),
    ("learning_rate", "1e300"), ("learning_rate", "1" * 400), ("learning_rate", "1e-300"),
    ("epochs", "1" + "0" * 26), ("epochs", "9" * 5000), ("batch_size", "1000000"),
    ("flow_steps", "100000"), ("hidden_ratio", "1e9"), ("hidden_channels", "10000000"),
    ("clamp_value", "89"), ("subnet_scale", "1e300"), ("init_gain", "1e300"), ("taps", "5000"),
    ("taps", "1" * 30), ("weight_decay", "1e300"), ("adam_epsilon", "1e-300"),
    ("ema", "0.9999999"),
    ("smoothing", "1e9"), ("augmentation_degrees", "720"), ("augmentation_copies", "1000000"),
    ("test_turns", "100000"), ("views", "100000"), ("position_channels", "8192"),
    ("neighbours", "1000000000"), ("channels", "1000000000"), ("gradient_clip", "1e-300"),
    ("feature_noise", "1e300"), ("tap_weights", "1e-300,0,0"), ("tile_size", "100000"),
    ("feature_pooling", "99999"), ("min_steps", "1e10"), ("warmup_steps", "1" + "0" * 12),
    ("patience", "1" + "0" * 12), ("backbone", "a" * 500 + ".b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), HUGE, ids=lambda v: v[:20])
def test_what_nobody_can_mean_is_refused_in_one_short_line(name, text):
    with pytest.raises(InputError, match=f"^{name}: expected .*; got ") as error:
        parse(name, text)
    assert len(str(error.value)) < 250


def test_a_number_too_large_for_a_float_is_refused():  # in a study's file it is no text
    with pytest.raises(InputError, match=r"^learning_rate: expected a number; got 1000"):
        Variant(learning_rate=10**400)
    with pytest.raises(InputError, match=r"^epochs: expected .*; got a number of too many digits"):
        Variant(epochs=10**5000)


def test_every_field_is_checked():
    for f in fields(Variant):
        with pytest.raises(InputError, match=f"^{f.name}: expected"):
            Variant(**{f.name: object()})


def test_unknown_field_is_an_error_with_a_near_match():
    with pytest.raises(InputError, match="unknown field 'kernel'; did you mean 'kernels'"):
        Variant().replace(kernel=(3,))


def test_record_round_trip():
    variant = Variant(kernels=(3, 1), hidden_channels=8, norm="none", smoothing=2)
    stored = json.loads(json.dumps(asdict(variant)))
    assert Variant.from_fields(stored) == variant


def test_whole_numbers_and_fractions_of_one_value_are_one_variant():
    assert Variant(smoothing=4).digest == Variant(smoothing=4.0).digest
    assert Variant(kernels=[3, 1]) == Variant(kernels=(3, 1))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("kernels", "3,1", (3, 1)),
        ("kernels", "3", (3,)),
        ("kernels", "(3, 1)", (3, 1)),
        ("epochs", "20", 20),
        ("smoothing", "4", 4.0),
        ("learning_rate", "1e-3", 1e-3),
        ("hidden_channels", "none", None),
        ("smoke", "true", True),
        ("norm", "none", "none"),
    ],
)
def test_parse(name, text, value):
    assert parse(name, text) == value
    assert parse(name, show(value)) == value


def test_numpys_floats_are_numbers():
    rates = [Variant(learning_rate=rate) for rate in np.geomspace(1e-3, 1e-1, 3)]
    assert rates == [Variant(learning_rate=float(r)) for r in np.geomspace(1e-3, 1e-1, 3)]
    assert all(type(v.learning_rate) is float for v in rates)


def test_a_set_has_no_order():
    with pytest.raises(InputError, match=r"taps: expected whole numbers, as in 3,1; got {1, 2}"):
        Variant(taps={1, 2})


@pytest.mark.parametrize("text", ["x", "", "3;1", "__import__('os')", "1.5", "3,x"])
def test_parse_refuses(text):
    with pytest.raises(InputError, match="kernels: expected whole numbers"):
        parse("kernels", text)


def test_training_resets_scoring_alone():
    variant = Variant(kernels=(1,), score_map="nll", smoothing=2, image_score="mean")
    assert variant.training == Variant(kernels=(1,))
    held = Variant(holdout=0.2)
    assert held.replace(epoch_selection="lowest-holdout-loss").training == held
    validated = held.replace(validation="synthetic")
    assert validated.replace(epoch_selection="label-free").training == validated != held


def test_label_free_of_old_records_is_the_rule_that_it_was():
    old = asdict(Variant(holdout=0.2)) | {"epoch_selection": "label-free"}
    del old["validation"]
    wanted = Variant(holdout=0.2, epoch_selection="lowest-holdout-loss")
    assert Variant.from_fields(old) == wanted
    new = asdict(wanted.replace(validation="synthetic", epoch_selection="label-free"))
    assert Variant.from_fields(new).epoch_selection == "label-free"


@pytest.mark.parametrize("method", METHODS)
def test_another_method_brings_its_own_settings(method):
    base = Variant(image_size=128, epochs=7, flow_steps=3, leaks="allow", weights="random")
    variant = base.replace(method=method)
    if method == "fastflow":
        assert variant == base
        return
    kept = {"image_size": 128, "leaks": "allow", "weights": "random", "method": method}
    assert variant.changes() == kept | dict(METHODS[method].recipe)
    assert variant.replace(method="fastflow") == base.replace(epochs=500, flow_steps=8)
    assert Variant.from_fields(json.loads(json.dumps(asdict(variant)))) == variant
    assert variant.training == variant.replace(leaks="refuse")
    assert variant.replace(mask_resize="covered").training == variant.training


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_no_choice_of_what_is_not_its_own(method):
    variant = Variant().replace(method=method)
    others = {
        "epochs": 3, "flow_steps": 3, "coreset": 0.5, "neighbours": 3, "channels": 7, "views": 3,
        "feature_pooling": 3, "augmentation": "flips", "test_turns": 4,
        "smoothing": 1.5, "score_map": "nll-log-det", "norm": "none", "image_score": "mean",
    }  # fmt: skip
    assert all(ABOUT[name]["kind"] != "every" for name in others)
    for name, value in others.items():
        if name in variant.choices:
            assert getattr(variant.replace(**{name: value}), name) == value
        else:
            with pytest.raises(InputError, match=f"{name}: {METHODS[method].name} has no such"):
                variant.replace(**{name: value})


def test_only_some_methods_have_an_image_score_of_their_own():
    for method in ("fastflow", "padim", "cflow"):
        with pytest.raises(InputError, match="no image score of its own"):
            Variant().replace(method=method, image_score="own")


def test_recipes_are_of_fields_that_exist():
    for method in METHODS.values():
        assert set(method.recipe) | method.fields <= set(FIELDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"views": 0}, "views: DifferNet expected at least 1; got 0"),
     ({"epoch_selection": "best-pixel-on-test", "eval_every": 1}, "DifferNet gives no map"),
     ({"epoch_selection": "best-on-test"}, "rule than best-on-test, as best-image-on-test")],
)  # fmt: skip
def test_what_differnet_cannot_do(change, message):
    with pytest.raises(InputError, match=message):
        Variant().replace(method="differnet", **change)

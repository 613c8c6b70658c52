"""Choices are written once: a Literal's values are the keys of the table that implements it."""

from typing import Literal, get_args, get_origin

import pytest

from harness.data import synthetic
from harness.data.fitting import FITS
from harness.experiment.choices import METHODS
from harness.experiment.variant import HINTS
from harness.features import augmentation
from harness.methods import fastflow, norms
from harness.methods.flow import base, step, subnet
from harness.run import energies, schedule, train, watch
from harness.score import images as image_rules
from harness.score import maps, reference, select_epoch

TABLES = {
    "augmentation": augmentation.AUGMENTATIONS,
    "resize": FITS,
    "norm": norms.NORMS,
    "loss": fastflow.LOSSES,
    "coupling": step.COUPLINGS,
    "coupling_function": step.COUPLING_FUNCTIONS,
    "subnet_norm": subnet.SUBNET_NORMS,
    "base": base.BASES,
    "permutation": step.PERMUTATIONS,
    "actnorm": step.AFFINES,
    "clamp": step.CLAMPS,
    "optimiser": train.OPTIMISERS,
    "schedule": schedule.SCHEDULES,
    "precision": watch.PRECISIONS,
    "validation": synthetic.DEFECTIVE_COPIES,
    "score_map": maps.MAPS,
    "scale_aggregation": maps.JOINS,
    "tap_scale": maps.SCALES,
    "image_score_map": {"same": None, **maps.MAPS},
    "image_tap_scale": {"same": None, **maps.SCALES},
    "tap_position": reference.POSITIONS,
    "tap_reference": dict.fromkeys(energies.REFERENCES),
    "centring": maps.LEVELS,
    "image_centring": maps.LEVELS,
    "image_score": {**image_rules.RULES, "own": None},
    "epoch_selection": select_epoch.RULES,
}


# Choices of two that are an if where they are implemented.
WITHOUT = {"weights", "feature_dtype", "mask_resize", "leaks"}


@pytest.mark.parametrize("field", TABLES)
def test_a_choice_has_the_values_of_its_table(field):
    assert get_args(HINTS[field]) == tuple(TABLES[field])


def test_every_named_choice_has_a_table():
    named = {name for name, hint in HINTS.items() if get_origin(hint) is Literal}
    assert named == TABLES.keys() | WITHOUT
    assert all(len(get_args(HINTS[name])) == 2 for name in WITHOUT)


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_finds_its_class(name):
    assert METHODS[name].load().__module__ == f"harness.methods.{name}"
    assert METHODS[name].load().trained == METHODS[name].trained

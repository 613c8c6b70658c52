"""Choices are written once: a Literal's values are the keys of the table that implements it."""

from typing import get_args

import pytest

from harness.experiment import choices
from harness.experiment.choices import METHODS
from harness.methods import fastflow
from harness.methods.flow import step
from harness.run import train
from harness.score import images as image_rules
from harness.score import maps, select_epoch

TABLES = {
    choices.Norm: fastflow.NORMS,
    choices.Loss: fastflow.LOSSES,
    choices.Coupling: step.COUPLINGS,
    choices.Permutation: step.PERMUTATIONS,
    choices.Affine: step.AFFINES,
    choices.Clamp: step.CLAMPS,
    choices.Optimiser: train.OPTIMISERS,
    choices.Schedule: train.SCHEDULES,
    choices.Precision: train.PRECISIONS,
    choices.ScoreMap: maps.MAPS,
    choices.ScaleAggregation: maps.JOINS,
    choices.ImageScore: {**image_rules.RULES, "own": None},
    choices.EpochSelection: select_epoch.RULES,
}


@pytest.mark.parametrize("choice", TABLES)
def test_a_choice_has_the_values_of_its_table(choice):
    assert set(get_args(choice)) == set(TABLES[choice])


def test_the_rules_for_images_and_masks():
    assert {*get_args(choices.Resize)} == {"square", "crop"}


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_finds_its_class(name):
    assert METHODS[name].load().__module__ == f"harness.methods.{name}"
    assert METHODS[name].load().trained == METHODS[name].trained

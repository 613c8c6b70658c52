"""Fixtures: the tiny data set, settings and a study on it."""

import gc

import pytest
import torch
from tiny import TINY, write_category

from harness.experiment.settings import Settings
from harness.experiment.study import Study, one_factor
from harness.features.backbone import Backbone


def pytest_collection_finish():
    """Let the garbage collector leave out what imports have made: a million objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Take them back, as libraries print what is left of them at the end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """Tensors this small are several times faster without the hand-over between threads.

    And a test draws the same numbers, whichever tests came before it in this process.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind():
    """Finalise what a module's tests leave in cycles: what it says then is said of that module."""
    yield
    gc.collect()


@pytest.fixture
def data(tmp_path):
    """A folder with the categories ``left`` and ``right``."""
    write_category(tmp_path / "data" / "left", seed=1)
    write_category(tmp_path / "data" / "right", seed=2)
    return tmp_path / "data"


@pytest.fixture
def settings(tmp_path, data):
    """A study's settings on the tiny data set."""
    return Settings(results=tmp_path / "results", data=data, device="cpu", jobs=2)


@pytest.fixture
def study():
    """Three variants, the last of which needs no training of its own."""
    return Study(
        name="tiny",
        asks="Does it run?",
        bases={"base": TINY},
        vary=one_factor(kernels=((3,),), score_map=("nll",)),
        seeds=(0, 1),
    )


@pytest.fixture(params=["resnet18.tv_in1k", "tf_efficientnet_lite0.pypi_in1k"])
def backbone(request):
    """A backbone at 64 pixels with generic batch norms."""
    torch.manual_seed(0)
    backbone = Backbone(request.param, taps=(1, 2), image_size=64)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return backbone

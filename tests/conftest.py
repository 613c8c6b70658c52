"""A tiny data set in the MVTec AD layout, and a variant that trains on it in a second."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.plan import Settings
from harness.study import Study, one_factor
from harness.variant import Variant

SHARED = Path(__file__).parents[2] / "shared"  # real data and weights, where there are any

TINY = Variant(
    backbone="tf_efficientnet_lite0.pypi_in1k",
    image_size=64,
    taps=(1, 2),
    flow_steps=2,
    kernels=(3, 1),
    actnorm="data",
    epochs=3,
    batch_size=8,
    eval_every=2,
)


def write_category(folder: Path, *, good: int = 8, bad: int = 4, size: int = 64, seed: int = 0):
    """Noise with, in the defective images, a square brighter than any noise."""
    rng = np.random.default_rng(seed)

    def save(path: Path, *, defect: bool) -> None:
        image = rng.integers(90, 130, (size, size, 3), dtype=np.uint8)
        mask = np.zeros((size, size), dtype=np.uint8)
        if defect:
            row, column = rng.integers(4, size - 28, 2)
            mask[row : row + 24, column : column + 24] = 255
            image[mask > 0] = 255
            target = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    for i in range(good):
        save(folder / "train" / "good" / f"{i:03}.png", defect=False)
    for i in range(bad):
        save(folder / "test" / "good" / f"{i:03}.png", defect=False)
        save(folder / "test" / "bright" / f"{i:03}.png", defect=True)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are several times faster without the hand-over between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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

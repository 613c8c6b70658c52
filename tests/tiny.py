"""What many tests share: a tiny data set in the MVTec AD layout, and a variant for it."""

import time
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.variant import Variant
from harness.run import job
from harness.run.executors.contract import Event

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


# What the tests of cached features pass images through.
SIZE = 64
SPEC = FeatureSpec(backbone="tf_efficientnet_lite0.pypi_in1k", taps=(1, 2), image_size=SIZE)


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


def lasting(record):
    """Give what a record says, but for times and the commit, which may change beneath a test."""
    said = msgspec.to_builtins(record)
    del said["measured"], said["environment"]["commit"]
    return said


class Here:
    """An executor that runs the jobs in this process, so that faults can be put into them."""

    def prepare(self):
        pass

    def run(self, tasks):
        for task in tasks:
            if task is None:
                time.sleep(0.05)
                continue
            for i, one in enumerate(task):
                epochs = []
                try:
                    job.run_job(one, lambda epoch, loss, seen=epochs: seen.append(epoch), print)
                except Exception as error:
                    trained = i + 1 < len(task) and one.is_trained()
                    failed = task[i : i + 1] if trained else task[i:]
                    yield from (Event(j, "failed", reason=str(error)) for j in failed)
                    if not trained:
                        break
                else:
                    yield from (Event(one, "epoch", epoch=epoch) for epoch in epochs)
                    yield Event(one, "done")

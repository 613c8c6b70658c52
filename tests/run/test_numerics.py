"""Images and numbers at the edge: a defined record, or a failure that says what to do."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, Here, write_category

from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.settings import Settings
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.run.plan import make_plan
from harness.run.sweep import run_study

DEFINED = {"image_auroc", "pixel_auroc"}


def constant(folder, *, alike):
    """Grey images without any texture; ``alike``: defective ones too."""

    def save(name, value, mask=None):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((64, 64), value, np.uint8)
        if mask is not None:
            image[mask > 0] = value if alike else 255
            target = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        Image.fromarray(image).save(path)

    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 10:30] = 255
    for i in range(3):
        save(f"train/good/{i}.png", 100)
    for i in range(2):
        save(f"test/good/{i}.png", 100)
        save(f"test/bright/{i}.png", 100, mask)


def without(folder, kind):
    write_category(folder, good=3, bad=2)
    shutil.rmtree(folder / "test" / kind)
    if kind == "bright":
        shutil.rmtree(folder / "ground_truth")


# case → how its images are made, and the metrics that must be there
CASES = {
    "all alike": (lambda f: constant(f, alike=True), DEFINED),
    "no texture": (lambda f: constant(f, alike=False), DEFINED),
    "one image": (lambda f: write_category(f, good=1, bad=2), DEFINED),
    "all good": (lambda f: without(f, "bright"), set()),
    "all defective": (lambda f: without(f, "good"), {"pixel_auroc"}),
}
FEW = set(zip(CASES, METHODS, strict=False))  # one method a case; the others take longer
ALL = [
    pytest.param(c, m, marks=() if (c, m) in FEW else pytest.mark.long)
    for c in CASES
    for m in METHODS
]


def run(folder, **changes):
    method = changes.pop("method", "fastflow")
    variant = TINY.replace(method=method).replace(
        backbone=TINY.backbone, taps=TINY.taps, leaks="allow"
    )
    if METHODS[method].trained:
        variant = variant.replace(epochs=2, batch_size=4, eval_every=1, warmup_epochs=0)
    study = Study(
        name="edge", asks="?", bases={"base": variant.replace(**changes)}, vary=({},), seeds=(0,)
    )
    settings = Settings(results=folder / "r", data=folder, device="cpu", jobs=1, speed=False)
    plan = make_plan(study, replace(settings, categories=("c",)))
    return run_study(plan, settings, lambda text: None, executor=Here()), settings.results


@pytest.mark.parametrize(("case", "method"), ALL)
@pytest.mark.whole
def test_edges_give_a_defined_record_or_a_named_refusal(tmp_path, case, method):
    make, wanted = CASES[case]
    make(tmp_path / "c")
    if case == "one image" and METHODS[method].images > 1:
        with pytest.raises(InputError, match="expected at least 2 images of c to train on; got 1"):
            run(tmp_path, method=method)
        return
    if case == "all alike":  # good and defective at once
        with pytest.raises(InputError, match="expected one label for a picture"):
            run(tmp_path, method=method)
        return
    outcome, results = run(tmp_path, method=method)
    assert outcome.failed == []
    (record,) = read_records(results)
    localises = METHODS[method].localises
    assert {m for m in wanted if localises or m != "pixel_auroc"} == DEFINED & set(record.metrics)
    assert all(0 <= value <= 1 for value in record.metrics.values())
    assert np.isfinite(record.images.score).all()


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(m, marks=() if m == "fastflow" else pytest.mark.long)
        for m, about in METHODS.items()
        if about.trained
    ],
)
def test_a_loss_that_explodes_names_the_last_good_epoch_and_what_to_try(tmp_path, method):
    write_category(tmp_path / "c", good=4, bad=1)
    outcome, results = run(
        tmp_path, method=method, epochs=60, learning_rate=10.0, clamp_value=50.0
    )
    ((_, reason),) = outcome.failed
    assert "last good epoch" in reason or "last epoch's loss" in reason
    assert "try a smaller learning_rate" in reason
    assert list(read_records(results)) == []

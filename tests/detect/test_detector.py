"""A run's detector: the scores of its record, thresholds, files that are no detectors."""

import json
import os
import pickle
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from detectors import SMALL as NOISE
from detectors import detector_of
from PIL import Image
from tiny import TINY, Here, write_category

from harness.cli import main as cli
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.detect.detector import Detector
from harness.detect.make import make_detector, unseen
from harness.detect.predict import photos_of, predict
from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.experiment.settings import Settings
from harness.experiment.store import read_at
from harness.experiment.study import Study
from harness.run.kept import Kept, write_tensors
from harness.run.plan import make_plan
from harness.run.sweep import run_study

# Another rule, or another method, asks nothing of the backbone: one of four small blocks will do.
SMALL = TINY.replace(
    backbone="test_resnet.r160_in1k", weights="random", flow_steps=1, kernels=(3,),
)  # fmt: skip
RULES = {
    "as it comes": {},  # of a trained backbone, whose batch norms say something
    "a joined rule": {"tap_scale": "neg-log-p", "score_map": "nll-both", "image_score": "joined"},
    "held out": {"holdout": 0.25},
    "an earlier epoch": {"epoch_selection": "lowest-holdout-loss", "holdout": 0.25},
    "bfloat16": {"precision": "bfloat16"},
    "padded": {"resize": "pad"},
    "turned": {"test_turns": 4},
    "averaged": {"ema": 0.5},
}


@pytest.fixture(scope="module")
def bolts(tmp_path_factory):
    return write_category(tmp_path_factory.mktemp("data") / "bolts")


def planned(bolts, results, variant, **settings):
    ends = {f: min(getattr(variant, f), variant.epochs) for f in ("eval_every", "warmup_epochs")}
    variant = variant.replace(**ends)
    study = Study(name="one", asks="?", bases={"base": variant}, seeds=(0,), dataset="surfaces")
    settings = Settings(results=results, data=bolts, speed=False, jobs=1, **settings)
    return make_plan(study, settings), settings


def made(bolts, results, variant):
    plan, settings = planned(bolts, results, variant, keep=True)
    outcome = run_study(plan, settings, lambda text: None, executor=Here())
    assert not outcome.failed
    return make_detector(plan, settings), plan


def check(detector, plan, tmp_path):
    """It gives the record's scores, and so does what is read back from its file."""
    (cell,) = plan.cells
    record, category = read_at(plan.place(cell)), plan.categories[cell.category]
    detector.save(tmp_path / "d.safetensors")
    again = Detector.load(tmp_path / "d.safetensors", "cpu")
    expected = np.array(record.images.score)
    for one in (detector, again):
        got = one([s.path for s in category.test])
        np.testing.assert_allclose(got.score, expected, rtol=1e-5, atol=1e-5)
    return again, got


@pytest.mark.parametrize("name", RULES)
@pytest.mark.whole
def test_its_scores_are_the_records(name, bolts, tmp_path):
    variant = SMALL.replace(**RULES[name]) if RULES[name] else TINY
    detector, plan = made(bolts, tmp_path / "r", variant)
    again, got = check(detector, plan, tmp_path)
    assert got.anomaly_map.shape == (8, 64, 64)
    card = again.about.calibration
    assert card.images == (2 if variant.holdout else 4)
    assert again.threshold.value == detector.threshold.value
    for rates in ({"false_alarms": 0.0}, {"pixels": 0.0}):  # no rate is not the rate as it comes
        with pytest.raises(InputError, match="expected a share between 0 and 1"):
            again.set_rates(**rates)


@pytest.mark.whole
def test_a_run_in_bfloat16_scores_in_float32_where_that_is_asked_for(bolts, tmp_path):
    """Its thresholds are of such scores, and other runtimes can give them."""
    _, plan = made(bolts, tmp_path / "r", SMALL.replace(precision="bfloat16"))
    _, settings = planned(bolts, tmp_path / "r", SMALL.replace(precision="bfloat16"))
    detector = make_detector(plan, settings, float32=True)
    photos = [s.path for s in plan.categories["bolts"].test]
    got = detector(photos).score
    recorded = np.array(read_at(plan.place(plan.cells[0])).images.score)
    assert not np.array_equal(got, recorded.astype(np.float32))
    # A score here is minus a likelihood, down to 1e-40: what bfloat16 rounds is its logarithm.
    np.testing.assert_allclose(np.log(-got), np.log(-recorded), rtol=0.01)
    good = [s.path for s in plan.categories["bolts"].test if not s.label]
    assert np.array_equal(detector.levels.scores, [detector(p).score[0] for p in good])
    detector.save(tmp_path / "d.safetensors")
    again = Detector.load(tmp_path / "d.safetensors", "cpu")
    assert again.variant.precision == "float32"
    assert again.about.variant["precision"] == "bfloat16"  # the run is named as it was
    assert np.array_equal(again(photos).score, got)


def test_those_held_out_set_no_threshold_where_scores_are_read_on_their_scale(bolts, tmp_path):
    plan, _ = planned(bolts, tmp_path, TINY)
    category = plan.categories["bolts"]
    scale = {"holdout": 0.5, "tap_scale": "neg-log-p"}
    assert unseen(TINY.replace(**scale), category, 0)[1] == "held out by holdout=0.5"
    on_them = TINY.replace(**scale, tap_reference="held-out")
    samples, which = unseen(on_them, category, 0)
    assert which == "the good test images"
    assert not any(s.label for s in samples)
    assert samples


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fastflow"])
@pytest.mark.whole
def test_every_method_can_be_kept(method, bolts, tmp_path):
    own = {"differnet": {"views": 2, "hidden_channels": 8}, "cflow": {"flow_steps": 1}}
    variant = SMALL.replace(method=method, **own.get(method, {}))
    variant = variant.replace(epochs=1) if METHODS[method].trained else variant
    detector, plan = made(bolts, tmp_path / "r", variant)
    _, got = check(detector, plan, tmp_path)
    assert (got.anomaly_map is not None) == METHODS[method].localises


@pytest.mark.whole
def test_weights_of_a_recorded_run_are_made_again(bolts, tmp_path):
    variant = SMALL.replace(epochs=1)
    plan, settings = planned(bolts, tmp_path / "r", variant)
    run_study(plan, settings, lambda text: None, executor=Here())
    (cell,) = plan.cells
    before = plan.place(cell).record.read_bytes()
    detector, plan = made(bolts, tmp_path / "r", variant)
    assert plan.place(cell).record.read_bytes() == before
    check(detector, plan, tmp_path)


def test_other_energies_are_an_error(bolts, tmp_path):
    plan, settings = planned(bolts, tmp_path / "r", SMALL.replace(epochs=1))
    run_study(plan, settings, lambda text: None, executor=Here())
    (cell,) = plan.cells
    record = plan.place(cell).record
    content = json.loads(record.read_text())
    content["images"]["score"][0] += 1e-6
    record.write_text(json.dumps(content))
    outcome = run_study(plan, replace(settings, keep=True), lambda t: None, executor=Here())
    assert "expected the scores that are recorded" in outcome.failed[0][1]
    assert not plan.place(cell).weights.is_file()


def test_pictures_of_every_kind(bolts, tmp_path):
    detector = detector_of(NOISE)
    path = bolts / "test" / "good" / "000.png"
    with Image.open(path) as opened:
        image = opened.copy()
    same = [detector(x).score[0] for x in (path, str(path), image, np.asarray(image), [path])]
    assert len(set(same)) == 1
    many = detector([path] * 20)
    assert many.score.shape == (20,)
    np.testing.assert_allclose(many.score, same[0], rtol=1e-5)
    for bad, message in (
        (np.zeros((4, 4), np.uint8), r"expected arrays of bytes, \(H, W, 3\)"),
        (np.zeros((4, 4, 3)), r"expected arrays of bytes"),
        ([], "expected at least one"),
        (tmp_path / "nothing.png", "expected a readable file"),
    ):
        with pytest.raises(InputError, match=message):
            detector(bad)


def test_files_that_are_no_detector(tmp_path):
    detector = detector_of(NOISE)
    kept = {name: getattr(detector.about, name) for name in Kept.__struct_fields__}
    write_tensors(tmp_path / "weights", Kept(**kept), {"a": torch.zeros(1)})
    good = tmp_path / "good.safetensors"
    detector.save(good)
    whole = good.read_bytes()

    class Evil:
        def __reduce__(self):
            return (tmp_path / "run").mkdir, ()

    cases = {
        "missing": (None, "found none"),
        "empty": (b"", "it cannot be read"),
        "text": (b"hello" * 40, "it cannot be read"),
        "cut": (whole[: len(whole) // 2], "it cannot be read"),
        "a pickle": (pickle.dumps(Evil()), "it cannot be read"),
        "newer": (whole.replace(b'"schema":"1"', b'"schema":"2"'), "expected schema 1; got 2"),
        "another's": (
            whole.replace(b"harness detector", b"harness somethng"),
            "expected a file of",
        ),
        "weights alone": ((tmp_path / "weights").read_bytes(), "got fastflow-harness weights"),
        "a bit": (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "it has changed since"),
        "its words": (whole.replace(b'\\"seed\\": 0', b'\\"seed\\": 1'), "it has changed since"),
        "fields": (whole.replace(b'\\"dataset\\"', b'\\"datasex\\"'), "make it anew"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / "bad.safetensors"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            Detector.load(path)
        assert not (tmp_path / "run").exists(), name

    about = msgspec.structs.replace(detector.about, variant={**detector.about.variant, "new": 1})
    write_tensors(path, about, {})
    with pytest.raises(InputError, match=r"bad\.safetensors: expected a detector of this version"):
        Detector.load(path)


def test_no_score_is_no_verdict(bolts, tmp_path):
    """A good photo is one that scores low, not one without a score."""
    detector = detector_of(NOISE)
    with torch.no_grad():
        for parameter in detector.model.parameters():
            parameter.fill_(float("nan"))
    detector.save(tmp_path / "d.safetensors")
    detector = Detector.load(tmp_path / "d.safetensors", "cpu")
    photo = bolts / "test" / "good" / "000.png"
    (finding,), _ = predict(detector, [photo], tmp_path / "o")
    assert finding.score is None
    assert finding.verdict == "unreadable"
    assert "expected a score" in finding.error


def test_what_is_no_file_does_not_hold_the_others_up(bolts, tmp_path):
    detector = detector_of(NOISE)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere")
    shutil.copy(bolts / "test" / "good" / "000.png", tmp_path / "photo.png")
    found, _ = predict(detector, photos_of([str(tmp_path)]), tmp_path / "o")
    assert ["No such file" in found[0].error, "got a pipe" in found[2].error] == [True, True]
    assert found[1].error == ""
    with pytest.raises(InputError, match="got an empty name"):
        photos_of([str(tmp_path / "photo.png"), ""])


def test_from_a_folder_to_findings(bolts, tmp_path, capsys):
    """The commands: a detector, its card, findings of photos; what is bad is named."""
    where = ["--data", str(bolts), "--results", str(tmp_path / "r"), "--no-speed"]
    small = ["--set", "image_size=64", "--set", "taps=1,2", "--epochs", "1", "--random-weights"]
    small += ["--set", "backbone=test_resnet.r160_in1k", "--set", "flow_steps=1"]
    out = tmp_path / "bolts.safetensors"
    which = ["surfaces", "--variant", "base", "--category", "bolts", "--seed", "0"]
    assert cli.main(["train", *which, *where, *small, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "calibrated on 4 images, the good test images" in said
    assert cli.main(["card", str(out)]) == 0
    assert "image threshold" in capsys.readouterr().out

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (90, 40), (110, 110, 110)).save(photos / "wide.png")
    shutil.copy(bolts / "test/bright/000.png", photos / "b.png")
    found = tmp_path / "found"
    assert cli.main(["predict", str(out), str(photos), "--out", str(found), "--json"]) == 1
    output = capsys.readouterr()
    assert "broken.png: expected an image" in output.err
    listed = {p["path"].rpartition("/")[2]: p for p in json.loads(output.out)["photos"]}
    assert listed["broken.png"]["verdict"] == "unreadable"
    assert listed["b.png"]["score"] == pytest.approx(
        Detector.load(out, "cpu")(photos / "b.png").score[0], rel=1e-5
    )
    for kind, mode in (("overlay.jpg", "RGB"), ("map.png", "I;16"), ("mask.png", "L")):
        with Image.open(found / f"wide.{kind}") as image:
            assert (image.size, image.mode) == ((90, 40), mode)
    rows = (found / "scores.csv").read_text().splitlines()
    assert rows[0] == "path,score,verdict,regions,milliseconds,error"
    assert len(rows) == 4
    assert cli.main(["predict", str(out), str(tmp_path / "none"), "--out", str(found)]) == 2
    assert "expected photos; found none" in capsys.readouterr().err
    one = ["--variant", "base"]  # of every seed
    assert cli.main(["train", "surfaces", *where, *small, *one, "--out", str(out)]) == 2
    assert "expected one run; got" in capsys.readouterr().err


def test_nothing_is_learnt_from_what_it_is_calibrated_on(bolts):
    from harness.detect.make import unseen
    from harness.run.train import split

    category = MvtecAd(bolts).load("bolts")
    samples, _ = unseen(TINY.replace(holdout=0.25), category, 3)
    kept, _ = split(len(category.train), 0.25, torch.Generator().manual_seed(3))
    learnt = {category.train[i].path for i in kept}
    assert len(samples) == 2
    assert not learnt & {s.path for s in samples}

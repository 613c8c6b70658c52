"""The estimate of a plan's time and disk: linear in the work, shared work counted once."""

import msgspec
import pytest
from handmade import changed, record

from harness.errors import InputError
from harness.experiment.measured import Macs
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.store import write_record
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant
from harness.run import estimate as module
from harness.run.estimate import Rates, estimate, measured_rates
from harness.run.measure import measure
from harness.run.memory import run_memory
from harness.run.plan import Plan, plan_without_data
from harness.studies import get_study

TINY = Variant(
    backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1, 2), flow_steps=2,
    epochs=10,
)  # fmt: skip
MAP = 16 * 16 + 8 * 8  # positions at the taps 1 and 2 of a 64-pixel image
PROBED = Rates(1e-9, 1e-10, "a probe")


@pytest.fixture(autouse=True)
def probe(monkeypatch):
    monkeypatch.setattr(module, "_probe", lambda device, threads: PROBED)


def study(*bases, **changes):
    given = {
        "name": "s",
        "asks": "?",
        "seeds": (0,),
        "bases": {str(b): b for b in bases or (TINY,)},
    }
    return Study(**{**given, **changes})


def plan(study, results, sizes=None):
    sizes = sizes or {"a": (100, 50)}
    return Plan(study, {}, sizes, "d", results, tuple(study.cells(sizes)))


def cost(study, tmp_path, sizes=None, jobs=1):
    settings = Settings(results=tmp_path, device="cpu", jobs=jobs)
    return estimate(plan(study, tmp_path, sizes), settings)


def test_by_pencil(tmp_path):
    macs, shapes = measure(TINY).macs, measure(TINY).shapes
    assert [s[1:] for s in shapes] == [(16, 16), (8, 8)]
    got = cost(study(), tmp_path)
    assert got["train_seconds"] == pytest.approx(macs.flow * 100 * 10 * 1e-9)
    assert got["backbone_seconds"] == pytest.approx(macs.backbone * 150 * 1e-10)
    assert got["cache_bytes"] == 150 * 4 * sum(c * h * w for c, h, w in shapes)
    # two float32 a position (energy and log-determinant), of the last epoch alone
    assert got["results_bytes"] == module.RECORD_BYTES + 50 * 2 * 4 * MAP
    assert got["rates"] == "a probe"


def test_augmented_copies_pass_and_are_stored(tmp_path):
    plain, flips = (
        cost(study(), tmp_path),
        cost(study(TINY.replace(augmentation="flips")), tmp_path),
    )
    for key in ("backbone_seconds", "cache_bytes"):
        assert flips[key] == pytest.approx(plain[key] * (100 * 9 + 50) / 150)
    for key in ("train_seconds", "results_bytes", "memory_bytes"):
        assert flips[key] == plain[key]


def test_turned_test_images_pass_and_leave_energies(tmp_path):
    plain, turned = cost(study(), tmp_path), cost(study(TINY.replace(test_turns=4)), tmp_path)
    for key in ("backbone_seconds", "cache_bytes"):
        assert turned[key] == pytest.approx(plain[key] * (100 + 50 * 4) / 150)
    assert turned["results_bytes"] == module.RECORD_BYTES + 4 * 50 * 2 * 4 * MAP
    assert turned["train_seconds"] == plain["train_seconds"]


def test_copies_are_passed_and_those_held_out_scored(tmp_path):
    shapes = measure(TINY).shapes
    held = TINY.replace(holdout=0.1)
    with_copies = held.replace(validation="synthetic")
    plain, got = cost(study(held), tmp_path), cost(study(held, with_copies), tmp_path)
    assert got["cache_bytes"] == 250 * 4 * sum(c * h * w for c, h, w in shapes)
    assert got["backbone_seconds"] == pytest.approx(plain["backbone_seconds"] * 250 / 150)
    assert got["results_bytes"] == 2 * plain["results_bytes"] + 2 * 10 * 2 * 4 * MAP


@pytest.mark.parametrize(("every", "evaluations"), [(0, 1), (1, 10), (3, 4), (5, 2), (10, 1)])
def test_energies_of_every_evaluated_epoch_are_kept(tmp_path, every, evaluations):
    got = cost(study(TINY.replace(eval_every=every)), tmp_path)
    assert got["results_bytes"] == module.RECORD_BYTES + evaluations * 50 * 2 * 4 * MAP


def test_memory_is_that_of_the_largest_run(tmp_path, monkeypatch):
    wide = TINY.replace(flow_steps=9)
    got = cost(study(TINY, wide), tmp_path, {"a": (100, 50), "b": (100, 90)})
    assert got["memory_by_variant"] == {
        v.digest: run_memory(v, 100, 90)["all"] for v in (TINY, wide)
    }
    assert got["memory_bytes"] == got["memory_by_variant"][wide.digest]
    assert (got["parallel"], got["warning"]) == (1, "")
    free = 5 * got["memory_bytes"] // 2
    monkeypatch.setattr("harness.run.memory.available_memory", lambda: free)
    assert cost(study(wide), tmp_path, jobs=2)["warning"] == ""
    assert cost(study(wide), tmp_path, jobs=3)["warning"].endswith("2 fit")


def test_linear_in_epochs_images_seeds_and_jobs(tmp_path):
    one = cost(study(), tmp_path)
    longer = cost(study(TINY.replace(epochs=30)), tmp_path)
    assert longer["train_seconds"] == pytest.approx(3 * one["train_seconds"])
    assert longer["backbone_seconds"] == one["backbone_seconds"]
    more = cost(study(), tmp_path, {"a": (200, 100)})
    for key in ("train_seconds", "backbone_seconds", "cache_bytes"):
        assert more[key] == pytest.approx(2 * one[key])
    two = cost(study(), tmp_path, {"a": (100, 50), "b": (100, 50)})
    for key in ("train_seconds", "backbone_seconds", "cache_bytes", "results_bytes"):
        assert two[key] == pytest.approx(2 * one[key])
    parallel = cost(study(), tmp_path, jobs=2)
    assert parallel["train_seconds"] == pytest.approx(one["train_seconds"] / 2)
    assert (one["parallel"], parallel["parallel"]) == (1, 2)


def test_a_backbone_passes_once_whatever_the_seeds_and_variants(tmp_path):
    one = cost(study(), tmp_path)
    many = cost(study(seeds=(0, 1, 2), vary=one_factor(kernels=((1,),))), tmp_path)
    for key in ("backbone_seconds", "cache_bytes"):
        assert many[key] == one[key]
    assert cost(study(seeds=(0, 1, 2)), tmp_path)["train_seconds"] == pytest.approx(
        3 * one["train_seconds"]
    )
    other = cost(study(TINY, TINY.replace(image_size=128)), tmp_path)
    assert other["cache_bytes"] == 5 * one["cache_bytes"]
    half = cost(study(TINY.replace(feature_dtype="float16")), tmp_path)
    assert half["cache_bytes"] == one["cache_bytes"] / 2


def test_scoring_variants_train_once(tmp_path):
    one = cost(study(), tmp_path)
    scored = cost(study(vary=one_factor(smoothing=(4,), score_map=("nll",))), tmp_path)
    assert scored["train_seconds"] == pytest.approx(one["train_seconds"])
    assert scored["results_bytes"] == one["results_bytes"] + 2 * module.RECORD_BYTES


def write(results, variant, **changes):
    made = record(variant, "a", 0, 0.9)
    name = module.device_name("cpu")
    made.environment.device_name = name
    made.macs = Macs(flow=1000, backbone=3000)
    made.loss = [1.0] * 5  # epochs
    made.measured.fit_seconds = 2.0
    made.measured.speed.fps = 10.0
    made = msgspec.convert(changed(made, **changes), Record)
    write_record(Place.of(results, variant, "d", "a", 0), made)
    return made


def test_rates_of_this_machines_records_by_pencil(tmp_path):
    settings = Settings(results=tmp_path, device="cpu", jobs=1)
    made = [write(tmp_path, TINY.replace(flow_steps=n)) for n in (2, 3)]
    rates = measured_rates(made, settings)
    assert rates.train == pytest.approx(2.0 / (1000 * 9 * 5))  # 9 training images
    assert rates.infer == pytest.approx(1 / (10 * 4000))
    assert rates.source == "2 recorded runs of this machine"
    more = study(TINY.replace(flow_steps=4))
    assert cost(more, tmp_path)["rates"] == "2 recorded runs of this machine"


@pytest.mark.parametrize(
    "changes",
    [{"smoke": True}, {"environment": {"device_name": "another"}},
     {"environment": {"arithmetic": "cuda tf32"}},
     {"measured": {"fit_seconds": None, "speed": {"fps": 10.0}}}],
)  # fmt: skip
def test_without_a_training_of_this_machine_it_is_probed(tmp_path, changes):
    made = write(tmp_path, TINY, **changes)
    assert measured_rates([made], Settings(results=tmp_path, device="cpu", jobs=1)) == PROBED


def test_what_is_recorded_costs_nothing(tmp_path):
    write(tmp_path, TINY)
    got = cost(study(), tmp_path)
    assert [got[k] for k in ("train_seconds", "backbone_seconds", "results_bytes")] == [0, 0, 0]


def test_the_probe_measures(monkeypatch):
    monkeypatch.undo()
    rates = module._probe("cpu", 1)
    assert 0 < rates.infer < 1e-6
    assert 0 < rates.train < 1e-6


def test_an_unknown_data_set_has_near_matches(tmp_path):
    settings = Settings(results=tmp_path, dataset="mvtec")
    with pytest.raises(InputError, match="unknown data set 'mvtec'; did you mean 'mvtec_ad'"):
        plan_without_data(get_study("table1"), settings)


@pytest.mark.long
def test_table1_without_data(tmp_path):
    settings = Settings(results=tmp_path, device="cpu", jobs=2)
    made = plan_without_data(get_study("table1"), settings)
    assert len(made.cells) == 13 * 15 * 3
    assert made.sizes["screw"] == (320, 160)
    assert made.categories == {}
    got = estimate(made, settings)
    assert sum(map(sum, made.sizes.values())) == 3629 + 1725
    assert got["train_seconds"] > 0
    # 5354 images through four backbones: float32 features of all their taps
    layers = [64 * 64 * (64 + 256), 32 * 32 * (128 + 512), 16 * 16 * (256 + 1024),
              8 * 8 * (512 + 2048)]  # fmt: skip
    positions = sum(layers[:3]) + 768 * (24 * 24 + 28 * 28)
    positions += sum(layers) + sum(layers[1:])  # SPADE's and CFLOW-AD's of the ResNets
    assert got["cache_bytes"] == 4 * 5354 * positions

"""The benchmark's arithmetic, its page, and that both sides compute the same thing."""

import json
import re
from dataclasses import asdict, is_dataclass, replace
from importlib import import_module

import numpy as np
import pytest
import torch
from pretended import pretended_cuda

from benchmarks import __main__ as door
from benchmarks import (
    accelerator,
    ceiling,
    common,
    coreset,
    epoch,
    fps,
    growth,
    inference,
    metrics,
    peer,
    prediction,
    profile,
    render,
    sweep,
    threads,
    turns,
)  # fmt: skip
from benchmarks.common import Options, Part
from harness.errors import InputError
from harness.experiment.choices import METHODS
from harness.run.measure import measure
from harness.score.rule import score


@pytest.fixture
def options(tmp_path):
    data = common.find_category(None, None, tmp_path, quick=True)
    return Options(data=data, work=tmp_path / "work", quick=True, epochs=(1,))


# --- numbers ------------------------------------------------------------------------------------


def test_spread_is_median_and_range():
    assert common.spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3, "rounds": 3}
    assert common.columns([0.5], "s") == {"median s": 0.5, "min s": 0.5, "max s": 0.5, "rounds": 1}


def test_a_ratio_is_of_medians_and_its_range_of_paired_rounds():
    assert common.ratio([10, 20, 60], [5, 5, 10]) == {"value": 4, "low": 2, "high": 6}


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_of_an_exact_power(power):
    x = [50, 100, 200, 400]
    assert common.exponent(x, [3 * v**power for v in x]) == pytest.approx(power, abs=1e-12)


def test_percentiles_are_values_that_were_seen():
    values = list(range(1, 21))
    assert [common.percentile(values, q) for q in (0, 0.5, 0.95, 1)] == [1, 10, 19, 20]


def test_sides_take_turns_and_the_warm_up_does_not_count():
    calls = []
    sides = {name: lambda n=name: calls.append(n) or 1.0 for name in "ab"}
    seconds = turns.take_turns(sides, rounds=2, warmup=1)
    assert calls == list("ababab")
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(("sense", "reached"), [("at least", True), ("at most", False)])
def test_a_claim_knows_whether_it_is_reached(sense, reached):
    part = Part()
    part.claim("faster", {"value": 7.0}, 6, sense=sense)
    assert part.claims[0]["reached"] is reached


def test_options_survive_a_command_line(options):
    assert Options.loads(options.dumps()) == options


# --- child processes ----------------------------------------------------------------------------


@pytest.fixture
def children(monkeypatch, tmp_path):
    """A package of the same name whose only part is TOY: that is what children find."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("common", "turns", "child", "__init__"):
        (folder / f"{name}.py").write_text((common.ROOT / f"benchmarks/{name}.py").read_text())
    (folder / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)


TOY = """
def told(options):
    return {"quick": options.quick, **options.extra}


def side(options):
    seen = []
    print("prepared")

    def step(word):
        print(word)
        seen.append(word)
        if len(seen) > 2:
            raise ValueError(f"{options.extra['side']}: too many: {seen}")

    return step
"""


def test_a_child_returns_its_result_and_its_memory(options, children):
    child = common.in_child(options, "toy", "told", watch=True, more=1)
    assert child.result == {"quick": True, "more": 1}
    assert child.seconds > 0
    assert child.peak_process > 2**22


def test_a_child_that_fails_is_one_line(options, children):
    with pytest.raises(InputError, match=r"^toy.no_such: ended with 1: AttributeError"):
        common.in_child(options, "toy", "no_such")


def test_sides_in_processes_of_their_own_answer_with_their_seconds(options, children):
    with turns.own_processes(options, "toy", ["a", "b"]) as sides:
        calls = {name: lambda s=side: s.turn("go") for name, side in sides.items()}
        seconds = turns.take_turns(calls, rounds=1)
        assert all(0 < s[0] < 1 for s in seconds.values())
        with pytest.raises(InputError, match=r"^toy.side: .* 1: ValueError: a: too many: \['go'"):
            sides["a"].turn("x")
        with pytest.raises(InputError, match=r"^toy.side: "):
            sides["a"].turn("x")  # still the same, not a broken pipe


def test_a_side_that_cannot_be_prepared_is_one_line(options, children):
    with (
        turns.Side(options, "toy", "no_such") as side,
        pytest.raises(InputError, match=r"^toy.no_such: ended with 1: AttributeError"),
    ):
        side.turn()


# --- the page -----------------------------------------------------------------------------------

ABOUT = {
    "date": "2026-01-02", "processor": "A CPU", "cores": 2, "memory_gib": 8.0, "device": "cpu",
    "device_name": "A CPU", "platform": "Linux x86_64", "python": "3.11.9", "quick": False,
    "versions": {"torch": "2.9", "anomalib": "2.7.0"}, "commit": "0123456789abcdef",
    "data": "mvtec/bottle", "weights": "resnet18.tv_in1k",
}  # fmt: skip


@pytest.fixture
def result(tmp_path):
    part = Part(["Six variants."], {"Sweep": [{"side": "ours", "median s": 10.0}, {"side": "x"}]})
    part.claim("Sweep, faster", {"value": 6.5, "low": 6.1, "high": 7.0}, 6)
    part.claim("Sweep, memory", {"value": 1.2}, 1, sense="at most")
    block = {"environment": ABOUT, "took": 61.4, **vars(part)}
    file = tmp_path / "two-cores.json"
    file.write_text(json.dumps({"parts": {"sweep": block}}))
    return file


def test_the_page_names_machine_protocol_figures_and_what_is_missed(result):
    page = render.render([result])
    for text in (
        "## two-cores", "2026-01-02: A CPU, 2 cores", "torch 2.9", "commit 0123456789ab",
        "1 of 2 reached", "| Sweep, faster | 6.5× | 6.1–7.0 | at least 6× | reached |",
        "| Sweep, memory | 1.2× |  | at most 1× | **missed** |", "- Six variants.",
        "| side | median s |\n| --- | --- |\n| ours | 10 |\n| x |  |", "Took 61 s",
    ):  # fmt: skip
        assert text in page


def test_parts_of_other_days_say_so(result):
    found = json.loads(result.read_text())
    found["parts"]["growth"] = {**found["parts"]["sweep"], "environment": {**ABOUT, "cores": 3}}
    result.write_text(json.dumps(found))
    page = render.render([result])
    assert "3 cores" in page
    assert "### (a) A sweep (1)" in page
    assert "### (f) Growth (2)" in page


def test_rates_are_shown_as_a_share_of_the_ceiling(result):
    found = json.loads(result.read_text())
    part = {**found["parts"]["sweep"], "claims": []}
    rates = [{"kind": "bfloat16 contiguous", "forward": 50}]
    rates += [{"kind": "bfloat16 channels-last", "forward": 400}]
    rows = [{"side": "ours, bfloat16", "batch": 8, "GFLOP/s": 100.0}]
    found["parts"]["ceiling"] = {**part, "tables": {"Rates, GFLOP/s": rates}}
    found["parts"]["inference"] = {**part, "tables": {"Inference": rows}}
    result.write_text(json.dumps(found))
    page = render.render([result])
    assert "| Inference, batch 8 | ours, bfloat16 | 100 | 25 |" in page
    found["parts"]["inference"]["environment"] = {**ABOUT, "processor": "Another CPU"}
    result.write_text(json.dumps(found))
    assert "share, %" not in render.render([result])


def test_one_round_has_no_range(result):
    found = json.loads(result.read_text())
    found["parts"]["sweep"]["claims"][0] |= {"low": 6.5, "high": 6.5}
    result.write_text(json.dumps(found))
    assert "| Sweep, faster | 6.5× |  | at least 6× | reached |" in render.render([result])


@pytest.mark.parametrize("text", ["", "[]", '{"parts": 3}', "{"])
def test_what_is_no_result_is_named(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"broken\.json: expected a result of nox -s bench"):
        render.render([file])


# --- the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "error: part: expected ceiling, sweep, .*; got 'speed'"),
        (["metrics", "--data", "nowhere"], "error: --data: expected a folder of categories"),
        (["metrics", "--epochs", "0"], "error: --epochs: expected a positive number; got 0"),
        (["metrics", "--quick", "--category", "x"], "error: .*category.*noise"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, words, message):
    assert door.main([*words, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)


class Here:
    """In the place of a side in a process of its own: its step in this one."""

    def __init__(self, options, module, function, **extra):
        options = replace(options, extra=options.extra | extra)
        found = getattr(import_module(f"benchmarks.{module}"), function)(options)
        self.turn = self.finish = turns.clocked(found)

    def start(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def here(options, module, function, loud=False, **extra):
    """In the place of a child process: the call in this one."""
    options = replace(options, extra=options.extra | extra)
    found = getattr(import_module(f"benchmarks.{module}"), function)(options)
    found = asdict(found) if is_dataclass(found) else found
    return common.Child(json.loads(json.dumps(found)), 1.0, 0, 0)


@pytest.fixture
def in_this_process(monkeypatch):
    for module in (door, profile):
        monkeypatch.setattr(module, "in_child", here)
    for module in (turns, threads):
        monkeypatch.setattr(module, "Side", Here)
    for module in (
        accelerator, ceiling, coreset, epoch, fps, inference, prediction, profile, threads,
    ):  # fmt: skip
        monkeypatch.setattr(module, "cores", lambda: 1)
    for module in (coreset, epoch, inference, profile):
        monkeypatch.setattr(module, "has_peer", lambda: False)
    for module in (epoch, inference, prediction):
        monkeypatch.setattr(module, "keep_memory", lambda: None)
    monkeypatch.setattr(prediction, "NEEDS", {prediction.OURS: ()})
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("part", "row"),
    [
        ("ceiling", "| 128→256 3×3 at 16², batch 1 | bfloat16 channels-last |"),
        ("coreset", "| ours |"),
        ("epoch", "| FrEIA AllInOneBlock |"),
        ("executors", "| --executor local |"),
        ("fps", "| ResNet18 | 64 | ours, fast, bfloat16 |"),
        ("inference", "| ours, fast, bfloat16 | 32 |"),
        ("jobs", "| --executor local --jobs 2 |"),
        ("metrics", "| 12 × 64² | ours |"),
        ("prediction", "| ours, predict | 8 |"),
        ("profile", "| convolution forward |"),
        ("threads", "| at once, processes × threads: 1 × 1 |"),
    ],
)
@pytest.mark.long
def test_a_part_runs_quickly_and_is_rendered(tmp_path, in_this_process, part, row):
    assert door.main([part, "--quick", "--results", str(tmp_path)]) == 0
    page = render.render([tmp_path / "quick.json"])
    assert "A quick run" in page
    assert row in page


def test_gpu_is_every_part_but_those_of_the_processor(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        door, "_part", lambda name, options, _: asked.append((name, options.device)) or True
    )
    assert door.main(["gpu", "--quick", "--results", str(tmp_path)]) == 0
    assert {"fps", "inference", "epoch", "sweep", "growth", "profile", "accelerator"} <= {
        n for n, _ in asked
    }
    assert {device for _, device in asked} == {"cuda"}
    assert "threads" not in dict(asked)


@pytest.mark.whole
def test_what_an_accelerator_says_is_held_to_the_processor(options, in_this_process, monkeypatch):
    """On a pretended GPU, which says what the processor says: all that is claimed is reached."""
    options.work.mkdir()
    some = {name: METHODS[name] for name in ("fastflow", "padim", "differnet")}
    monkeypatch.setattr(accelerator, "METHODS", some)
    with pretended_cuda():
        part = accelerator.measure(replace(options, device="cuda"))
    values, runs = part.tables.values()
    assert [row["arithmetic"] for row in values] == ["cuda float32", "cuda tf32"] * len(some)
    assert {row["equal"] for row in runs} == {"yes"}
    assert {row["read ahead"] for row in runs} == {"equal"}
    assert len(part.claims) == 3 * len(some)
    assert [c["claim"] for c in part.claims if not c["reached"]] == []


def test_the_sweeps_work_is_three_forward_passes_of_every_image_and_epoch(options):
    images = len([*(options.data / "train" / "good").iterdir()])
    passes = sum(measure(v).macs.training for v in sweep.variants(options))
    assert sweep.training_work(options) == 3 * images * passes
    assert sweep.training_work(replace(options, epochs=(5,))) == 5 * 3 * images * passes


def test_what_the_sweep_imports_beforehand_is_there(options, monkeypatch):
    monkeypatch.setattr(sweep, "has_peer", lambda: False)
    sweep.imports(options)


def test_growth_measures_small_studies_more_often(options):
    usual = replace(options, quick=False)
    smallest = growth._point(growth.AT)
    rounds = [growth._rounds(usual, p, smallest) for p in [smallest, (2, 50, 256), (16, 50, 256)]]
    assert rounds == [3, 3, 1]
    assert growth._rounds(replace(usual, rounds=2), (16, 50, 256), smallest) == 2


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mkldnn_convolution", "convolution forward"),
        ("aten::cudnn_convolution", "convolution forward"),
        ("aten::convolution_backward", "convolution backward"),
        ("aten::native_layer_norm_backward", "norms"),
        ("_Pass", "coupling pass forward"),
        ("_PassBackward", "coupling pass backward"),
        ("aten::_to_copy", "copies and casts"),
        ("aten::threshold_backward", "other elementwise"),
        ("aten::as_strided", "rest"),
    ],
)
def test_an_operator_is_of_a_kind(operator, kind):
    assert profile.kind(operator) == kind


# --- both sides compute the same thing ----------------------------------------------------------


def test_metrics_equal_scikit_learn_s():
    category = metrics.make_category(12, 48)
    sides = {name: side(category, {}) for name, side in metrics.sides().items()}
    for name, tolerance in metrics.TOLERANCE.items():
        for key, value in sides.get(name, {}).items():
            assert sides["ours"][key] == pytest.approx(value, abs=tolerance), (name, key)
    assert 0.5 < sides["ours"]["pixel_auroc"] < 1


@pytest.mark.filterwarnings("ignore")  # anomalib's imports
@pytest.mark.parametrize("kernels", [(3,), (3, 1)])
def test_anomalib_with_our_weights_gives_our_maps(options, kernels):
    pytest.importorskip("anomalib", reason="anomalib is not installed (extra peers)")
    variant = peer.VARIANT.replace(
        image_size=64, kernels=kernels, flow_steps=3, weights="random", hidden_ratio=0.5
    )
    backbone, flow = peer.our_model(options, variant, generic=True)
    theirs = peer.peer_model(variant, backbone, flow)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    with torch.inference_mode():
        maps, scores = score(variant, flow.energies(backbone(images)))
        out = theirs(images)
    assert maps.std() > 1e-3
    torch.testing.assert_close(out.anomaly_map[:, 0], maps, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.pred_score.flatten(), scores, rtol=0, atol=1e-5)


def test_the_sweep_s_variants_are_six_that_anomalib_can_express(options):
    variants = sweep.variants(Options(data=options.data, work=options.work))
    assert len({v.digest for v in variants}) == 6
    assert len({v.feature_spec for v in variants}) == 1
    asked = [tuple(peer.peer_options(v).values()) for v in variants]
    assert len(set(asked)) == 6
    with pytest.raises(ValueError, match="no such FastFlow"):
        peer.peer_options(variants[0].replace(kernels=(5,)))

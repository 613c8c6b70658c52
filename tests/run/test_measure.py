"""Cost: parameters and multiply-accumulates by pencil, and time on a clock made by hand."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.experiment.measured import Parameters
from harness.experiment.variant import Variant
from harness.features.extractor import Extractor
from harness.methods.fastflow import FastFlow
from harness.run import measure as module
from harness.run.measure import count_parameters, measure, time_in_turns


def small(name="resnet18.tv_in1k", taps=(1, 2, 3), size=64, **flow):
    """A variant of one step without a norm."""
    settings = {"norm": "none", "flow_steps": 1, "kernels": (3,)} | flow
    return Variant(backbone=name, taps=taps, image_size=size, **settings)


# One tap of 64 channels, 16 x 16 positions: subnets from 32 channels to 2 · 32.
SUBNET_3 = (9 * 32 * 10 + 10) + (9 * 10 * 64 + 64)
SUBNET_1 = (32 * 10 + 10) + (10 * 64 + 64)
SMALL = {"taps": (1,), "flow_steps": 3, "kernels": (3, 1), "hidden_channels": 10}
CASES = [
    ({}, 2 * SUBNET_3 + SUBNET_1 + 3 * 128, 0, 3 * 64),
    ({"coupling": "two-sided"}, 2 * (2 * SUBNET_3 + SUBNET_1) + 3 * 128, 0, 3 * 64),
    ({"actnorm": "none", "permutation": "none"}, 2 * SUBNET_3 + SUBNET_1, 0, 0),
    ({"actnorm": "data", "permutation": "reverse"}, 2 * SUBNET_3 + SUBNET_1 + 3 * 128, 0, 3 * 64),
    ({"norm": "layer"}, 2 * SUBNET_3 + SUBNET_1 + 3 * 128, 0, 3 * 64),
    ({"norm": "layer-affine"}, 2 * SUBNET_3 + SUBNET_1 + 3 * 128, 2 * 64 * 16 * 16, 3 * 64),
    ({"norm": "batch"}, 2 * SUBNET_3 + SUBNET_1 + 3 * 128, 2 * 64, 3 * 64),
]


@pytest.mark.parametrize(("change", "flow", "norm", "frozen"), CASES, ids=str)
def test_parameters_by_pencil(change, flow, norm, frozen):
    counted = count_parameters(small(**SMALL | change))
    stem_and_layer1 = 64 * 3 * 49 + 128 + 4 * (64 * 64 * 9 + 128)
    assert counted == Parameters(flow=flow, norm=norm, frozen=frozen, backbone=stem_and_layer1)
    assert counted == measure(small(**SMALL | change)).parameters


def test_frozen_parameters_do_not_count_as_additional():
    model = FastFlow([(4, 8, 8)], norm="batch", flow_steps=1, kernels=(3,))
    model.norms.requires_grad_(False)
    assert model.count_parameters()["norm"] == 0
    trained = sum(p.numel() for p in model.flows.parameters())
    assert model.count_parameters()["flow"] == trained


def test_parameters_of_the_paper():
    assert count_parameters(small(size=256, norm="layer-affine", flow_steps=8)) == Parameters(
        flow=4_657_408,
        norm=917_504,
        frozen=8 * (64 + 128 + 256),
        backbone=2_782_784,  # ResNet18's 11,689,512 without layer4 (8,393,728) and fc (513,000)
    )


@pytest.mark.parametrize(("coupling", "subnets"), [("one-sided", 1), ("two-sided", 2)])
def test_macs_of_the_flow_by_pencil(coupling, subnets):
    """Convolutions at every position; neither biases nor the affine count."""
    macs = measure(small(**SMALL, coupling=coupling)).macs
    step_3, step_1 = 9 * 32 * 10 + 9 * 10 * 64, 32 * 10 + 10 * 64
    assert macs.flow == 16 * 16 * subnets * (2 * step_3 + step_1)


def test_macs_of_the_backbone_by_pencil():
    """ResNet18 at 256 x 256 up to layer3."""
    macs = measure(small(size=256)).macs
    stem = 128**2 * 64 * 3 * 49
    layer1 = 64**2 * 4 * 64 * 64 * 9
    layer2 = 32**2 * (64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128)
    layer3 = 16**2 * (128 * 256 * 9 + 3 * 256 * 256 * 9 + 128 * 256)
    assert macs.backbone == stem + layer1 + layer2 + layer3


def test_macs_of_the_backbone_equal_timms_features_only():
    macs = measure(small(size=64)).macs
    theirs = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 64, 64))
    assert macs.backbone == counter.get_total_flops() // 2


def test_macs_of_a_transformer_by_pencil():
    """DeiT-tiny up to block 7: patches, then linear layers and both products of the attention."""
    macs = measure(small("deit_tiny_distilled_patch16_224.fb_in1k", (7,), 224, flow_steps=1)).macs
    tokens, width = 14 * 14 + 2, 192
    patches = 14 * 14 * 3 * 16 * 16 * width
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert macs.backbone == patches + 8 * block


# --- speed --------------------------------------------------------------------------------------


class Clock:
    """Time passes only in the paths; every call is remembered."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def path(self, name, seconds):
        """A path that takes ``seconds(number of its call, images)``."""

        def run(images):
            number = sum(n == name for n, _ in self.calls)
            self.calls.append((name, len(images)))
            self.now += seconds(number, len(images))

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_speed_by_pencil(clock):
    paths = {
        "a": clock.path("a", lambda number, images: 0.01 + 0.0025 * images),
        "b": clock.path("b", lambda number, images: 0.05),
    }
    images = {"a": torch.zeros(4, 3, 8, 8), "b": torch.zeros(2, 3, 8, 8)}
    speeds = time_in_turns(paths, images, device="cpu")
    a, b = speeds["a"], speeds["b"]
    assert (a.latency_ms, a.fps, a.fps_batch_size) == (12.5, 200.0, 4)
    assert (b.latency_ms, b.fps, b.fps_batch_size) == (50.0, 40.0, 2)
    assert a.rounds == b.rounds == module.ROUNDS
    assert a.threads == torch.get_num_threads()
    assert a.device == "cpu"
    assert "no cache" in a.measures
    assert a.session == b.session != ""
    assert time_in_turns(paths, images, device="cpu")["a"].session != a.session


def test_paths_take_turns(clock):
    names = ("a", "b", "c")
    paths = {n: clock.path(n, lambda number, images: 0.01) for n in names}
    time_in_turns(paths, {n: torch.zeros(5, 3, 8, 8) for n in names}, device="cpu")
    turns = module.WARMUP + module.ROUNDS
    alone = [(n, 1) for n in names] * turns
    assert clock.calls == alone + [(n, 5) for n in names] * turns


def test_warm_up_does_not_count_and_the_median_forgives_an_odd_round(clock):
    turns = module.WARMUP + module.ROUNDS
    odd = {0: 0.8, 3: 0.09, 5: 0.01}  # by turn: the warm-up, a slow round, a fast one
    paths = {"a": clock.path("a", lambda number, images: odd.get(number % turns, 0.02))}
    speed = time_in_turns(paths, {"a": torch.zeros(1, 3, 8, 8)}, device="cpu")["a"]
    latencies = [getattr(speed, f"latency_ms{which}") for which in ("_min", "", "_max")]
    assert latencies == [10.0, 20.0, 90.0]
    assert speed.fps == 50.0


def test_a_slow_path_gets_fewer_rounds_but_never_below_three(clock):
    seconds = module.BUDGET_SECONDS * 2
    paths = {"a": clock.path("a", lambda number, images: seconds)}
    speed = time_in_turns(paths, {"a": torch.zeros(1, 3, 8, 8)}, device="cpu")["a"]
    assert speed.rounds == 3
    assert speed.fps_min <= speed.fps <= speed.fps_max
    assert speed.latency_ms == pytest.approx(1e3 * seconds)


def test_speed_of_a_real_flow_on_a_real_clock():
    model = FastFlow([(4, 8, 8)], norm="layer", flow_steps=1, kernels=(3,))
    paths = {"flow": lambda images: model([images.repeat(1, 2, 1, 1)[:, :4]])}
    (speed,) = time_in_turns(paths, {"flow": torch.rand(2, 3, 8, 8)}, device="cpu").values()
    assert 0 < speed.latency_ms_min <= speed.latency_ms <= speed.latency_ms_max
    assert speed.fps > 0


@pytest.mark.parametrize(("turns", "passes"), [(0, 1), (4, 4)])
def test_turned_copies_are_timed(turns, passes):
    variant = small(taps=(1,), weights="random", test_turns=turns)
    extractor, seen = Extractor.load(variant.feature_spec), []
    extractor.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    with torch.inference_mode():
        module._image_to_map(variant, extractor, 0, "cpu")(torch.zeros(1, 3, 64, 64))
    assert len(seen) == passes


def test_a_batch_norm_at_a_tap_of_one_position_can_be_counted():
    deep = Variant().replace(image_size=32, taps=(4,), norm="batch", subnet_norm="batch")
    assert measure(deep).shapes[0][1:] == (1, 1)

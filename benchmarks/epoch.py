"""(b) A training step of the same flow: FrEIA's blocks, anomalib's model and ours."""

from collections.abc import Callable, Sequence
from statistics import median

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

from benchmarks.common import Options, Part, columns, cores, has_peer, ratio
from benchmarks.peer import VARIANT, peer_options
from benchmarks.turns import WARMUP, own_processes, take_turns
from harness.experiment.variant import Variant
from harness.run.measure import flow_macs
from harness.run.model import make_model
from harness.run.process import keep_memory
from harness.run.watch import precision

LAYOUTS = {"3×3 and 1×1": (3, 1), "3×3": (3,)}
FREIA, PEER = "FrEIA AllInOneBlock", "anomalib"
TUNED = f"{FREIA}, same allocator"  # no user's bare loop; shows what else is faster
ASKED = {"ours, float32": 1.3, "ours, bfloat16": 4.0}  # side: times AllInOneBlock
Step = Callable[[], object]
Shape = tuple[int, int, int]


def measure(options: Options) -> Part:
    """Every side a process of its own, in turns, for both layouts of the kernels."""
    part = Part(
        protocol=[
            f"One optimiser step on features in memory, batch {batch(options)}, "
            f"{options.size} px, resnet18's taps; ms an image; {cores()} threads on every side.",
            "Every side is a process of its own, and they take turns: ours sets the C "
            "allocator as the harness's workers do, the others run as they come, but for "
            f"{TUNED}; {WARMUP} steps of warm-up.",
            "FrEIA and anomalib: a bare loop with torch's Adam, LayerNorm before each flow.",
        ]
    )
    for label, kernels in layouts(options).items():
        with own_processes(options, "epoch", sides(), kernels=kernels) as children:
            turns = {name: child.turn for name, child in children.items()}
            seconds = take_turns(turns, rounds=options.turns(5), warmup=WARMUP)
        work = 6e-9 * _macs(options, kernels) * batch(options)  # three passes, two FLOP a MAC
        part.tables[f"Training step, {label}"] = [
            {"side": name, **columns([1e3 * s / batch(options) for s in found], "ms an image")}
            | {"GFLOP/s": round(work / median(found), 1)}
            for name, found in seconds.items()
        ]
        for name, needed in ASKED.items():
            text = f"Epoch, {label}, {name}, against AllInOneBlock"
            part.claim(text, ratio(seconds[FREIA], seconds[name]), needed)
    return part


def layouts(options: Options) -> dict[str, tuple[int, ...]]:
    """Name → kernels; one is enough to show that it runs."""
    return {k: v for k, v in LAYOUTS.items() if not options.quick or k == "3×3"}


def sides() -> tuple[str, ...]:
    """The names of those that can be measured here."""
    return (FREIA, TUNED, *([PEER] if has_peer() else []), *ASKED)


def batch(options: Options) -> int:
    """Images of a step."""
    return 2 if options.quick else 32


def side(options: Options) -> Step:
    """The step of the side and the kernels that the options' extra names."""
    name = options.extra["side"]
    torch.set_num_threads(options.extra.get("threads", cores()))
    if name in (*ASKED, TUNED):
        keep_memory()
    torch.manual_seed(0)
    variant = _variant(options, options.extra["kernels"])
    features = [torch.randn(batch(options), *s, device=options.device) for s in _shapes(options)]
    if name in ASKED:
        return _ours(variant.replace(precision=name.split()[-1]), features)
    flows = _freia(variant, _shapes(options)) if name != PEER else _anomalib(variant)
    return _bare(flows, features)


def _variant(options: Options, kernels: Sequence[int]) -> Variant:
    flow_steps = 2 if options.quick else 8
    return VARIANT.replace(kernels=tuple(kernels), image_size=options.size, flow_steps=flow_steps)


def _shapes(options: Options) -> tuple[Shape, ...]:
    """Of resnet18's taps."""
    return tuple((c, options.size * 16 // c, options.size * 16 // c) for c in (64, 128, 256))


def _macs(options: Options, kernels: Sequence[int]) -> int:
    """Multiply-accumulates of the flows on an image, forward."""
    shapes = _shapes(options)
    with torch.device("meta"):
        model = make_model(_variant(options, kernels), shapes, 0)
        return flow_macs(model, [torch.empty(1, *shape) for shape in shapes])


def _ours(variant: Variant, features: list[Tensor]) -> Step:
    """As harness.run.train takes it."""
    shapes = [tuple(x.shape[1:]) for x in features]
    model = make_model(variant, shapes, 0).to(features[0].device).train()
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    features = [x.contiguous(memory_format=torch.channels_last) for x in features]

    def step() -> None:
        with precision(variant, features[0].device.type):
            loss = model.nll(features, reduction="sum").mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _freia(variant: Variant, shapes: Sequence[Shape]) -> nn.ModuleList:
    """FrEIA 0.2's blocks, C×C convolutions as permutations."""

    def subnet(kernel: int) -> Callable[[int, int], nn.Module]:
        def make(given: int, out: int) -> nn.Module:
            first, second = (
                nn.Conv2d(given, o, kernel, padding=kernel // 2) for o in (given, out)
            )
            return nn.Sequential(first, nn.ReLU(), second)

        return make

    flows = nn.ModuleList()
    for shape in shapes:
        flow = SequenceINN(*shape)
        for i in range(variant.flow_steps):
            kernel = variant.kernels[i % len(variant.kernels)]
            flow.append(AllInOneBlock, subnet_constructor=subnet(kernel), affine_clamping=2.0)
        flows.append(flow)
    return flows


def _anomalib(variant: Variant) -> nn.ModuleList:
    """The flows of anomalib's torch model with random weights: time does not depend on them."""
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    size, backbone = (variant.image_size,) * 2, variant.backbone.split(".")[0]
    model = FastflowModel(size, backbone, pre_trained=False, **peer_options(variant))
    return model.fast_flow_blocks


def _bare(flows: nn.ModuleList, features: list[Tensor]) -> Step:
    """One optimiser step of a bare loop."""
    norms = nn.ModuleList(nn.LayerNorm(x.shape[1:]) for x in features)
    both = nn.ModuleList([flows, norms]).to(features[0].device).train()
    optimiser = torch.optim.Adam([p for p in both.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        loss = torch.zeros((), device=features[0].device)
        for flow, norm, x in zip(flows, norms, features, strict=True):
            z, log_det = flow(norm(x))
            loss = loss + (0.5 * z.square().sum((1, 2, 3)) - log_det).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step

"""A training step and inference of the same flow: ours, FrEIA's AllInOneBlock, anomalib's model.

Interleaved in one process, medians; needs anomalib beside our dependencies::

    PYTHONPATH=. python benchmarks/epoch.py [epoch|inference] --kernels 3 1 --batch 32 --json FILE

Prints a markdown table. ``--cpu-time`` counts processor time instead of wall time: on a machine
shared with other work it is the steadier figure, and with one thread the two mean the same.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch
from anomalib.models.image.fastflow.torch_model import FastflowModel
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn

from harness.backbones import Backbone
from harness.fast import fused
from harness.fastflow import FastFlow
from harness.scoring import anomaly_maps, image_scores

SIZE, STEPS = 256, 8
SHAPES = ((64, 64, 64), (128, 32, 32), (256, 16, 16))  # resnet18's taps


def freia(kernels):
    """FrEIA 0.2's blocks, C×C convolutions as permutations."""

    def subnet(kernel):
        def make(given, out):
            convs = [
                nn.Conv2d(i, o, kernel, padding=kernel // 2)
                for i, o in ((given,) * 2, (given, out))
            ]
            return nn.Sequential(convs[0], nn.ReLU(), convs[1])

        return make

    flows = nn.ModuleList()
    for shape in SHAPES:
        flow = SequenceINN(*shape)
        for i in range(STEPS):
            kernel = kernels[i % len(kernels)]
            flow.append(AllInOneBlock, subnet_constructor=subnet(kernel), affine_clamping=2.0)
        flows.append(flow)
    return flows


def trained(flows, norms, features):
    """One optimiser step of a bare loop."""
    parameters = [p for m in (flows, norms) for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step():
        loss = 0
        for flow, norm, x in zip(flows, norms, features, strict=True):
            z, log_det = flow(norm(x))
            loss = loss + (0.5 * z.square().sum((1, 2, 3)) - log_det).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def ours_trained(kernels, features, *, bfloat16):
    """One optimiser step as harness.train takes it."""
    model = FastFlow(SHAPES, norm="layer-affine", steps=STEPS, kernels=kernels)
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    features = [x.to(memory_format=torch.channels_last) for x in features]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model.nll(features, reduction="sum").mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def epoch_paths(kernels, batch):
    """Name → one training step."""
    features = [torch.randn(batch, *shape) for shape in SHAPES]

    def norms():
        return nn.ModuleList(nn.LayerNorm(shape) for shape in SHAPES)

    peer = anomalib(kernels)
    return {
        "FrEIA AllInOneBlock": trained(freia(kernels), norms(), features),
        "anomalib": trained(peer.fast_flow_blocks, norms(), features),
        "ours, float32": ours_trained(kernels, features, bfloat16=False),
        "ours, bfloat16": ours_trained(kernels, features, bfloat16=True),
    }


def anomalib(kernels):
    """Anomalib's torch model with random weights: time does not depend on them."""
    return FastflowModel(
        (SIZE, SIZE), "resnet18", pre_trained=False, flow_steps=STEPS,
        conv3x3_only=kernels == (3,),
    ).eval()  # fmt: skip


def inference_paths(kernels, batch):
    """Name → image to map and score."""
    images = torch.randn(batch, 3, SIZE, SIZE)
    peer = anomalib(kernels)
    backbone = Backbone("resnet18.tv_in1k", taps=(1, 2, 3), image_size=SIZE)
    model = FastFlow(SHAPES, norm="layer-affine", steps=STEPS, kernels=kernels)

    def theirs():
        with torch.inference_mode():
            peer(images)

    def ours(path):
        def run():
            maps = anomaly_maps(
                path(images), size=SIZE, score_map="exp-mean", scale_aggregation="mean",
                smoothing=0.0,
            )  # fmt: skip
            image_scores(maps, image_score="max", top_k=0.01)

        return run

    kinds = ("float32", "bfloat16")
    paths = {f"ours, {k}": ours(fused(backbone, model, precision=k)) for k in kinds}
    return {"anomalib": theirs, **paths}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("epoch", "inference"), nargs="?", default="epoch")
    parser.add_argument("--kernels", type=int, nargs="+", default=(3, 1))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    make = epoch_paths if options.what == "epoch" else inference_paths
    paths = make(tuple(options.kernels), options.batch)
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds = {name: [] for name in paths}
    for turn in range(1 + options.rounds):
        for name, path in paths.items():
            start = clock()
            path()
            if turn:
                seconds[name].append((clock() - start) / options.batch)
    first = median(next(iter(seconds.values())))
    print(f"{options.what}, kernels {options.kernels}, batch {options.batch}, "
          f"{options.threads} threads\n")  # fmt: skip
    print("| | ms an image (range) | ratio |\n|---|---|---|")
    for name, times in seconds.items():
        low, middle, high = (1e3 * f(times) for f in (min, median, max))
        print(f"| {name} | {middle:.1f} ({low:.1f}–{high:.1f}) | {first / median(times):.2f} |")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "json": None, "seconds": seconds}))


if __name__ == "__main__":
    main()

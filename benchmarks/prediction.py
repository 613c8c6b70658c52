"""Prediction: images of bytes in memory → maps and scores, as a detector is used."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import Options, Part, Row, columns, cores, ratio
from benchmarks.inference import TOLERANCE, pictures, trained_on_nothing, warm
from benchmarks.peer import our_model, peer_model, peer_options
from benchmarks.turns import WARMUP, own_processes, take_turns
from harness.detect.detector import Detector
from harness.detect.export import export
from harness.detect.parts import DetectorFile, Levels
from harness.experiment.record import Data, Weights
from harness.run.process import keep_memory

BATCHES = {1: 40, 8: 10}  # images at a time: rounds
OURS, OURS_ONNX = "ours, predict", "ours, ONNX in onnxruntime"
PEER, PEER_ONNX = "anomalib, torch", "anomalib, ONNX in onnxruntime"
PEER_OPENVINO = "anomalib, OpenVINO in float32"
PEER_REDUCED = "anomalib, OpenVINO as it comes"
NEEDS: dict[str, tuple[str, ...]] = {
    OURS: (),
    OURS_ONNX: ("onnxruntime", "onnxscript"),
    PEER: ("anomalib",),
    PEER_ONNX: ("anomalib", "onnxruntime", "onnxscript"),
    PEER_OPENVINO: ("anomalib", "onnxscript", "openvino"),
    PEER_REDUCED: ("anomalib", "onnxscript", "openvino"),
}  # side → packages without which it is left out
AGAINST = (
    (OURS, PEER),
    (OURS_ONNX, PEER_ONNX),
    (OURS_ONNX, PEER_OPENVINO),
    (OURS_ONNX, PEER_REDUCED),
)

Pixels = NDArray[np.uint8]  # (B, S, S, 3)
Found = tuple[NDArray[Any], NDArray[Any]]  # maps (B, S, S), scores (B,)


def measure(options: Options) -> Part:
    """That all sides say the same; then each in a process of its own, in turns, at every size."""
    names = [side for side, needs in NEEDS.items() if all(map(find_spec, needs))]
    part = Part(
        protocol=[
            f"resnet18, 8 steps of 3×3, {options.size} px, float32, weights of all sides the "
            "same. Images are bytes in memory, of the network's size, so that no side resizes: "
            "conversion, normalisation, network, map and score are counted, no file.",
            "Ours, predict: Detector.score, which `harness predict` calls. Its ONNX: what "
            "`harness export` writes. anomalib: the Lightning module's forward, as its "
            "TorchInferencer calls it; Fastflow.to_onnx; its OpenVINOInferencer on to_openvino, "
            "which as it comes computes in bfloat16 where a processor has it.",
            f"{cores()} threads on every side; every side is a process of its own, and they take "
            f"turns, {WARMUP} of them to warm up; of a turn's two calls the second counts. Batch "
            f"size: rounds {BATCHES}.",
        ]
    )
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        part.tables["Outputs beside ours"] = _agreement(names, options, Path(folder), part)
    rows: list[Row] = []
    with own_processes(options, "prediction", names) as children:
        for batch, usual in BATCHES.items():
            turns = {name: partial(warm, child, batch) for name, child in children.items()}
            seconds = take_turns(turns, rounds=options.turns(usual), warmup=WARMUP)
            rows += [
                {"side": n, "batch": batch, **columns([batch / t for t in s], "images/s")}
                for n, s in seconds.items()
            ]
            for ours, theirs in AGAINST:
                if {ours, theirs} <= set(names):
                    text = f"Prediction, batch {batch}, {ours}, against {theirs}"
                    part.claim(text, ratio(seconds[theirs], seconds[ours]), 1)
    part.tables["Prediction"] = rows
    return part


def side(options: Options) -> Callable[[int], object]:
    """The path that the options' extra names, on so many images in memory."""
    name = options.extra["side"]
    if name.startswith("ours"):
        keep_memory()
    images = pictures(options, max(BATCHES))
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        path = path_of(name, options, Path(folder))

    def step(batch: int) -> None:
        path(images[:batch])

    return step


def path_of(name: str, options: Options, folder: Path) -> Callable[[Pixels], Found]:
    """The side's way from images to maps and scores; what it writes goes into the folder."""
    torch.set_num_threads(cores())
    if name == OURS:
        detector = made(options)
        return lambda images: _whole(detector.score([Image.fromarray(i) for i in images]))
    if name == OURS_ONNX:
        export(made(options), "onnx", folder / "ours.onnx", list(pictures(options, 3)))
        run = _session(folder / "ours.onnx")
        return lambda images: (lambda out: (out["map"], out["score"]))(run({"image": images}))
    module = _module(options)
    if name == PEER:
        return lambda images: _in_torch(module, images)
    size = (options.size, options.size)
    if name == PEER_ONNX:
        run = _session(module.to_onnx(folder, input_size=size, dynamic_axes=OPEN))
        return lambda images: _found(run({"input": _floats(images)}))
    precision = {"INFERENCE_PRECISION_HINT": "f32"} if name == PEER_OPENVINO else {}
    return _openvino(module, folder, size, {"INFERENCE_NUM_THREADS": cores(), **precision})


OPEN = {"input": {0: "batch"}}


def _whole(found: tuple[NDArray[Any] | None, NDArray[Any]]) -> Found:
    maps, scores = found
    assert maps is not None, "FastFlow localises"
    return maps, scores


def made(options: Options) -> Detector:
    """A detector of the weights that all sides have; it has learnt from no image."""
    variant = trained_on_nothing(options)
    backbone, model = our_model(options, variant, generic=True)
    about = DetectorFile(
        variant=asdict(variant), dataset="", category="", seed=0, epoch=0,
        shapes=[(s.channels, s.height, s.width) for s in backbone.shapes()],
        weights=Weights(backbone=variant.backbone, source="", sha256=""),
        data=Data(
            digest="", train=0, test=0, defective=0, masks=0, layout="", disturbance="", form="",
            official=None, complete=None, published_form=None, copy="",
        ),
        bits=8,
    )  # fmt: skip
    model.to(memory_format=torch.channels_last)
    return Detector(about, backbone, model, None, Levels.none())


def _module(options: Options) -> Any:
    """Anomalib's Lightning module, with our weights in its torch model."""
    from anomalib.models import Fastflow

    variant = trained_on_nothing(options)
    size = (options.size, options.size)
    module = Fastflow(
        pre_trained=False, pre_processor=Fastflow.configure_pre_processor(size),
        evaluator=False, visualizer=False, **peer_options(variant),
    )  # fmt: skip
    module.model = peer_model(variant, *our_model(options, variant, generic=True))
    return module.eval()


def _floats(images: Pixels) -> NDArray[np.float32]:
    """As anomalib's inferencers make them: (B, 3, S, S), of 0 to 1."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _in_torch(module: Any, images: Pixels) -> Found:
    with torch.inference_mode():
        out = module(torch.from_numpy(_floats(images)))
    return out.anomaly_map[:, 0].numpy(), out.pred_score.flatten().numpy()


def _found(out: dict[str, NDArray[Any]]) -> Found:
    return out["anomaly_map"][:, 0], out["pred_score"].ravel()


def _session(file: Path) -> Callable[[dict[str, Any]], dict[str, NDArray[Any]]]:
    import onnxruntime

    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(file, how, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(names, given), strict=True))


def _openvino(
    module: Any, folder: Path, size: tuple[int, int], how: dict[str, Any]
) -> Callable[[Pixels], Found]:
    import contextlib

    from anomalib.deploy import OpenVINOInferencer

    folder = folder.resolve()
    file = module.to_openvino(folder, input_size=size, onnx_kwargs={"dynamic_axes": OPEN})
    with contextlib.chdir(folder):  # it keeps a cache in the working folder
        inferencer = OpenVINOInferencer(file, device="CPU", config=how)

    def run(images: Pixels) -> Found:
        out = inferencer.predict(images)
        return out.anomaly_map.reshape(len(images), *size), out.pred_score.ravel()

    return run


def _agreement(names: list[str], options: Options, folder: Path, part: Part) -> list[Row]:
    """The largest differences of maps and scores from `predict`'s."""
    images = pictures(options, 8)
    found = {name: path_of(name, options, folder)(images) for name in names}
    rows = []
    for name in names[1:]:
        pairs = zip(found[name], found[OURS], strict=True)
        apart = [float(np.abs(a - b).max()) for a, b in pairs]
        rows.append({"side": name, "map": f"{apart[0]:.2g}", "score": f"{apart[1]:.2g}"})
        if name != PEER_REDUCED:
            got = {"value": float(f"{max(apart):.2g}")}
            text = f"Prediction, largest difference of maps and scores, {name} from {OURS}"
            part.claim(text, got, TOLERANCE, sense="at most", unit="")
    return rows

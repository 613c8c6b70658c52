"""(a) A sweep: six FastFlow variants on one category, from images to metrics.

Each side is a fresh process, timed from its start to its end. The six are those that anomalib
can express too: same backbone, weights, images, size, batch, epochs, optimiser and loss.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common import Child, Options, Part, Row, columns, cores, has_peer, in_child, ratio

KINDS = (
    {"kernels": (3,), "flow_steps": 8},
    {"kernels": (3, 1), "flow_steps": 8},
    {"kernels": (3,), "flow_steps": 4},
    {"kernels": (3, 1), "flow_steps": 4},
    {"kernels": (3,), "flow_steps": 8, "hidden_ratio": 0.5},
    {"kernels": (3, 1), "flow_steps": 8, "hidden_ratio": 0.5},
)
OURS = {"ours, float32": "float32", "ours, bfloat16": "bfloat16"}
GROW = "{}, --grow"
PEER = {"anomalib, evaluating once": True, "anomalib as it comes": False}


def measure(options: Options) -> Part:
    """Both sides in turns, with each number of epochs; a table and claims of each.

    A warm cache and anomalib as it comes are measured with the first number of epochs alone.
    """
    in_child(options, "sweep", "imports")
    first = options.epochs[0]
    parts = [_measure(replace(options, epochs=(n,)), whole=n == first) for n in options.epochs]
    return Part(
        protocol=list(dict.fromkeys(line for part in parts for line in part.protocol)),
        tables={name: rows for part in parts for name, rows in part.tables.items()},
        claims=[claim for part in parts for claim in part.claims],
    )


def _measure(options: Options, *, whole: bool) -> Part:
    """Both sides in turns; as a whole, ours again with the features that the turn before left."""
    done: dict[str, list[Child]] = {}
    for _ in range(options.turns(1)):
        for name, precision in OURS.items():
            with tempfile.TemporaryDirectory(dir=options.work) as folder:
                cold, warm = Path(folder) / "cold", Path(folder) / "warm"
                _append(done, name, _ours(options, precision, cold))
                if options.device == "cpu":
                    grown = _ours(options, precision, Path(folder) / "grown", words=["--grow"])
                    _append(done, GROW.format(name), grown)
                if whole:
                    (warm / "cache").mkdir(parents=True)
                    shutil.move(cold / "cache" / "features", warm / "cache" / "features")
                    _append(done, f"{name}, cache warm", _ours(options, precision, warm))
        for name, once in PEER.items() if has_peer() else ():
            if whole or once:
                _append(done, name, in_child(options, "sweep", "peer", watch=True, once=once))
    return _report(done, options)


def _append(done: dict[str, list[Child]], name: str, child: Child) -> None:
    done.setdefault(name, []).append(child)
    print(f"  sweep: {name}: {child.seconds:.1f} s", flush=True)


def _ours(options: Options, precision: str, results: Path, words: Sequence[str] = ()) -> Child:
    return in_child(
        options, "sweep", "ours", watch=True, precision=precision, results=str(results),
        words=words,
    )  # fmt: skip


def _report(done: dict[str, list[Child]], options: Options) -> Part:
    seconds = {name: [c.seconds for c in children] for name, children in done.items()}
    rows: list[Row] = []
    about = f"Sweep of {len(_kinds(options))} variants, epochs {options.epochs[0]}"
    work = in_child(options, "sweep", "training_work").result
    for name, children in done.items():
        last = children[-1]
        aurocs = [r["image_auroc"] for r in last.result]
        row = {"side": name, **columns(seconds[name], "s")}
        row["GFLOP/s"] = round(2 * work / row["median s"] / 1e9, 1)
        row["image AUROC of the variants, %"] = " ".join(f"{100 * a:.1f}" for a in aurocs)
        rows.append(row | last.memory())
    part = Part(
        protocol=[
            f"{len(_kinds(options))} variants × 1 category, {options.size} px, batch 32; wall "
            "time of a whole fresh process, imports included.",
            "Ours is `harness run --no-speed` on a study of the six: neither side measures FPS; "
            "ours also computes AP and AUPRO, and keeps records and energies.",
            "anomalib evaluating once: its Engine, barebones (no checkpoint, no logging, no "
            f"validation), no visualiser, {cores()} loading workers, all six in one process, "
            "image and pixel AUROC and F1-max at the end.",
            "--grow lets the run that is left take the core of the one that ended. GFLOP/s is the "
            "arithmetic of the training steps alone (three times a forward pass), over the whole "
            "time: imports, backbone, evaluation and idle cores lower it.",
            "On a GPU ours is true float32; anomalib's convolutions are TF32, as torch has it.",
            "anomalib as it comes: its Engine's train() with every default: validation each "
            "epoch, checkpoint, test, visualiser, 8 loading workers.",
        ],
        tables={about: rows},
    )
    lean = "anomalib, evaluating once"
    for name in OURS if lean in seconds else ():
        cold, warm = seconds[name], seconds.get(f"{name}, cache warm")
        part.claim(f"{about}, {name}, against {lean}", ratio(seconds[lean], cold), 6)
        if grown := seconds.get(GROW.format(name)):
            said = f"{about}, {GROW.format(name)}, against {lean}"
            part.claim(said, ratio(seconds[lean], grown), 6)
        if warm:
            said = f"{about}, {name}, cache warm, against {lean}"
            part.claim(said, ratio(seconds[lean], warm), 8)
            usual = ratio(seconds["anomalib as it comes"], cold)
            part.claim(f"{about}, {name}, against anomalib as it comes", usual, 6)
    if lean in done:
        ours, theirs = done["ours, float32"][-1], done[lean][-1]
        for what in ("peak_tree", "peak_process"):
            share = getattr(ours, what) / max(1, getattr(theirs, what))
            words = "all processes together" if what == "peak_tree" else "the largest process"
            part.claim(
                f"{about}, peak memory of {words}, ours / anomalib's", {"value": round(share, 3)},
                1, sense="at most",
            )  # fmt: skip
    return part


def _kinds(options: Options) -> tuple[dict[str, Any], ...]:
    return KINDS[2:4] if options.quick else KINDS[: options.extra.get("kinds", len(KINDS))]


# --- one side each, in a process of its own -----------------------------------------------------


def imports(options: Options) -> None:
    """What both sides import: neither's first round compiles it or waits for the disk."""
    wanted = ["harness.cli.studies", "harness.run.job", "benchmarks.peer"]
    wanted += [f"anomalib.{name}" for name in ("data", "engine", "metrics", "models")] * has_peer()
    for name in wanted:
        import_module(name)


def variants(options: Options, precision: str = "float32") -> list[Any]:
    """The six as our variants."""
    from benchmarks.peer import VARIANT

    base = VARIANT.replace(
        image_size=options.size, epochs=options.epochs[0], precision=precision,
        weights="pretrained" if options.weights else "random",
    )  # fmt: skip
    return [base.replace(**kind) for kind in _kinds(options)]


def ours(options: Options) -> list[Row]:
    """``harness run`` on a study of the six, or the first of them, and the AUROC of each."""
    from harness.cli.main import main
    from harness.experiment.store import read_records
    from harness.experiment.study import Study
    from harness.studies import STUDIES

    results = Path(options.extra["results"])
    bases = {str(i): v for i, v in enumerate(variants(options, options.extra["precision"]))}
    STUDIES["sweep"] = Study(name="sweep", asks="How long?", bases=bases, seeds=(0,))
    words = ["--data", str(options.data.parent), "--category", options.data.name]
    words += ["--weights", str(options.weights)] if options.weights else []
    code = main(
        [
            "run",
            "sweep",
            "--no-speed",
            *words,
            "--results",
            str(results),
            "--device",
            options.device,
            *options.extra.get("words", ()),
        ]
    )
    if code:
        raise SystemExit(code)
    records = {r.digest: r for r in read_records(results)}
    return [_row(records[v.digest].metrics) for v in bases.values()]


def training_work(options: Options) -> int:
    """Multiply-accumulates of training all of them: forward, and twice that backward."""
    from harness.run.measure import measure

    images = len([*(options.data / "train" / "good").iterdir()])
    return sum(3 * measure(v).training_work(v, images) for v in variants(options))


def _row(metrics: dict[str, float]) -> Row:
    return {k: metrics[k] for k in ("image_auroc", "pixel_auroc")}


def peer(options: Options) -> list[Row]:
    """Anomalib's Engine on the six, one after the other."""
    import torch
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    from benchmarks.peer import load_extractor, our_backbone

    once = options.extra["once"]
    torch.set_num_threads(cores())
    rows = []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for variant in variants(options):
            seed_everything(0)
            model = _lightning(variant, once=once)
            load_extractor(model.model, our_backbone(options, variant))
            accelerator = "gpu" if options.device.startswith("cuda") else "cpu"
            lean = {"barebones": True, "limit_val_batches": 0} if once else {}
            engine = Engine(
                max_epochs=options.epochs[0], accelerator=accelerator, devices=1,
                default_root_dir=folder, **lean,
            )  # fmt: skip
            data = datamodule(options, once=once)
            if once:
                engine.fit(model, datamodule=data)
                found = engine.test(model, datamodule=data)
            else:
                found = engine.train(model, datamodule=data)
            metrics = {k.lower(): v for k, v in found[0].items()}
            rows.append(_row(metrics))
    return rows


def _lightning(variant: Any, *, once: bool) -> Any:
    from anomalib.metrics import AUROC, Evaluator, F1Max
    from anomalib.models import Fastflow

    from benchmarks.peer import peer_options

    size = (variant.image_size, variant.image_size)
    given = {
        "backbone": variant.backbone.split(".")[0], "pre_trained": False,
        "pre_processor": Fastflow.configure_pre_processor(size), **peer_options(variant),
    }  # fmt: skip
    if not once:
        return Fastflow(**given)
    levels = {"image_": ["pred_score", "gt_label"], "pixel_": ["anomaly_map", "gt_mask"]}
    metrics = [kind(fields=f, prefix=p) for p, f in levels.items() for kind in (AUROC, F1Max)]
    return Fastflow(
        **given, evaluator=Evaluator(test_metrics=metrics), visualizer=False, post_processor=False
    )


def datamodule(options: Options, *, once: bool) -> Any:
    """The same files as ours; anomalib's MVTecAD reads PNG alone, its Folder whatever is there."""
    from anomalib.data import Folder

    kinds = sorted(p.name for p in (options.data / "test").iterdir() if p.name != "good")
    return Folder(
        name=options.data.name, root=options.data, normal_dir="train/good",
        normal_test_dir="test/good", abnormal_dir=[f"test/{k}" for k in kinds],
        mask_dir=[f"ground_truth/{k}" for k in kinds], train_batch_size=32, eval_batch_size=32,
        val_split_mode="same_as_test",
        **({"num_workers": cores()} if once else {}),
    )  # fmt: skip

"""Minutes to a published figure: from images to a training's last epoch that reaches it.

The figure is the pixel AUROC that gathierry prints for ResNet18 after 500 epochs. Ours is the
project's recipe, anomalib's its FastFlow as it comes, stopped as soon as a validation on the test
set reaches the figure: an advantage that ours does not have, whose last epoch has to reach it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import Child, Options, Part, Row, cores, has_peer, in_child, ratio

FIGURES = {"bottle": 0.975, "screw": 0.952}
STEPS = (15, 30, 60, 120, 200)  # of our trainings, each a whole one of its own
PRECISIONS = ("float32", "bfloat16")
LIMIT = 60  # minutes, after which anomalib is stopped


def measure(options: Options) -> Part:
    """Our shortest training that reaches the figure, and anomalib's epochs until it does."""
    figure = FIGURES.get(options.data.name, 0.95)
    rows: list[Row] = []
    reached: dict[str, float] = {}
    for precision in PRECISIONS:
        for steps in STEPS[:1] if options.quick else STEPS:
            child = in_child(options, "target", "ours", precision=precision, steps=steps)
            rows.append(_row(f"ours, {precision}, {steps} steps", child, child.result, figure))
            if child.result["pixel_auroc"] >= figure:
                reached[precision] = child.seconds
                break
    part = Part(
        protocol=[
            f"{options.data.name}, {options.size} px, one seed; the figure: pixel AUROC "
            f"{100 * figure:.1f}; wall time of a whole fresh process.",
            "Ours: `harness run` on the recipe of harness/studies/recipe.py, evaluated at its "
            "last epoch alone; trainings of more and more steps, each on its own, until one does.",
            f"anomalib: its Engine with validation on the test set after every epoch, {cores()} "
            f"loading workers, stopped at the figure or after {LIMIT} minutes.",
        ],
        tables={"Minutes to a published figure": rows},
    )
    if has_peer():
        minutes = 1 if options.quick else LIMIT
        peer_ = in_child(options, "target", "peer", figure=figure, minutes=minutes)
        rows.append(_row("anomalib", peer_, peer_.result, figure))
        for precision, seconds in reached.items():
            part.claim(
                f"Time to pixel AUROC {100 * figure:.1f} on {options.data.name}, ours in "
                f"{precision} against anomalib",
                ratio([peer_.seconds], [seconds]),
                10,
            )
    return part


def _row(side: str, child: Child, found: dict[str, Any], figure: float) -> Row:
    return {
        "side": side,
        "minutes": round(child.seconds / 60, 2),
        "epochs": found["epochs"],
        "pixel AUROC at the last, %": round(100 * found["pixel_auroc"], 2),
        "reached": "yes" if found["pixel_auroc"] >= figure else "no",
    }


def ours(options: Options) -> Row:
    """``harness run`` on the recipe with so many steps; its last epoch."""
    from harness.cli.main import main
    from harness.experiment.store import read_records
    from harness.experiment.study import Study
    from harness.studies import STUDIES
    from harness.studies.recipe import FASTFLOW

    variant = FASTFLOW.replace(
        min_steps=options.extra["steps"], precision=options.extra["precision"], eval_every=0,
        image_size=options.size, weights="pretrained" if options.weights else "random",
    )  # fmt: skip
    STUDIES["target"] = Study(name="target", asks="How long?", bases={"fastflow": variant},
                              seeds=(0,))  # fmt: skip
    words = ["--data", str(options.data.parent), "--category", options.data.name]
    words += ["--weights", str(options.weights)] if options.weights else []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        words += ["--results", folder, "--device", options.device]
        if code := main(["run", "target", "--no-speed", "--jobs", "1", *words]):
            raise SystemExit(code)
        (record,) = read_records(Path(folder))
    return {"pixel_auroc": record.metrics["pixel_auroc"], "epochs": len(record.loss)}


def peer(options: Options) -> Row:
    """Anomalib's Engine until a validation on the test set reaches the figure, or time is up."""
    import torch
    from anomalib.engine import Engine
    from anomalib.metrics import AUROC, Evaluator
    from anomalib.models import Fastflow
    from lightning.pytorch import Callback, seed_everything

    from benchmarks.peer import VARIANT, load_extractor, our_backbone, peer_options
    from benchmarks.sweep import datamodule

    start, found = time.perf_counter(), {"pixel_auroc": 0.0, "epochs": 0}

    class Enough(Callback):
        def on_validation_end(self, trainer: Any, model: Any) -> None:
            if trainer.sanity_checking:
                return
            found["pixel_auroc"] = float(trainer.callback_metrics["pixel_AUROC"])
            found["epochs"] = trainer.current_epoch + 1
            late = time.perf_counter() - start > 60 * options.extra["minutes"]
            trainer.should_stop = late or found["pixel_auroc"] >= options.extra["figure"]

    torch.set_num_threads(cores())
    seed_everything(0)
    size = (options.size, options.size)
    variant = VARIANT.replace(
        image_size=options.size, weights="pretrained" if options.weights else "random"
    )
    pixels = AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_")
    model = Fastflow(
        backbone=variant.backbone.split(".")[0], pre_trained=False,
        pre_processor=Fastflow.configure_pre_processor(size), **peer_options(variant),
        evaluator=Evaluator(val_metrics=[pixels]), visualizer=False,
    )  # fmt: skip
    load_extractor(model.model, our_backbone(options, variant))
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        engine = Engine(
            max_epochs=500, accelerator="gpu" if options.device.startswith("cuda") else "cpu",
            devices=1, default_root_dir=folder, callbacks=[Enough()],
            logger=False,
        )  # fmt: skip
        engine.fit(model, datamodule=datamodule(options, once=True))
    return found

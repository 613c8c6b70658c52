"""Records made by hand, for what reads records."""

import json
from dataclasses import asdict

from harness.experiment.record import Place, write_record


def record(variant, category, seed, auroc, *, pixel=0.9, best=None):
    metrics = {"image_auroc": auroc} | ({} if pixel is None else {"pixel_auroc": pixel})
    first = {"image_auroc": best or auroc / 2}
    return {
        "schema": 1, "digest": variant.digest, "variant": asdict(variant), "dataset": "d",
        "category": category, "seed": seed, "metrics": metrics, "smoke": False,
        "random_weights": False, "loss": [1.0],
        "weights": {"backbone": variant.backbone, "source": "folder", "sha256": "0" * 64},
        "data": {"digest": "x", "train": 9, "test": 8, "defective": 7, "masks": 6},
        "protocol": {"aupro_fpr_limit": 0.3, "resize": "r", "masks": "nearest", "map_size": 64},
        "epochs": [{"epoch": 5, "metrics": first}, {"epoch": 10, "metrics": metrics}],
        "selection": {"rule": "last", "epoch": 10, "oracle": False},
        "parameters": {"flow": 1000, "norm": 24, "frozen": 8, "backbone": 7},
        "macs": {"flow": 10, "backbone": 20},
        "environment": {
            "harness": "0", "versions": {"torch": "2", "timm": "1"}, "commit": None,
            "device": "cpu", "device_name": "chip",
        },
        "measured": {
            "fit_seconds": 1.0, "speed": {
                "fps": 50.0, "latency_ms": 20.0, "fps_batch_size": 8, "threads": 2, "rounds": 5,
                "measures": "all",
            },
        },
    }  # fmt: skip


def write_rows(results, rows, **changes):
    for variant, category, seed, auroc in rows:
        made = record(variant, category, seed, auroc, **changes)
        write_record(Place.of(results, variant, "d", category, seed), made)


def write_run(results, variant, category, seed, auroc, *, dataset="mvtec_ad", **changes):
    made = record(variant, category, seed, auroc) | {"dataset": dataset}
    made["data"] |= {"official": True, "copy": "the published counts"}
    for key, value in changes.items():
        made[key] = made[key] | value if isinstance(value, dict) else value
    path = Place.of(results, variant, dataset, category, seed).record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))

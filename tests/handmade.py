"""Records made by hand, for what reads records."""

import json
from dataclasses import asdict

import msgspec

from harness.experiment.place import Place
from harness.experiment.record import SCHEMA, Record
from harness.experiment.store import write_record


def record(variant, category, seed, auroc, *, pixel=0.9, best=None):
    metrics = {"image_auroc": auroc} | ({} if pixel is None else {"pixel_auroc": pixel})
    first = {"image_auroc": best or auroc / 2}
    content = {
        "schema": SCHEMA, "digest": variant.digest, "training_digest": variant.training.digest,
        "variant": asdict(variant), "dataset": "d", "category": category, "seed": seed,
        "metrics": metrics, "smoke": False, "random_weights": False, "loss": [1.0],
        "weights": {"backbone": variant.backbone, "source": "folder", "sha256": "0" * 64},
        "data": {
            "digest": "x", "train": 9, "test": 8, "defective": 7, "masks": 6, "layout": "",
            "disturbance": "", "form": "", "official": None, "complete": None,
            "published_form": None, "copy": "",
        },
        "protocol": {"aupro_fpr_limit": 0.3, "resize": "r", "masks": "nearest", "map_size": 64},
        "epochs": [{"epoch": 5, "metrics": first}, {"epoch": 10, "metrics": metrics}],
        "selection": {"rule": "last", "epoch": 10, "oracle": False},
        "parameters": {"flow": 1000, "norm": 24, "frozen": 8, "backbone": 7},
        "macs": {"flow": 10, "backbone": 20},
        "environment": {
            "harness": "0", "versions": {"torch": "2", "timm": "1"}, "commit": None,
            "device": "cpu", "device_name": "chip", "python": "3", "platform": "p", "threads": 1,
            "compiled": None,
        },
        "measured": {
            "fit_seconds": 1.0, "score_seconds": 1.0, "peak_memory_bytes": 1, "bank_bytes": 0,
            "finished": "", "speed": {
                "fps": 50.0, "latency_ms": 20.0, "fps_batch_size": 8, "threads": 2, "rounds": 5,
                "measures": "all",
            },
        },
    }  # fmt: skip
    return msgspec.convert(content, Record)


def changed(made, **changes):
    """A record with some of its content changed; a dictionary changes a block in part."""
    content = msgspec.to_builtins(made)
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    return content


def write_rows(results, rows, *, change=None, **changes):
    for variant, category, seed, auroc in rows:
        made = changed(record(variant, category, seed, auroc, **changes), **change or {})
        place = Place.of(results, variant, "d", category, seed)
        write_record(place, msgspec.convert(made, Record))


def write_run(results, variant, category, seed, auroc, *, dataset="mvtec_ad", **changes):
    known = {"official": True, "complete": True, "published_form": True}
    known["copy"] = "the published counts"
    made = changed(record(variant, category, seed, auroc), dataset=dataset, data=known)
    for key, value in changes.items():
        made[key] = made[key] | value if isinstance(value, dict) else value
    path = Place.of(results, variant, dataset, category, seed).record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))

"""``harness doctor``: what this machine, the data and the weights give."""

import shutil
from pathlib import Path
from typing import Any

import torch

from harness.data.check import check
from harness.data.contract import Dataset
from harness.data.datasets import open_dataset
from harness.errors import InputError
from harness.experiment.settings import Settings
from harness.features.backbone import Backbone
from harness.features.weights import find_weights
from harness.methods.flow import compiled
from harness.run.machine import cores, environment, torch_device
from harness.studies import STUDIES


def examine(
    *, data: Path | None, weights: Path | None, results: Path, dataset: str = ""
) -> dict[str, dict[str, Any]]:
    """Examine by section: machine, data (counts of every category), backbones of the studies."""
    settings = Settings(results=results)
    device = torch_device(settings.device)
    about = environment(device, cores())
    machine = {
        "harness": about.harness,
        "python": about.python,
        **about.versions,
        "device": f"{device} ({about.device_name})",
        "cores": cores(),
        "compiled flow steps": f"no: {why}" if (why := compiled.why_not()) else "yes",
        "bfloat16 on this device": torch.cuda.is_bf16_supported() if device != "cpu" else "yes",
        "free disk for results": f"{shutil.disk_usage(_nearest(results)).free / 2**30:.0f} GiB",
    }
    found = open_dataset(dataset or "surfaces", folder=data, cache=settings.cache)
    return {
        "machine": machine,
        f"data: {found.name} (read as {found.layout})": {
            name: _about(found, name) for name in found.categories()
        },
        "backbones of the studies": _backbones(weights),
    }


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that there is: what is on its disk."""
    folder = folder.resolve()
    return next(p for p in (folder, *folder.parents) if p.exists())


def _about(dataset: Dataset, name: str) -> str:
    """Counts, form and whether they are the published ones; or what is wrong."""
    try:
        category = dataset.load(name)
        check(category)
    except InputError as error:
        return f"cannot be used: {error}"
    about = category.about()
    counts = ", ".join(f"{n} {what}" for what, n in category.counts().items())
    return f"{counts}; {about['form']}; {about['copy']}"


def _backbones(weights: Path | None) -> dict[str, str]:
    found = {}
    for v in dict.fromkeys(v for study in STUDIES.values() for v in study.variants):
        if v.backbone in found:
            continue
        try:
            file = find_weights(v.backbone, weights, download=False)
            Backbone(v.backbone, taps=v.taps, image_size=v.image_size).load(file)
            found[v.backbone] = f"{file.source}, SHA-256 {file.sha256[:12]}…"
        except InputError as error:
            found[v.backbone] = str(error)
    return found

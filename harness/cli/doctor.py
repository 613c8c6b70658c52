"""``harness doctor``: what this machine, the data and the weights give."""

import shutil
from pathlib import Path
from typing import Any

import torch

from harness.data.check import check
from harness.data.contract import Category
from harness.data.datasets import open_dataset
from harness.data.left_out import left_out
from harness.data.reading import BY_NAME
from harness.errors import InputError
from harness.experiment.settings import Folders, Settings
from harness.features.backbone import Backbone
from harness.features.weights import find_weights
from harness.methods.flow import compiled
from harness.run.machine import cores, environment, torch_device
from harness.studies import STUDIES

REMARKS = "files that are left out or doubtful"


def examine(
    *,
    data: Path | None,
    weights: Path | None,
    results: Path,
    dataset: str = "",
    folders: Folders = BY_NAME,
) -> dict[str, dict[str, Any]]:
    """Examine by section: machine, data, files left out or doubtful, backbones of the studies.

    Of the data every category's counts are told, or what is wrong with it; of files that are left
    out, each by its name under the reason.
    """
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
    found = open_dataset(dataset or "surfaces", folder=data, cache=settings.cache, folders=folders)
    usable, categories, said = [], {}, []
    for name in found.categories():
        try:
            category = found.load(name)
            said += check(category)
        except InputError as error:
            categories[name] = f"cannot be used: {error}"
        else:
            usable.append(category)
            categories[name] = _about(category)
    said = (left_out(data, found, usable) if data and usable else []) + said
    return {
        "machine": machine,
        f"data: {found.name} (read as {found.layout})": categories,
        REMARKS: {f"{r.what}:": list(r.files) for r in said},
        "backbones of the studies": _backbones(weights),
    }


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that there is: what is on its disk."""
    folder = folder.resolve()
    return next(p for p in (folder, *folder.parents) if p.exists())


def _about(category: Category) -> str:
    """Counts, form and whether they are the published ones."""
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

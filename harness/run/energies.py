"""What a training leaves of the test images, on disk: energies of every evaluated epoch."""

import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from harness.files import write_whole
from harness.methods.contract import Energies


@dataclass
class History:
    """Hold what training leaves beside the weights.

    Attributes:
        loss: mean training loss of every epoch; empty for what is fitted, not trained.
        holdout: mean loss of the held-out good images at every evaluated epoch.
        energies: epoch → what the method says of the test images.
        bank_bytes: kept of the training images, beside parameters.

    >>> History(loss=[3.0, 2.5]).loss[-1]
    2.5
    """

    loss: list[float] = field(default_factory=list)
    holdout: dict[int, float] = field(default_factory=dict)
    energies: dict[int, Energies] = field(default_factory=dict)
    bank_bytes: int = 0


def save_energies(path: Path, history: History, *, data: str, weights: str) -> None:
    """Write a training's energies, whole or not at all.

    Args:
        path: where.
        history: what it left.
        data: the digest of its images.
        weights: the SHA-256 of its backbone's weights.
    """
    arrays = {
        f"{epoch}/{name}-{i}": tensor.numpy()
        for epoch, energies in history.energies.items()
        for i, tap in enumerate(energies.taps)
        for name, tensor in zip(("energy", "log_det"), tap, strict=True)
    }
    arrays |= {
        f"{epoch}/images": energies.images.numpy()
        for epoch, energies in history.energies.items()
        if energies.images is not None
    }
    about = {
        "data": data,
        "weights": weights,
        "loss": history.loss,
        "holdout": history.holdout,
        "bank_bytes": history.bank_bytes,
    }
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def load_energies(path: Path, *, data: str, weights: str) -> History | None:
    """Read an equal training's energies; None if there are none of the same data and weights.

    A damaged file is as good as none: it is trained again, and written anew.
    """
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            about = json.loads(str(file["about"]))
            if (about["data"], about["weights"]) != (data, weights):
                return None
            epochs = sorted({int(k.split("/")[0]) for k in file.files if "/" in k})
            energies = {e: _of_epoch(file, e) for e in epochs}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    holdout = {int(k): v for k, v in about["holdout"].items()}
    return History(about["loss"], holdout, energies, about.get("bank_bytes", 0))


def _of_epoch(file: Mapping[str, NDArray[np.floating]], epoch: int) -> Energies:
    has = {k.partition("/")[2]: k for k in file if k.startswith(f"{epoch}/")}
    read = {name: torch.from_numpy(file[key]) for name, key in has.items()}
    taps = sum(name.startswith("energy-") for name in has)
    return Energies(
        [(read[f"energy-{i}"], read[f"log_det-{i}"]) for i in range(taps)], read.get("images")
    )

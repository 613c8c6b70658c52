"""The most anonymous memory that scoring takes, beside what the process has before.

``python -m benchmarks.bound 10000 50`` is the case that the bound of 2 GiB is stated for: 10,000
images at 448 pixels, every other one defective in 6 % of its pixels, and 50 evaluated epochs,
written, read and scored. Fewer images take a batch of negatives that is smaller by as much, so
that every step of the whole case is in the scaled one.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.run.evaluate import PackedMasks, evaluate, per_image
from harness.run.history import load_energies, writing_energies
from harness.score import ranking

WHOLE, SIZE, TAPS = 10_000, 448, (112, 56, 28)  # images; pixels of a side; of those of the taps
INTERVAL = 0.002  # seconds between two looks


def measure(images: int, epochs: int) -> int:
    """Bytes at the peak; the images' energies pass the disk."""
    ranking.BATCH = ranking.BATCH * images // WHOLE
    torch.set_num_threads(1)
    ended, peak, before = threading.Event(), [0], _anonymous()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peak[0] = max(peak[0], _anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    with tempfile.TemporaryDirectory() as folder:
        _score(Path(folder) / "energies.npz", images, epochs)
    ended.set()
    watching.join()
    return peak[0] - before


def _score(path: Path, images: int, epochs: int) -> None:
    variant = Variant(image_size=SIZE)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[100:210, 100:210] = True
    masks = PackedMasks(images, SIZE)
    for i in range(0, images, 2):
        masks.put(i, mask)
    labels = (np.arange(images) + 1) % 2
    with writing_energies(path, data="", weights="", arithmetic="") as written:
        for epoch in range(1, epochs + 1):
            written.energies.save(epoch, _energies(images))
            written.loss.append(0.0)
    history = load_energies(path, data="", weights="", arithmetic="")
    assert history is not None
    *_, last = evaluate(variant, history, labels, masks)
    assert len(last.metrics) >= 9, last.metrics
    per_image(variant, history, epochs, labels, masks)


def _energies(images: int) -> Iterator[Energies]:
    for start in range(0, images, 50):
        count = min(50, images - start)
        yield Energies([(torch.randn(count, s, s), torch.zeros(count, s, s)) for s in TAPS])


def _anonymous() -> int:
    """Bytes that this process holds and no file has."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


if __name__ == "__main__":
    began = time.perf_counter()
    print(measure(int(sys.argv[1]), int(sys.argv[2])))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)

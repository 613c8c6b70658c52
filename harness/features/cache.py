"""The feature cache: every image passes every backbone once, for all variants and seeds.

An entry is a folder named by the digest of everything that decides its content: backbone,
weights, taps, size, transform, data and number format. It appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.data.contract import Category, Sample, read_image
from harness.features.backbone import Backbone
from harness.files import is_alive

TRANSFORM = "{resize}-bilinear-1"  # see read_image; raised when its pixels change
BATCH = 16
DEFAULT_LIMIT = 20 * 2**30

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FeatureKey:
    """Everything that decides the content of an entry.

    ``views``: turned copies of every image, by 360°/views, black where nothing was, whose
    features at three sizes are pooled (see :meth:`Backbone.pooled`); 0: the features themselves.
    """

    backbone: str
    weights_sha256: str
    weights: str
    taps: tuple[int, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    dataset: str
    category: str
    data_digest: str
    resize: str = "square"
    views: int = 0

    @property
    def transform(self) -> str:
        """How images are fitted, and the version of the code that does it."""
        return TRANSFORM.format(resize=self.resize)

    @property
    def digest(self) -> str:
        """The entry's folder name."""
        text = json.dumps(self.about(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def about(self) -> dict[str, Any]:
        """The key as it is written beside the entry."""
        fields = asdict(self)
        del fields["resize"]  # in the transform
        if not self.views:
            del fields["views"]  # what entries were before there were any
        return {**fields, "transform": self.transform}


@dataclass(frozen=True)
class Features:
    """An entry, memory-mapped.

    ``train`` and ``test`` hold one array (N, C, H, W) per tap, fine to coarse; of views,
    (N, 3C, V, 1), the first as the image is. Masks and labels
    are no part of it: they are read when a run is scored.
    """

    train: list[NDArray[np.floating]]
    test: list[NDArray[np.floating]]


@dataclass
class FeatureCache:
    """Entries below ``folder``, at most ``limit`` bytes of them, oldest use evicted first.

    Attributes:
        passes: images passed through a backbone by this object.
        reused: images whose features were found in the cache.
    """

    folder: Path
    limit: int = DEFAULT_LIMIT
    passes: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)

    def open(self, key: FeatureKey) -> Features | None:
        """The entry, or None if there is none yet. Marks it as used now."""
        entry = self.folder / key.digest
        if not _meta(entry):
            return None
        os.utime(entry / "meta.json")
        return _open_entry(entry)

    def ensure(
        self,
        key: FeatureKey,
        backbone: Backbone,
        category: Category,
        *,
        device: str = "cpu",
        progress: Callable[[int], object] = lambda images: None,
    ) -> Features:
        """The entry, extracted now if it is missing.

        Args:
            key: what the entry is of.
            backbone: frozen, with its weights.
            category: whose images to pass.
            device: where the backbone runs.
            progress: called with the number of images just done.
        """
        images = len(category.train) + len(category.test)
        if (features := self.open(key)) is not None:
            self.reused += images
            progress(images)
            return features
        backbone = backbone.to(device)
        temporary = self.folder / f"{key.digest}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for split, samples in (("train", category.train), ("test", category.test)):
                _extract(temporary, split, samples, backbone, key, device, progress)
                self.passes += len(samples)
            meta = {"key": key.about(), "images": images}
            (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
            _publish(temporary, self.folder / key.digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _open_entry(self.folder / key.digest)

    def entries(self) -> list[tuple[Path, dict[str, Any], int]]:
        """Folder, content and bytes of every entry, least recently used first."""
        metas = sorted(self.folder.glob("*/meta.json"), key=lambda p: p.stat().st_mtime)
        metas = [m for m in metas if m.parent.suffix != ".tmp"]
        return [(m.parent, _meta(m.parent), _size(m.parent)) for m in metas if _meta(m.parent)]

    def evict(self, keep: Iterable[str] = ()) -> list[Path]:
        """Remove what a killed run left, and the oldest entries until under the limit.

        Args:
            keep: digests of entries in use, which stay whatever their size.
        """
        for leftover in self.folder.glob("*.tmp"):
            pid = leftover.stem.rpartition(".")[2]
            if not pid.isdecimal() or not is_alive(int(pid)):
                shutil.rmtree(leftover, ignore_errors=True)
        kept, removed = set(keep), []
        entries = self.entries()
        total = sum(size for *_, size in entries)
        for folder, _, size in entries:
            if total > self.limit and folder.name not in kept:
                shutil.rmtree(folder)
                removed.append(folder)
                total -= size
        return removed

    def clear(self) -> int:
        """Remove every entry; the bytes freed."""
        freed = sum(size for *_, size in self.entries())
        shutil.rmtree(self.folder, ignore_errors=True)
        return freed


def ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """The function of every item, the next one's in the background while this one's is used."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[_Result]] = []
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 1:
                yield pending.pop(0).result()
        for last in pending:
            yield last.result()


def entry_bytes(shapes: Sequence[tuple[int, int, int]], images: int, dtype: str) -> int:
    """The size of an entry of ``images`` images with these (C, H, W) at the taps."""
    return images * sum(c * h * w for c, h, w in shapes) * np.dtype(dtype).itemsize


def normalise(images: NDArray[np.uint8], backbone: Backbone) -> Tensor:
    """Images (B, S, S, 3) of bytes as the backbone's input (B, 3, S, S)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    return (x - mean) / std


def shapes_of(backbone: Backbone, views: int = 0) -> list[tuple[int, int, int]]:
    """(C, H, W) at each tap of an entry; (3C, V, 1) where it is of turned views."""
    if views:
        return backbone.view_shapes(views)
    return [(s.channels, s.height, s.width) for s in backbone.shapes()]


def _pass(backbone: Backbone, images: NDArray[np.uint8], views: int, device: str) -> list[Tensor]:
    """The taps' features of images (B, S, S, 3), as an entry holds them."""
    if not views:
        return list(backbone(normalise(images, backbone).to(device)))
    copies = [
        backbone.pooled(normalise(_turned(images, k * 360 / views), backbone).to(device))
        for k in range(views)
    ]
    return [torch.stack(tap, dim=2)[..., None] for tap in zip(*copies, strict=True)]


def _turned(images: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Images (B, S, S, 3) turned about their centre, black where nothing was."""
    turn = (Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image) for image in turn])


def _extract(
    folder: Path,
    split: str,
    samples: Sequence[Sample],
    backbone: Backbone,
    key: FeatureKey,
    device: str,
    progress: Callable[[int], object],
) -> None:
    size = backbone.image_size
    shapes = [(len(samples), *shape) for shape in shapes_of(backbone, key.views)]
    outputs = [
        np.lib.format.open_memmap(folder / f"{split}-{i}.npy", "w+", np.dtype(key.dtype), shape)
        for i, shape in enumerate(shapes)
    ]
    with ThreadPoolExecutor(4) as pool, torch.inference_mode():

        def read(start: int) -> tuple[int, NDArray[np.uint8]]:
            batch = samples[start : start + BATCH]
            return start, np.stack(
                list(pool.map(lambda s: read_image(s, size, key.resize), batch))
            )

        for start, images in ahead(read, range(0, len(samples), BATCH)):
            for output, feature in zip(
                outputs, _pass(backbone, images, key.views, device), strict=True
            ):
                output[start : start + len(images)] = feature.contiguous().cpu().numpy()
            progress(len(images))
    for output in outputs:
        output.flush()


def _open_entry(entry: Path) -> Features:
    def arrays(split: str) -> list[NDArray[np.floating]]:
        files = sorted(entry.glob(f"{split}-*.npy"), key=lambda p: int(p.stem.split("-")[1]))
        return [np.load(f, mmap_mode="r") for f in files]

    return Features(train=arrays("train"), test=arrays("test"))


def _meta(entry: Path) -> dict[str, Any]:
    """The entry's description; empty for what is no whole entry."""
    try:
        return dict(json.loads((entry / "meta.json").read_text()))
    except (OSError, ValueError):
        return {}


def _publish(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        if not _meta(entry):  # not another process that was faster, but a damaged entry
            shutil.rmtree(entry)
            temporary.rename(entry)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir())

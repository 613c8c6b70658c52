"""The feature cache: every image passes every backbone once, for all variants and seeds.

An entry is a folder named by the digest of everything that decides its content: backbone,
weights, taps, size, transform, data, number format, and the arithmetic of the device. It appears
whole or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.claims import FEATURES, Claims
from harness.data.contract import Category
from harness.errors import InputError, no_room
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.settings import GIB
from harness.features.checked import DamagedFeatures, Sums, check_files, read_meta, sound
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.features.passing import Split, extract, splits_of
from harness.features.views import Shapes
from harness.files import matching, remove, temporary, write_whole

SIGN = 2**16  # bytes of room in which signs of life and claims can be written


@dataclass(frozen=True)
class Features:
    """Hold an entry, memory-mapped.

    ``train`` and ``test`` hold one array (N, C, H, W) per tap, fine to coarse; of views,
    (N, 3C, V, 1), the first as the image is. ``augmented`` hold (N·K, C, H, W) of the training
    images' K augmented copies, those of one image in a row; nothing where there are none.
    ``turned`` hold those of the test images' turned copies, likewise. Masks and labels are no
    part of it: they are read when a run is scored.
    """

    train: list[NDArray[np.floating]]
    test: list[NDArray[np.floating]]
    augmented: list[NDArray[np.floating]] = field(default_factory=list)
    turned: list[NDArray[np.floating]] = field(default_factory=list)


@dataclass
class FeatureCache:
    """Keep entries below ``folder``, at most ``limit`` bytes of them, oldest use evicted first.

    Several starts may share it: what one uses, which it marks by ``claims``, no other removes.

    Attributes:
        claims: who makes and who uses what; held by a start while it works.
        passes: images passed through a backbone by this object.
        reused: images whose features were found in the cache.

    >>> FeatureCache(Path("nowhere")).entries()
    []
    """

    folder: Path
    limit: int = 20 * GIB
    claims: Claims = field(init=False)
    passes: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Find the claims on its entries."""
        self.claims = Claims(self.folder, FEATURES)

    def open(self, key: FeatureKey) -> Features | None:
        """Open the entry and mark it as used now; None if there is none yet.

        Raises:
            DamagedFeatures: it is not what was written, or by a version that wrote no sums.
        """
        entry = self.folder / key.digest
        if not os.path.lexists(entry):
            return None
        meta, about = read_meta(entry), json.loads(json.dumps(key.about()))
        if meta.get("key") != about or set(meta["sums"]) != set(_arrays(key.spec)):
            raise DamagedFeatures(
                f"{entry / 'meta.json'}: expected the sums of the cached features of "
                f"{key.dataset}/{key.category}; got none; the next start makes them anew"
            )
        check_files(entry, meta["sums"])
        with suppress(OSError):  # a cache that can only be read
            os.utime(entry / "meta.json")
        return _open_entry(entry)

    def ensure(
        self,
        key: FeatureKey,
        extractor: Extractor,
        category: Category,
        *,
        device: str = "cpu",
        progress: Callable[[int], object] = lambda images: None,
    ) -> Features:
        """Open the entry, extracted now if it is missing, or damaged, which is said.

        Args:
            key: what the entry is of.
            extractor: the recipe with its backbone.
            category: whose images to pass.
            device: where the backbone runs, in the key's arithmetic.
            progress: called with the number of images just done.

        Raises:
            RunFailed: the disk has no room for it; nothing of it is left.
            TakenOver: another start makes it, as this one stood still.
        """
        images = key.spec.images(len(category.train), len(category.test))
        if (features := sound(partial(self.open, key))) is not None:
            self.reused += images
            progress(images)
            return features
        self.claims.check(making(key.digest))  # it may be another's by now, and whole
        remove(self.folder / key.digest)  # what is damaged
        assert key.arithmetic.startswith(torch.device(device).type), (key.arithmetic, device)
        extractor.backbone.to(device)
        sums: Sums = {}
        with self._written(key.digest) as written:
            with self.claims.still(making(key.digest)):
                _make_room(self.folder / key.digest, extractor, images)
                for split in splits_of(category, key.spec):
                    sums |= extract(written, split, extractor, device, progress)
                    self.passes += split.passes
                meta = {"key": key.about(), "images": images, "sums": sums}
                write_whole(written / "meta.json", json.dumps(meta))
            self._publish(written, key)
        return _open_entry(self.folder / key.digest)

    def add_split(
        self,
        key: FeatureKey,
        split: Split,
        extractor: Extractor,
        *,
        device: str = "cpu",
        progress: Callable[[int], object] = lambda images: None,
    ) -> Sums:
        """Add features of further images to an entry that is there, whole or not at all a file.

        Whoever adds them marks by a file of its own, written afterwards, that all are there, with
        the sums that this returns.

        Args:
            key: what the entry is of.
            split: the images, and what passes of each.
            extractor: the recipe with its backbone.
            device: where the backbone runs, in the key's arithmetic.
            progress: called with the number of images just done.

        Raises:
            TakenOver: another start makes the entry, as this one stood still.
        """
        extractor.backbone.to(device)
        with self._written(f"{key.digest}.{split.name}") as written:
            with self.claims.still(making(key.digest)):
                sums = extract(written, split, extractor, device, progress)
                self.passes += split.passes
            for name in sums:
                (written / name).rename(self.folder / key.digest / name)
        return sums

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """Give a folder in which something of the cache is written; nothing is left of it."""
        written = temporary(self.folder / name)
        written.mkdir(parents=True)
        try:
            yield written
        finally:
            shutil.rmtree(written, ignore_errors=True)

    def _publish(self, written: Path, key: FeatureKey) -> None:
        """Let an entry be seen, unless another process was faster and its is whole."""
        entry = self.folder / key.digest
        try:
            written.rename(entry)
        except OSError:
            if sound(partial(self.open, key)) is None:
                remove(entry)
                written.rename(entry)

    def entries(self) -> list[tuple[Path, dict[str, Any], int]]:
        """List folder, content and bytes of every sound entry, least recently used first."""
        found = []
        for folder, size in self._folders():
            with suppress(InputError):  # another user's
                found.append((folder, read_meta(folder), size))
        return [entry for entry in found if entry[1]]

    def _folders(self) -> list[tuple[Path, int]]:
        """List every entry, sound or not, with its bytes; the least recently used comes first."""
        found = []
        for folder in matching(self.folder, "*"):
            if folder.suffix == ".tmp" or folder.name == "claims" or not folder.is_dir():
                continue
            with suppress(OSError):  # another start removes it
                meta = folder / "meta.json"
                used = meta.stat().st_mtime if meta.is_file() else 0.0
                found.append((used, folder, _size(folder)))
        return [entry[1:] for entry in sorted(found)]

    def evict(self) -> list[Path]:
        """Remove the oldest entries that nobody uses, until under the limit; list them."""
        removed = []
        entries = self._folders()
        total = sum(size for _, size in entries)
        for folder, size in entries:
            if total > self.limit and self._remove(folder):
                removed.append(folder)
                total -= size
        return removed

    def make_way(self) -> int:
        """Remove the largest entry where not even a sign of life has room, if nobody shows one.

        Else a full disk could not be freed of what fills it. Returns the bytes freed.
        """
        signs = self.claims.signs
        shown = [signs.read(token) for token in signs.tokens()]
        alive = any(holder is None or not holder.is_gone() for holder in shown)
        if alive or shutil.disk_usage(self.folder).free >= SIGN:
            return 0
        folder, size = max(self._folders(), key=lambda entry: entry[1], default=(None, 0))
        if folder is not None:
            remove(folder)
        return size

    def clear(self) -> int:
        """Remove every entry that nobody uses; returns the bytes freed."""
        return sum(size for folder, size in self._folders() if self._remove(folder))

    def _remove(self, entry: Path) -> bool:
        """Remove an entry, unless a start that lives makes something of it or uses it.

        It is put aside first: who begins to use it meanwhile has marked that before it looks, and
        finds it there again or missing. Another start may remove it meanwhile, or have done so:
        tells whether it is gone.
        """
        claim = self.claims.take(making(entry.name))
        if claim is None:
            return not os.path.lexists(entry)
        try:
            if self.claims.users(entry.name):
                return False
            aside = temporary(entry)
            try:
                entry.rename(aside)
            except FileNotFoundError:
                return True
            if self.claims.users(entry.name):
                aside.rename(entry)
                return False
            return remove(aside)
        finally:
            self.claims.release(claim)


def making(entry: str) -> str:
    """Name the work of making an entry, or of removing it."""
    return f"features {entry}"


def entry_bytes(shapes: Shapes, images: int, dtype: str) -> int:
    """Count the bytes of an entry of ``images`` images with these (C, H, W) at the taps.

    Copies count as images; see :meth:`FeatureSpec.images`.
    """
    return images * sum(c * h * w for c, h, w in shapes) * np.dtype(dtype).itemsize


def open_split(entry: Path, split: str) -> list[NDArray[np.floating]]:
    """Open the features of one split in an entry's folder, (N, C, H, W) per tap, memory-mapped."""
    files = sorted(entry.glob(f"{split}-*.npy"), key=lambda p: int(p.stem.split("-")[1]))
    return [np.load(f, mmap_mode="r") for f in files]


def _open_entry(entry: Path) -> Features:
    splits = ("train", "test", "augmented", "turned")
    return Features(**{split: open_split(entry, split) for split in splits})


def _arrays(spec: FeatureSpec) -> Iterator[str]:
    """The files of an entry of this recipe."""
    there = {"train": True, "test": True, "augmented": spec.copies, "turned": spec.turned}
    for split in (name for name, has in there.items() if has):
        yield from (f"{split}-{i}.npy" for i in range(len(spec.taps)))


def _make_room(entry: Path, extractor: Extractor, images: int) -> None:
    """Refuse what the disk has no room for, before a backbone works for nothing."""
    needed = entry_bytes(extractor.shapes, images, extractor.spec.dtype)
    if shutil.disk_usage(entry.parent).free < needed:
        raise no_room(entry, needed)


def _size(folder: Path) -> int:
    return sum(f.lstat().st_size for f in folder.iterdir())

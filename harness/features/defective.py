"""Features of the good images' defective copies, a further split of a cache entry.

They are added to an entry when a run asks for them: ``<kind>-<tap>.npy`` in its folder, and
``<kind>.npz`` with the masks, which is written last and says that all are there. The entry's key
stays what it is.
"""

import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from zipfile import ZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.claims import TakenOver
from harness.data.contract import Category
from harness.data.frame import boxes_of
from harness.data.synthetic import DEFECTIVE_COPIES, VERSION
from harness.errors import see_that_it_is_damage, warn
from harness.features.cache import FeatureCache, open_split
from harness.features.checked import DamagedFeatures, Sums, check_files, read_array, sound
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.features.passing import Split, within
from harness.files import UNREADABLE, write_whole


@dataclass(frozen=True)
class DefectiveCopies:
    """Hold what is cached of the defective copies of N good images, in the images' order.

    Attributes:
        features: (N, C, H, W) per tap, memory-mapped.
        masks: (N, ⌈H W / 8⌉), the bits of where each copy differs from its image.
    """

    features: list[NDArray[np.floating]]
    masks: NDArray[np.uint8]


def open_defective(cache: FeatureCache, key: FeatureKey, kind: str) -> DefectiveCopies | None:
    """Open the copies of an entry; None if there are none of this version.

    Args:
        cache: where.
        key: what the entry is of.
        kind: a value of ``validation``.

    Raises:
        DamagedFeatures: they are not what was written.
        InputError: the system does not let them be read; they may be sound.
        RunFailed: too many files are open.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from types import SimpleNamespace
    >>> with TemporaryDirectory() as folder:
    ...     open_defective(FeatureCache(Path(folder)), SimpleNamespace(digest="0"), "synthetic")
    """
    entry = cache.folder / key.digest
    marker = entry / f"{kind}.npz"
    if not marker.exists():
        return None
    try:
        with ZipFile(io.BytesIO(marker.read_bytes())) as file:
            said = {name: read_array(file, name) for name in file.namelist()}
        version, masks = int(said["version.npy"]), said["masks.npy"]
        sums = msgspec.json.decode(str(said.get("sums.npy", "{}")), type=Sums)
    except UNREADABLE as error:
        see_that_it_is_damage(marker, error)
        raise DamagedFeatures(
            f"{marker}: expected masks of defective copies; it cannot be read ({error}); the next "
            "start makes them anew"
        ) from None
    check_files(entry, sums)
    features = open_split(entry, kind) if sums else []  # an older version's have none
    return DefectiveCopies(features, masks) if features and version == VERSION else None


def ensure_all(
    cache: FeatureCache,
    key: FeatureKey,
    kinds: Iterable[str],
    extractor: Extractor,
    category: Category,
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda images: None,
) -> None:
    """Make an entry and the defective copies that are wanted of it, unless they are there.

    Where another start took that over, as this one stood still, it is left to that one.

    Args:
        cache: where the entry goes; whoever makes it holds the claim on that.
        key: what it is of.
        kinds: values of ``validation`` that make copies.
        extractor: the recipe with its backbone.
        category: whose images pass: photos, or their tiles.
        device: as of :func:`ensure_defective`.
        progress: likewise.
    """
    try:
        cache.ensure(key, extractor, category, device=device, progress=progress)
        for kind in kinds:
            ensure_defective(
                cache, key, kind, extractor, category, device=device, progress=progress
            )
    except TakenOver as error:  # whoever asked for it by `Claims.each` comes to it again
        warn(error)


def all_there(cache: FeatureCache, key: FeatureKey, kinds: Iterable[str]) -> bool:
    """Tell whether an entry is cached, sound, and with the defective copies that are wanted."""
    entry = sound(partial(cache.open, key))
    return entry is not None and all(
        sound(partial(open_defective, cache, key, kind)) is not None for kind in kinds
    )


def ensure_defective(
    cache: FeatureCache,
    key: FeatureKey,
    kind: str,
    extractor: Extractor,
    category: Category,
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda images: None,
) -> None:
    """Draw the copies of a category's good images and pass them, unless they are cached.

    Args:
        cache: where the entry is.
        key: what it is of.
        kind: a value of ``validation`` that makes copies.
        extractor: the recipe with its backbone.
        category: whose training images are copied.
        device: where the backbone runs, in the key's arithmetic.
        progress: called with the number of images just done.
    """
    if sound(partial(open_defective, cache, key, kind)) is not None:
        cache.reused += len(category.train)
        progress(len(category.train))
        return
    draw, spec = DEFECTIVE_COPIES[kind], extractor.spec
    assert draw is not None
    marker = cache.folder / key.digest / f"{kind}.npz"
    marker.unlink(missing_ok=True)  # of an older version, whose features are replaced
    masks = np.zeros((len(category.train), -(-math.prod(spec.shape) // 8)), np.uint8)
    boxes = boxes_of(category.train, spec.image_size, spec.resize)

    def copy(number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        drawn, mask = draw(image)
        if boxes is not None:
            box, inside = boxes[number], mask
            mask = np.zeros(spec.shape, dtype=bool)
            mask[box.rows, box.columns] = inside
        masks[number] = np.packbits(mask)
        return drawn[None]

    split = Split(kind, category.train, 1, within(category.train, spec, copy))
    sums = cache.add_split(key, split, extractor, device=device, progress=progress)
    buffer = io.BytesIO()
    np.savez(buffer, version=VERSION, masks=masks, sums=np.array(json.dumps(sums)))
    write_whole(marker, buffer.getvalue())

"""Images that pass a backbone, split by split, into files of features."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.contract import Category, Sample, read_image
from harness.experiment.feature_spec import FeatureSpec
from harness.features.augmentation import augmented, evenly_turned
from harness.features.extractor import Extractor

BATCH = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Split(NamedTuple):
    """Say which images pass, and what of each.

    Attributes:
        name: before the tap's number in the files' names.
        samples: the images.
        each: copies of an image.
        copies: of an image's number and its pixels (S, S, 3), its copies (each, S, S, 3).

    >>> Split("train", (), 1, as_it_is).each
    1
    """

    name: str
    samples: Sequence[Sample]
    each: int
    copies: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]]


def as_it_is(number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an image (S, S, 3) as its only copy.

    >>> as_it_is(0, np.zeros((2, 2, 3), np.uint8)).shape
    (1, 2, 2, 3)
    """
    return image[None]


def splits_of(category: Category, spec: FeatureSpec) -> Iterator[Split]:
    """Yield the splits that an entry of this recipe has."""
    yield Split("train", category.train, 1, as_it_is)
    yield Split("test", category.test, 1, as_it_is)
    if spec.copies:
        yield Split(
            "augmented", category.train, spec.copies, lambda number, image: augmented(image, spec)
        )
    if spec.turned:
        turns = partial(evenly_turned, turns=spec.test_turns)
        yield Split("turned", category.test, spec.turned, lambda number, image: turns(image))


def extract(
    folder: Path,
    split: Split,
    extractor: Extractor,
    device: str,
    progress: Callable[[int], object],
) -> int:
    """Write the features of a split, (N, C, H, W) per tap, into a folder.

    Args:
        folder: where ``<name>-<tap>.npy`` go.
        split: which images.
        extractor: the recipe with its backbone.
        device: where the backbone runs.
        progress: called with the number of images just done.

    Returns:
        The number of images that passed.
    """
    spec, total = extractor.spec, len(split.samples) * split.each
    outputs = [
        np.lib.format.open_memmap(
            folder / f"{split.name}-{i}.npy", "w+", np.dtype(spec.dtype), (total, *shape)
        )
        for i, shape in enumerate(extractor.shapes)
    ]
    together = max(1, BATCH // split.each)  # an image is read once, for all of its copies

    def copies(number: int) -> NDArray[np.uint8]:
        image = read_image(split.samples[number], spec.image_size, spec.resize)
        return split.copies(number, image)

    with ThreadPoolExecutor(4) as pool, torch.inference_mode():

        def read(start: int) -> tuple[int, NDArray[np.uint8]]:
            numbers = range(start, min(start + together, len(split.samples)))
            return start * split.each, np.concatenate(list(pool.map(copies, numbers)))

        for first, images in ahead(read, range(0, len(split.samples), together)):
            for start in range(0, len(images), BATCH):
                batch = images[start : start + BATCH]
                features = extractor.extract(batch, device)
                for output, feature in zip(outputs, features, strict=True):
                    rows = slice(first + start, first + start + len(batch))
                    output[rows] = feature.contiguous().cpu().numpy()
                progress(len(batch))
    for output in outputs:
        output.flush()
    return total


def ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield the function of every item, the next one's made in the background meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[_Result]] = []
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 1:
                yield pending.pop(0).result()
        for last in pending:
            yield last.result()

"""Images that pass a backbone, split by split, into files of features."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.contract import Category, Sample, read_image
from harness.data.frame import boxes_of, surround
from harness.experiment.feature_spec import FeatureSpec
from harness.features.augmentation import augmented, evenly_turned
from harness.features.checked import ArrayWriter, Sums
from harness.features.extractor import Extractor

BATCH = 16
LANES = 16  # batches at a time, at most: each takes memory
READERS = 4  # of images, where an accelerator passes them

Copies = Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Split(NamedTuple):
    """Say which images pass, and what of each.

    Attributes:
        name: before the tap's number in the files' names.
        samples: the images.
        each: copies of an image.
        copies: of an image's number and its pixels (H, W, 3), its copies (each, H, W, 3).

    >>> Split("train", (), 1, as_it_is).each
    1
    """

    name: str
    samples: Sequence[Sample]
    each: int
    copies: Copies

    @property
    def passes(self) -> int:
        """Count the passes of a backbone, which is the rows of an array."""
        return len(self.samples) * self.each


def as_it_is(number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an image (H, W, 3) as its only copy.

    >>> as_it_is(0, np.zeros((2, 2, 3), np.uint8)).shape
    (1, 2, 2, 3)
    """
    return image[None]


def splits_of(category: Category, spec: FeatureSpec) -> Iterator[Split]:
    """Yield the splits that an entry of this recipe has."""
    yield Split("train", category.train, 1, as_it_is)
    yield Split("test", category.test, 1, as_it_is)
    if spec.copies:
        draw = within(category.train, spec, lambda number, image: augmented(image, spec))
        yield Split("augmented", category.train, spec.copies, draw)
    if spec.turned:
        turn = partial(evenly_turned, turns=spec.test_turns)
        turned = within(category.test, spec, lambda number, image: turn(image))
        yield Split("turned", category.test, spec.turned, turned)


def within(samples: Sequence[Sample], spec: FeatureSpec, copies: Copies) -> Copies:
    """Make copies of what each frame shows of the photo, and surround them as the photo was.

    Args:
        samples: the images.
        spec: how they are fitted.
        copies: of an image's number and its pixels (h, w, 3), its copies (each, h, w, 3).

    >>> within((), FeatureSpec(backbone="resnet18.tv_in1k"), as_it_is) is as_it_is
    True
    """
    boxes = boxes_of(samples, spec.image_size, spec.resize)
    if boxes is None:
        return copies

    def surrounded(number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        box = boxes[number]
        inside = copies(number, image[box.rows, box.columns])
        return np.stack([surround(copy, box, spec.image_size) for copy in inside])

    return surrounded


def extract(
    folder: Path,
    split: Split,
    extractor: Extractor,
    device: str,
    progress: Callable[[int], object],
) -> Sums:
    """Write the features of a split, (N, C, H, W) per tap, into a folder.

    On the processor every batch is one thread's, and there are as many at a time as torch may use:
    the features are the same bits whatever their number, which a container may decide.

    Args:
        folder: where ``<name>-<tap>.npy`` go.
        split: which images.
        extractor: the recipe with its backbone.
        device: where the backbone runs.
        progress: called with the number of images just done.

    Returns:
        The files' sums, by which they are checked when they are opened.

    Raises:
        RunFailed: the disk has no room for them.
    """
    spec, total = extractor.spec, split.passes
    together = max(1, BATCH // split.each)  # an image is read once, for all of its copies

    one_at_a_time = Lock()

    def copies(number: int) -> NDArray[np.uint8]:
        image = read_image(split.samples[number], spec.image_size, spec.resize)
        return split.copies(number, image)

    @torch.inference_mode()
    def passed(start: int) -> list[list[NDArray[Any]]]:
        """Batch after batch, its features at every tap."""
        numbers = range(start, min(start + together, len(split.samples)))
        images = np.concatenate([copies(number) for number in numbers])
        done = []
        for row in range(0, len(images), BATCH):
            with nullcontext() if device == "cpu" else one_at_a_time:
                found = extractor.extract(images[row : row + BATCH], device)
                done.append([f.contiguous().cpu().numpy() for f in found])
        return done

    with ExitStack() as stack:
        outputs = [
            stack.enter_context(
                ArrayWriter(folder / f"{split.name}-{i}.npy", spec.dtype, (total, *shape))
            )
            for i, shape in enumerate(extractor.shapes)
        ]
        lanes, number = stack.enter_context(_lanes(device))
        starts = range(0, len(split.samples), together)
        for features in chain.from_iterable(in_order(lanes, passed, starts, 2 * number)):
            for output, feature in zip(outputs, features, strict=True):
                output.append(feature)
            progress(len(features[0]))
    return {output.file.name: output.sums for output in outputs}


@contextmanager
def _lanes(device: str) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads beside each other, of which torch takes no further ones; and how many they are."""
    threads = torch.get_num_threads()
    lanes = min(threads, LANES) if device == "cpu" else READERS
    try:
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool, lanes
    finally:
        torch.set_num_threads(threads)  # what a lane sets holds for threads to come, too


def in_order(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Yield the function of every item, in their order; so many are made ahead, and no more.

    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(pool, abs, [-3, 2, -1], ahead=2))
    [3, 2, 1]
    """
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for left in pending:
            left.cancel()


def ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield the function of every item, the next one's made in the background meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield from in_order(pool, function, items, ahead=1)

"""What a data set gives: categories, splits, images, labels, masks."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data import images
from harness.data.counts import compare
from harness.data.facts import Facts, MaskFacts, facts_of, mask_facts_of
from harness.data.fitting import squared, squared_mask
from harness.data.folders import printable
from harness.data.motion import Motion
from harness.data.tiles import Window, whole_photo
from harness.errors import InputError
from harness.experiment.feature_spec import Size, shape_of


class ImageSource(Protocol):
    """Give an image that is no file of its own, as a row of an archive; it pickles."""

    @property
    def index(self) -> int:
        """Give its place in the file."""
        ...

    def facts(self) -> Facts:
        """Give content, format and size."""
        ...

    def image(self) -> Image.Image:
        """Give the pixels, RGB."""
        ...


@dataclass(frozen=True)
class Depth:
    """Decide what is white in the grey images of 16 bits among these files: one for all of them.

    Cameras of 10, 12 or 14 bits store their values in 16 as they are, and nothing in the file
    says so. Brightness has to stay comparable between images, so it is decided once for all
    images of a category, and every sample of it carries the decision.

    >>> Depth(()).bits
    16
    """

    paths: tuple[Path, ...]

    @cached_property
    def bits(self) -> int:
        """Find how many of the 16 bits are used; 16 too where no image is such.

        The files are decoded, unless they were before; kept when it goes to another process.
        """
        with ThreadPoolExecutor(4) as pool:
            found = [f.grey for f in pool.map(facts_of, self.paths) if f.grey is not None]
        return images.bits_for(max(found)) if found else 16


@dataclass(frozen=True)
class Sample:
    """Name one image: its file, its defect (``good`` for none) and its masks, if there are any.

    A defect is what any of its masks calls one. ``source`` gives the pixels where ``path`` holds
    many images; ``motion`` moves image and masks; ``window`` is what a tile shows of them;
    ``depth`` decides what is white in 16 bits, without it 65535.

    >>> Sample(Path("0.png")).label, Sample(Path("1.png"), "scratch").label
    (0, 1)
    """

    path: Path
    defect: str = "good"
    masks: tuple[Path, ...] = ()
    source: ImageSource | None = None
    motion: Motion | None = None
    window: Window | None = None
    depth: Depth | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> int:
        """Give 0 for a good image, 1 for a defective one."""
        return int(self.defect != "good")

    def facts(self) -> Facts:
        """Find content, format and size before any motion; an InputError if damaged."""
        facts = self.source.facts() if self.source else facts_of(self.path)
        return facts._replace(size=self.window.size) if self.window else facts

    def mask_facts(self) -> list[MaskFacts]:
        """Find the masks' facts; an InputError if one is damaged."""
        return [mask_facts_of(path) for path in self.masks]

    def image(self) -> Image.Image:
        """Read the image in its own size, RGB."""
        if self.window:
            return whole_photo(replace(self, window=None)).crop(self.window)
        if self.source:
            image = self.source.image()
        else:
            image = images.open_image(self.path)
            bits = self.depth.bits if self.depth and images.is_deep_grey(image) else 16
            image = images.to_rgb(image, self.path, bits)
        return self.motion.move(image, Image.Resampling.BILINEAR) if self.motion else image

    def defective(self) -> NDArray[np.bool_]:
        """Read the masks in their own size, (H, W): what any of them calls a defect."""
        mask = reduce(np.logical_or, (images.read_defects(path) for path in self.masks))
        if self.motion:
            moved = self.motion.move(Image.fromarray(mask), Image.Resampling.NEAREST)
            mask = np.asarray(moved)
        return self.window.of(mask) if self.window else mask


@dataclass(frozen=True)
class Category:
    """Hold one category with its splits, in a fixed order.

    ``layout`` says how it was read, ``disturbance`` how its test images were moved, if they were;
    ``root`` is what the names of images count from. ``drawn`` names the version of a set that is
    drawn on this machine: its digest is of pixels, as PNG's bytes depend on the compressor.

    >>> good, bad = Sample(Path("0.png")), Sample(Path("1.png"), "scratch")
    >>> bolts = Category("mine", "bolt", train=(good,), test=(bad,))
    >>> bolts.counts(), bolts.has_masks
    ({'train': 1, 'test': 1, 'defective': 1, 'masks': 0}, False)
    """

    dataset: str
    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    layout: str = "mvtec_ad"
    disturbance: str = ""
    root: Path = Path()
    drawn: str = ""

    @property
    def names(self) -> list[str]:
        """Name every test image by its path below ``root``; a row of an archive by its number.

        >>> Category("mine", "bolt", (), (Sample(Path("photos/test/7.png")),)).names
        ['photos/test/7.png']
        """
        return [
            self.name_of(s.path) + (f"#{s.source.index}" if s.source else "") for s in self.test
        ]

    def name_of(self, path: Path) -> str:
        """Name a file by its path below ``root``, as text."""
        return printable(Path(os.path.relpath(path, self.root)).as_posix())

    @property
    def contents(self) -> list[str]:
        """Identify every test image by 12 hexadecimal digits of its content, whatever its name."""
        facts = all_facts(self.test)
        return [
            (hashlib.sha256(_pixels(s.path)).digest() if self.drawn else f.sha256).hex()[:12]
            for s, f in zip(self.test, facts, strict=True)
        ]

    @property
    def has_masks(self) -> bool:
        """Tell whether every defective test image has a mask, so that pixel metrics exist."""
        return all(s.masks for s in self.test if s.label)

    def counts(self) -> dict[str, int]:
        """Count images to train on, to test on, defective ones and masks."""
        labels = Counter(s.label for s in self.test)
        masks = sum(bool(s.masks) for s in self.test if s.label)
        return {
            "train": len(self.train),
            "test": len(self.test),
            "defective": labels[1],
            "masks": masks,
        }

    @property
    def digest(self) -> str:
        """Compute 16 hexadecimal digits over every image's content and role, in order.

        And over what counts as white in images of 16 bits, if that is not 65535.
        """
        return self._content[0]

    @property
    def form(self) -> str:
        """Say format and size of the images, as in ``PNG 900x900``.

        Where images of 16 bits use fewer of them: ``PNG 900x900, 12 of 16 bits``.
        """
        return self._content[1]

    @property
    def bits(self) -> int:
        """Find how many bits its grey images of 16 bits use; 16 too where it has none."""
        return self._content[2]

    @cached_property
    def _content(self) -> tuple[str, str, int]:
        """Digest, form and bits together; kept when a category goes to another process."""
        total, forms, bits = hashlib.sha256(self.drawn.encode()), set(), 16
        for split, samples in (("train", self.train), ("test", self.test)):
            for sample, facts in zip(samples, all_facts(samples), strict=True):
                forms.add((facts.format, facts.size))
                if facts.grey is not None and sample.depth:
                    bits = sample.depth.bits
                total.update(f"{split}/{sample.defect}".encode(errors="surrogateescape"))
                total.update(_pixels(sample.path) if self.drawn else facts.sha256)
                for mask in sample.masks:
                    total.update(_pixels(mask) if self.drawn else mask_facts_of(mask).sha256)
                if sample.motion:
                    total.update(str(sample.motion).encode())
        formats = "/".join(sorted({name for name, _ in forms}))
        width, height = next(iter(forms))[1]
        one = len({size for _, size in forms}) == 1
        form = f"{formats} {f'{width}x{height}' if one else 'mixed'}"
        if bits < 16:
            total.update(f"{bits} bits".encode())
            form += f", {bits} of 16 bits"
        return total.hexdigest()[:16], form, bits

    def about(self) -> dict[str, Any]:
        """Say what a record says of the data.

        Digest, counts, ``layout``, ``disturbance``, ``form``, ``official`` (whether the counts
        are the published ones; None where none are known) and ``copy``, the same in words.
        """
        return {
            "digest": self.digest,
            **self.counts(),
            "layout": self.layout,
            "disturbance": self.disturbance,
            "form": self.form,
            **compare(self.dataset, self.name, self.counts(), self.form)._asdict(),
        }

    def limited(self, images: int) -> "Category":
        """Keep the first images of the train split, and of the good and defective test images."""
        good = [s for s in self.test if not s.label][:images]
        bad = [s for s in self.test if s.label][:images]
        return replace(self, train=self.train[:images], test=(*good, *bad))


class Dataset(Protocol):
    """Give categories by name."""

    @property
    def name(self) -> str:
        """Name it as in records: a name that can be a folder's."""
        ...

    @property
    def layout(self) -> str:
        """Say how it is stored, as in ``--dataset``."""
        ...

    @property
    def root(self) -> Path:
        """Find the folder that the names of its images count from."""
        ...

    def categories(self) -> tuple[str, ...]:
        """List the categories' names, sorted."""
        ...

    def load(self, category: str) -> Category:
        """Load one category; an InputError where it does not exist or cannot be used."""
        ...


def make_category(
    dataset: Dataset, name: str, train: Iterable[Sample], test: Iterable[Sample], where: Path
) -> Category:
    """Make a category that can be used.

    Raises:
        InputError: a split is empty, or only some defective images have a mask.
    """
    made = _made(dataset, name, tuple(train), tuple(test))
    for split, samples in (("training", made.train), ("test", made.test)):
        if not samples:
            raise InputError(f"{where}: expected {split} images of {name}; found none; add some")
    bad = [s for s in made.test if s.label]
    bare = [s for s in bad if not s.masks]
    if bare and len(bare) < len(bad):
        raise InputError(
            f"{bare[0].path}: expected a mask, as {len(bad) - len(bare)} other defective "
            f"images of {name} have one; {len(bare)} lack it; add them, or remove all masks"
        )
    return made


def _made(
    dataset: Dataset, name: str, train: tuple[Sample, ...], test: tuple[Sample, ...]
) -> Category:
    """A category whose images of 16 bits are of one white."""
    depth = Depth(tuple(s.path for s in (*train, *test) if not s.source))
    if depth.paths:
        train, test = (tuple(replace(s, depth=depth) for s in part) for part in (train, test))
    return Category(dataset.name, name, train, test, dataset.layout, root=dataset.root)


def read_image(image: Sample | Path, size: Size, resize: str = "square") -> NDArray[np.uint8]:
    """Read an image as RGB, fitted into an input of this size: (H, W, 3).

    Bilinear with anti-aliasing (PIL), as torchvision's Resize on PIL images in the
    reproductions; ``resize`` as in :func:`harness.data.fitting.squared`.
    """
    sample = image if isinstance(image, Sample) else Sample(image)
    return np.asarray(squared(sample.image(), size, resize, Image.Resampling.BILINEAR))


def read_mask(
    mask: Sample | Path | None, size: Size, resize: str = "square", rule: str = "nearest"
) -> NDArray[np.bool_]:
    """Read a mask, fitted as its image: where its defects are, (H, W).

    No mask: no defect anywhere. ``rule`` as in :func:`harness.data.fitting.squared_mask`.
    """
    sample = mask if isinstance(mask, Sample) else Sample(Path(), masks=(mask,) if mask else ())
    if not sample.masks:
        return np.zeros(shape_of(size), dtype=bool)
    return squared_mask(sample.defective(), size, resize, rule)


def _pixels(path: Path) -> bytes:
    """What an image shows, whatever compressed it."""
    return np.asarray(images.open_image(path)).tobytes()


def all_facts(samples: Sequence[Sample]) -> list[Facts]:
    """Find the facts of images, in their order."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(Sample.facts, samples))

"""What a data set gives: categories, splits, images, labels, masks."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data import images
from harness.data.counts import compare
from harness.data.folders import printable
from harness.data.motion import Motion
from harness.errors import InputError
from harness.experiment.feature_spec import Size, shape_of


class Facts(NamedTuple):
    """Describe an image: SHA-256 of its content, format, (width, height) as shown."""

    sha256: bytes
    format: str
    size: tuple[int, int]


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
class Sample:
    """Name one image: its file, its defect (``good`` for none) and its masks, if there are any.

    A defect is what any of its masks calls one. ``source`` gives the pixels where ``path`` holds
    many images; ``motion`` moves image and masks.

    >>> Sample(Path("0.png")).label, Sample(Path("1.png"), "scratch").label
    (0, 1)
    """

    path: Path
    defect: str = "good"
    masks: tuple[Path, ...] = ()
    source: ImageSource | None = None
    motion: Motion | None = None

    @property
    def label(self) -> int:
        """Give 0 for a good image, 1 for a defective one."""
        return int(self.defect != "good")

    def facts(self) -> Facts:
        """Find content, format and size before any motion; an InputError if damaged."""
        return self.source.facts() if self.source else facts_of(self.path)

    def mask_facts(self) -> list[Facts]:
        """Find the masks' facts; an InputError if one is damaged."""
        return [facts_of(path) for path in self.masks]

    def image(self) -> Image.Image:
        """Read the image in its own size, RGB."""
        if self.source:
            image = self.source.image()
        else:
            image = images.to_rgb(images.open_image(self.path), self.path)
        return self.motion.move(image, Image.Resampling.BILINEAR) if self.motion else image

    def defective(self) -> NDArray[np.bool_]:
        """Read the masks in their own size, (H, W): what any of them calls a defect."""
        mask = reduce(np.logical_or, (images.read_defects(path) for path in self.masks))
        if self.motion:
            moved = self.motion.move(Image.fromarray(mask), Image.Resampling.NEAREST)
            mask = np.asarray(moved)
        return mask


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
            printable(Path(os.path.relpath(s.path, self.root)).as_posix())
            + (f"#{s.source.index}" if s.source else "")
            for s in self.test
        ]

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
        masks = sum(bool(s.masks) for s in self.test)
        return {
            "train": len(self.train),
            "test": len(self.test),
            "defective": labels[1],
            "masks": masks,
        }

    @property
    def digest(self) -> str:
        """Compute 16 hexadecimal digits over every image's content and role, in order."""
        return self._content[0]

    @property
    def form(self) -> str:
        """Say format and size of the images, as in ``PNG 900x900``."""
        return self._content[1]

    @cached_property
    def _content(self) -> tuple[str, str]:
        """Digest and form together; kept when a category goes to another process."""
        total, forms = hashlib.sha256(self.drawn.encode()), set()
        for split, samples in (("train", self.train), ("test", self.test)):
            for sample, facts in zip(samples, all_facts(samples), strict=True):
                forms.add(facts[1:])
                total.update(f"{split}/{sample.defect}".encode(errors="surrogateescape"))
                total.update(_pixels(sample.path) if self.drawn else facts.sha256)
                for mask in sample.masks:
                    total.update(_pixels(mask) if self.drawn else facts_of(mask).sha256)
                if sample.motion:
                    total.update(str(sample.motion).encode())
        formats = "/".join(sorted({name for name, _ in forms}))
        width, height = next(iter(forms))[1]
        one = len({size for _, size in forms}) == 1
        return total.hexdigest()[:16], f"{formats} {f'{width}x{height}' if one else 'mixed'}"

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
        InputError: a split is empty, a good image has a mask, or only some defective images
            have one.
    """
    made = Category(
        dataset.name, name, tuple(train), tuple(test), dataset.layout, root=dataset.root
    )
    for split, samples in (("training", made.train), ("test", made.test)):
        if not samples:
            raise InputError(f"{where}: expected {split} images of {name}; found none; add some")
    for sample in (*made.train, *made.test):
        if sample.masks and not sample.label:
            raise InputError(
                f"{sample.masks[0]}: expected no mask for the good image {sample.path.name}; "
                "remove the mask, or label the image with its defect"
            )
    bad = [s for s in made.test if s.label]
    bare = [s for s in bad if not s.masks]
    if bare and len(bare) < len(bad):
        raise InputError(
            f"{bare[0].path}: expected a mask, as {len(bad) - len(bare)} other defective "
            f"images of {name} have one; {len(bare)} lack it; add them, or remove all masks"
        )
    return made


def read_image(image: Sample | Path, size: Size, resize: str = "square") -> NDArray[np.uint8]:
    """Read an image as RGB, fitted into an input of this size: (H, W, 3).

    Bilinear with anti-aliasing (PIL), as torchvision's Resize on PIL images in the
    reproductions; ``resize`` as in :func:`harness.data.images.squared`.
    """
    sample = image if isinstance(image, Sample) else Sample(image)
    return np.asarray(images.squared(sample.image(), size, resize, Image.Resampling.BILINEAR))


def read_mask(
    mask: Sample | Path | None, size: Size, resize: str = "square", rule: str = "nearest"
) -> NDArray[np.bool_]:
    """Read a mask, any non-zero pixel a defect, fitted as its image: (H, W).

    No mask: no defect anywhere. ``rule`` as in :func:`harness.data.images.squared_mask`.
    """
    sample = mask if isinstance(mask, Sample) else Sample(Path(), masks=(mask,) if mask else ())
    if not sample.masks:
        return np.zeros(shape_of(size), dtype=bool)
    return images.squared_mask(sample.defective(), size, resize, rule)


def _pixels(path: Path) -> bytes:
    """What an image shows, whatever compressed it."""
    return np.asarray(images.open_image(path)).tobytes()


def facts_of(path: Path) -> Facts:
    """Find an image file's facts, read once as long as the file does not change."""
    try:
        stat = path.stat()
    except OSError:
        images.read_bytes(path)  # says what is wrong
        raise
    return _read_facts(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=200_000)
def _read_facts(path: Path, changed: int, bytes_: int) -> Facts:
    content = images.read_bytes(path)
    return Facts(hashlib.sha256(content).digest(), *images.header(path, content))


def all_facts(samples: Sequence[Sample]) -> list[Facts]:
    """Find the facts of images, in their order."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(Sample.facts, samples))

"""What a data set gives: categories, splits, images, labels, masks."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
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
    """Name one image: its file, its defect (``good`` for none) and its mask, where there is one.

    ``source`` gives the pixels where ``path`` holds many images; ``motion`` moves image and mask.

    >>> Sample(Path("0.png")).label, Sample(Path("1.png"), "scratch", Path("1_mask.png")).label
    (0, 1)
    """

    path: Path
    defect: str = "good"
    mask: Path | None = None
    source: ImageSource | None = None
    motion: Motion | None = None

    @property
    def label(self) -> int:
        """Give 0 for a good image, 1 for a defective one."""
        return int(self.defect != "good")

    def facts(self) -> Facts:
        """Find content, format and size before any motion; an InputError if damaged."""
        return self.source.facts() if self.source else facts_of(self.path)

    def image(self) -> Image.Image:
        """Read the image in its own size, RGB."""
        if self.source:
            image = self.source.image()
        else:
            image = images.to_rgb(images.open_image(self.path), self.path)
        return self.motion.move(image, Image.Resampling.BILINEAR) if self.motion else image

    def defective(self) -> NDArray[np.bool_]:
        """Read the mask in its own size, (H, W)."""
        assert self.mask is not None
        mask = images.read_defects(self.mask)
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
        facts = _all_facts(self.test)
        return [
            (hashlib.sha256(_pixels(s.path)).digest() if self.drawn else f.sha256).hex()[:12]
            for s, f in zip(self.test, facts, strict=True)
        ]

    @property
    def has_masks(self) -> bool:
        """Tell whether every defective test image has a mask, so that pixel metrics exist."""
        return all(s.mask is not None for s in self.test if s.label)

    def counts(self) -> dict[str, int]:
        """Count images to train on, to test on, defective ones and masks."""
        labels = Counter(s.label for s in self.test)
        masks = sum(s.mask is not None for s in self.test)
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
            for sample, facts in zip(samples, _all_facts(samples), strict=True):
                forms.add(facts[1:])
                total.update(f"{split}/{sample.defect}".encode(errors="surrogateescape"))
                total.update(_pixels(sample.path) if self.drawn else facts.sha256)
                if sample.mask:
                    mask = sample.mask
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

    def check(self, *, leaks: str = "refuse") -> None:
        """Look at every file once, before anything runs.

        Raises:
            InputError: an image or mask is damaged, a mask is not of its image's size, all
                masks are black, or (unless leaks is ``allow``) a training image is among the
                test images.
        """
        train, test = _all_facts(self.train), _all_facts(self.test)
        masked = [(s, f) for s, f in zip(self.test, test, strict=True) if s.mask]
        masks = _all_facts([Sample(s.mask) for s, _ in masked if s.mask])
        for (sample, image), mask in zip(masked, masks, strict=True):
            if mask.size != image.size:
                raise InputError(
                    f"{sample.mask}: expected the size of its image {sample.path.name}, "
                    f"{'x'.join(map(str, image.size))}; got {'x'.join(map(str, mask.size))}; "
                    "draw it on the image as it is shown (EXIF may turn it)"
                )
        still = [replace(s, motion=None) for s, _ in masked]
        with ThreadPoolExecutor(4) as pool:
            drawn = list(pool.map(lambda s: bool(s.defective().any()), still))
        if still and not any(drawn):
            raise InputError(
                f"{still[0].mask}: expected a defect, pixels that are not zero, in some mask of "
                f"{self.name}; all {len(still)} are black; draw them or remove them"
            )
        seen = {f.sha256: s for f, s in zip(train, self.train, strict=True)}
        pairs = [
            (seen[f.sha256], s) for f, s in zip(test, self.test, strict=True) if f.sha256 in seen
        ]
        if pairs and leaks == "refuse":
            one, other = pairs[0]
            raise InputError(
                f"{other.path}: expected a test image that is not trained on; it is the same as "
                f"{one.path} ({len(pairs)} such in {self.name}); remove one of each, or "
                "--set leaks=allow"
            )

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
        if sample.mask and not sample.label:
            raise InputError(
                f"{sample.mask}: expected no mask for the good image {sample.path.name}; "
                "remove the mask, or label the image with its defect"
            )
    bad = [s for s in made.test if s.label]
    bare = [s for s in bad if s.mask is None]
    if bare and len(bare) < len(bad):
        raise InputError(
            f"{bare[0].path}: expected a mask, as {len(bad) - len(bare)} other defective "
            f"images of {name} have one; {len(bare)} lack it; add them, or remove all masks"
        )
    return made


def read_image(image: Sample | Path, size: int, resize: str = "square") -> NDArray[np.uint8]:
    """Read an image as RGB, fitted into a square: (size, size, 3).

    Bilinear with anti-aliasing (PIL), as torchvision's Resize on PIL images in the
    reproductions; ``resize`` as in :func:`harness.data.images.squared`.
    """
    sample = image if isinstance(image, Sample) else Sample(image)
    return np.asarray(images.squared(sample.image(), size, resize, Image.Resampling.BILINEAR))


def read_mask(
    mask: Sample | Path | None, size: int, resize: str = "square", rule: str = "nearest"
) -> NDArray[np.bool_]:
    """Read a mask, any non-zero pixel a defect, fitted as its image: (size, size).

    No mask: no defect anywhere. ``rule`` as in :func:`harness.data.images.squared_mask`.
    """
    sample = mask if isinstance(mask, Sample) else Sample(mask or Path(), mask=mask)
    if sample.mask is None:
        return np.zeros((size, size), dtype=bool)
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


def _all_facts(samples: Sequence[Sample]) -> list[Facts]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(Sample.facts, samples))

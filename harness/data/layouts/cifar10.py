"""CIFAR-10 (Krizhevsky 2009), one class against the rest: FastFlow's protocol (section 4).

A category is one class: trained on its training images, tested on every test image of the ten
classes, of which the other nine are anomalies; image metrics only. Read from the python version
(``data_batch_*``, ``test_batch``), the binary version (``*.bin``), or folders of images
(``train/<class>/*``, ``test/<class>/*``). The python version is pickles: they are read without
running anything that they contain.
"""

import hashlib
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.contract import Category, Sample, make_category
from harness.data.counts import CIFAR10_CLASSES
from harness.data.facts import Facts
from harness.data.folders import entries, existing_folder, images_in, safe_name, subfolders
from harness.data.images import read_bytes
from harness.errors import InputError, unknown

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MOST = 1_000_000  # of anything in a pickle; a batch of 10000 images takes some 60000 steps
FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin")

Bytes = NDArray[np.uint8]


class Cifar10:
    """Read the folder of the python or binary batches, or of class folders.

    Raises:
        InputError: none of them is there, or a class is in one split alone.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("train/cat/0.png", "test/cat/1.png", "train/dog/2.png", "test/dog/3.png"):
    ...         Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(folder, name).touch()
    ...     Cifar10(Path(folder)).load("cat").counts()
    {'train': 1, 'test': 2, 'defective': 1, 'masks': 0}
    """

    layout = "cifar10"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Tell whether there are batches, or folders of at least two of the classes."""
        classes = {p.name for p in subfolders(path / "train")} & set(CIFAR10_CLASSES)
        return len(classes) > 1 or any(find_batches(path).values())

    def __init__(self, root: Path) -> None:
        self.root = existing_folder(root)
        self._batches = find_batches(self.root)
        classes = list(CIFAR10_CLASSES)
        if not any(self._batches.values()):
            train, test = ([p.name for p in subfolders(self.root / s)] for s in ("train", "test"))
            if not train or not test:
                raise InputError(
                    f"--data: expected data_batch_1 … and test_batch, or train/<class>/ and "
                    f"test/<class>/, below {root}; found neither"
                )
            if alone := sorted(set(train) ^ set(test)):
                where = "train" if alone[0] in train else "test"
                raise InputError(
                    f"{self.root / where / alone[0]}: expected every class in train and test; "
                    f"got it in {where} alone; add or remove it"
                )
            classes = train
        for split, files in self._batches.items():
            if not files and any(self._batches.values()):
                raise InputError(f"--data: expected the {split} batches in {root}; found none")
        self._categories = tuple(sorted(classes))
        official = all(c in CIFAR10_CLASSES for c in classes)
        self.name = self.layout if official else safe_name(self.root.resolve().name)

    def categories(self) -> tuple[str, ...]:
        """List the classes, sorted."""
        return self._categories

    def load(self, category: str) -> Category:
        """Load one class against the rest.

        Raises:
            InputError: it does not exist, a batch is damaged, or a split is empty.
        """
        if category not in self._categories:
            raise unknown("category", category, self._categories)
        train, test = (self._split(split, category) for split in ("train", "test"))
        good = (s for s in train if not s.label)
        return make_category(self, category, good, test, self.root)

    def _split(self, split: str, category: str) -> list[Sample]:
        def label(name: str) -> str:
            return "good" if name == category else name

        if files := self._batches[split]:
            return [
                Sample(file, label(CIFAR10_CLASSES[number]), source=Row(file, i))
                for file in files
                for i, number in enumerate(read_batch(file)[1].tolist())
            ]
        names = self._categories if split == "test" else (category,)
        found = {name: images_in(self.root / split / name) for name in names}
        for name, files in found.items():
            if not files:
                raise InputError(f"{self.root / split / name}: expected images; found none")
        return [Sample(p, label(name)) for name, files in found.items() for p in files]


def find_batches(root: Path) -> dict[str, list[Path]]:
    """Find the batch files of each split, python or binary; empty lists where there are none."""
    for folder in (root / name for name in FOLDERS):
        files = [p for p in entries(folder) if p.is_file()] if folder.is_dir() else []
        for suffix in ("", ".bin"):
            kind = [p for p in files if p.suffix == suffix]
            train = [p for p in kind if p.name.startswith("data_batch_")]
            test = [p for p in kind if p.stem == "test_batch"]
            if train or test:
                return {"train": train, "test": test}
    return {"train": [], "test": []}


@dataclass(frozen=True)
class Row:
    """Give one image of a batch file."""

    file: Path
    index: int

    def _bytes(self) -> Bytes:
        row: Bytes = read_batch(self.file)[0][self.index]
        return row

    def facts(self) -> Facts:
        """Describe the row's own content."""
        digest = hashlib.sha256(self._bytes().tobytes()).digest()
        return Facts(digest, "array", (SIDE, SIDE), shown=digest)

    def image(self) -> Image.Image:
        """Give the pixels, stored plane by plane."""
        planes = self._bytes().reshape(3, SIDE, SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


@lru_cache(maxsize=6)  # the whole data set: 180 MB
def read_batch(file: Path) -> tuple[Bytes, Bytes]:
    """Read rows (N, 3072) and class numbers (N,) of a batch file.

    Raises:
        InputError: it is not a batch, or a pickle that asks for more than arrays.
    """
    if file.suffix == ".bin":
        content = np.frombuffer(read_bytes(file), np.uint8)
        if not content.size or content.size % (PIXELS + 1):
            raise InputError(
                f"{file}: expected images of {PIXELS + 1} bytes each; got {content.size} bytes; "
                "it may be truncated: replace it"
            )
        table = content.reshape(-1, PIXELS + 1)
        rows, labels = table[:, 1:], table[:, 0].tolist()
    else:
        rows, labels = _from_pickle(file)
    if wrong := [n for n in labels if not 0 <= n < len(CIFAR10_CLASSES)]:
        raise InputError(f"{file}: expected classes from 0 to 9; got {wrong[0]}; replace it")
    return rows, np.array(labels, np.uint8)


def _from_pickle(file: Path) -> tuple[Bytes, list[int]]:
    try:
        content = read_bytes(file)
        _refuse_bomb(content)
        batch = _Plain(file, content).load()
        rows, labels = batch[b"data"].array(), batch[b"labels"]
        flat = type(labels) is list and all(type(n) is int for n in labels)
        if not flat or rows.shape != (len(labels), PIXELS):
            raise ValueError("images and labels do not match")
        if any(n.bit_length() > 32 for n in labels):
            raise ValueError("labels of more than 32 bits")
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{file}: expected a batch of CIFAR-10's python version; it cannot be read "
            f"({reason}); replace it"
        ) from None
    return rows, labels


def _refuse_bomb(content: bytes) -> None:
    """A ValueError for a small pickle that would take much memory: looked at, not run."""
    for i, (code, argument, _) in enumerate(pickletools.genops(content)):
        if i > MOST or ("PUT" in code.name and int(argument or 0) > MOST):
            raise ValueError(f"more than {MOST} steps or remembered values")


class _Array:
    """What stands for a NumPy array in a pickle: the bytes, and no code of NumPy's."""

    state: tuple[Any, ...]

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> Bytes:
        """Give the bytes in their shape."""
        _, shape, dtype, fortran, content = self.state
        if fortran or dtype.name not in ("u1", "|u1"):
            raise ValueError("the images are not rows of bytes")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _Dtype:
    """What stands for a NumPy number format: its name."""

    def __init__(self, name: str | bytes, *rest: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into old pickles."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Plain(pickle.Unpickler):
    """Reads containers, text, numbers and stand-ins for arrays; imports nothing at all."""

    def __init__(self, file: Path, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"{self.file}: expected numbers and text alone; this pickle asks to run "
                f"{module}.{name}; nothing was run; get the file from its publisher"
            )
        return _ALLOWED[module, name]

"""A detector as one graph for other runtimes: from an image's bytes to its map and score.

The graph is what torch writes down while the code that scores here runs, so that no rule is
written twice. The number of images stays open. Resizing a photo to the input is left to whoever
uses it; what surrounds it with ``resize=pad`` is made in the graph, for photos of one shape: how
far a blur reaches and which rank a quantile has are numbers of the box, which a graph fixes.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import harness
from harness.data.embedded.surfaces import CATEGORIES
from harness.data.frame import Box, interior, surround
from harness.detect.detector import Detector, Picture
from harness.detect.graphs import KINDS, NEEDED, Run
from harness.errors import InputError, RunFailed
from harness.features.extractor import normalised
from harness.features.folding import fold_batch_norms
from harness.features.views import Plain
from harness.files import written_whole
from harness.score.rule import score_together

FARTHEST = 1e-4  # that a graph's values may lie from the detector's, as a share of the largest
TOGETHER = (1, 3)  # images of a batch when they are compared
OTHERWISE = {"precision": "make it by `harness train --float32`"}


class Difference(NamedTuple):
    """Hold how far a graph's values lie from the detector's: shares, as :func:`compare` says.

    >>> print(Difference(1e-6, 2e-6, 4))
    maps differ by 1.0e-06 of the largest, scores by 2.0e-06 (4 images, 1 and 3 together)
    """

    maps: float
    scores: float
    images: int

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"maps differ by {self.maps:.1e} of the largest, scores by {self.scores:.1e} "
            f"({self.images} images, {' and '.join(map(str, TOGETHER))} together)"
        )


class Whole(nn.Module):
    """Take images (B, H, W, 3), bytes, to maps (B, H, W), scores (B,) and verdicts (B,).

    There are no verdicts where the detector has no threshold.

    Args:
        detector: on the CPU; what it holds is copied.
        box: where the backbone's input shows the images, which are of its size, (h, w); None:
            everywhere.

    Raises:
        InputError: it scores in a way that no such graph can hold.
    """

    shown: Tensor  # for each pixel of the backbone's input, which of the image's it shows

    def __init__(self, detector: Detector, box: Box | None = None) -> None:
        super().__init__()
        _check(detector)
        self.variant, self.reference = detector.variant, detector.reference
        for tap in self.reference or ():
            _ = tap.spreads  # made once here, and not by every runtime
        self.recipe = Plain(self.variant.feature_pooling)
        plain = {"memory_format": torch.contiguous_format}
        self.backbone = copy.deepcopy(fold_batch_norms(detector.backbone)).to(**plain)
        self.model = copy.deepcopy(detector.model).eval().to(**plain)
        self.requires_grad_(False)
        self.box = box
        if box is not None:
            pixels = np.arange(box.shape[0] * box.shape[1]).reshape(box.shape)
            shown = surround(pixels, box, self.variant.shape)
            self.register_buffer("shown", torch.from_numpy(shown.flatten()))
        self.limit = None if detector.threshold is None else detector.threshold.value

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score images."""
        if self.box is not None:
            image = image.flatten(1, 2)[:, self.shown].unflatten(1, self.variant.shape)
        x = normalised(image, self.backbone).contiguous()
        energies = self.model.energies(self.recipe.take(self.backbone, x))
        maps, scores = score_together(self.variant, energies, self.reference, self.box)
        assert maps is not None, "a method without maps is refused"
        return (maps, scores) if self.limit is None else (maps, scores, scores > self.limit)


def trace(module: nn.Module, *examples: Tensor) -> ExportedProgram:
    """Write down a module's graph, for any number of images.

    Args:
        module: of tensors whose first dimension is the images'.
        examples: of more than one image.

    >>> trace(nn.ReLU(), torch.zeros(2, 3)).module()(torch.tensor([[-1.0, 0.0, 1.0]]))
    tensor([[0., 0., 1.]])
    """
    batch = Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            module, examples, dynamic_shapes=tuple({0: batch} for _ in examples)
        )


def export(
    detector: Detector,
    kind: str,
    out: Path,
    photos: Sequence[Picture] = (),
    tolerance: float = FARTHEST,
) -> Difference:
    """Write a detector's graph into a file, if it gives what the detector gives.

    Args:
        detector: on the CPU.
        kind: a key of :data:`KINDS`.
        out: the file.
        photos: that both look at; none: noise and photographs of surfaces. With ``resize=pad``
            they say of which shape the graph's photos are.
        tolerance: how far the graph's values may lie from the detector's, as a share.

    Raises:
        InputError: the tolerance is no share, there can be no such graph, or what writes it is not
            installed.
        RunFailed: the graph gives something else; there is no file then.
    """
    if not out.name:
        raise InputError(f"--out: expected a file's name; got {out}")
    if not 0 < tolerance < 1:
        raise InputError(
            f"--tolerance: expected a share between 0 and 1, as in {FARTHEST:g}; got {tolerance:g}"
        )
    write, start = KINDS[kind]
    if kind == "onnx" and (missing := [name for name in NEEDED if not find_spec(name)]):
        raise InputError(
            f"--format onnx: expected {', '.join(NEEDED)}; {', '.join(missing)} missing: "
            "pip install 'fastflow-harness[export]'"
        )
    _check(detector)
    box = _only_box(detector, photos) if detector.variant.resize == "pad" else None
    shape = detector.variant.shape if box is None else box.shape
    blank = torch.zeros(2, *shape, 3, dtype=torch.uint8)
    program = trace(Whole(detector, box), blank)
    images = list(photos) or probe(detector.variant.shape)
    with written_whole(out) as file:
        write(program, file, about(detector) | {"input_size": ",".join(map(str, shape))})
        found = compare(detector, start(file), images)
        if not max(found.maps, found.scores) <= tolerance:  # nan too
            raise RunFailed(
                f"{out}: expected maps and scores within {tolerance:g} of the detector's; {found}"
                "; nothing is written; if that is near enough, set another --tolerance"
            )
    return found


def _only_box(detector: Detector, photos: Sequence[Picture]) -> Box:
    """Where the backbone's input shows the photos, which must be the same for all."""
    found = {_box(detector, detector.read(photo)) for photo in photos}
    if len(found) != 1:
        raise InputError(
            "export: resize=pad: expected --photos of one shape, for which the graph is made; got "
            + (f"photos of {len(found)}" if found else "none")
        )
    return found.pop()


def _box(detector: Detector, image: Image.Image) -> Box:
    return interior(image.size, detector.variant.shape, detector.variant.resize)


def about(detector: Detector) -> dict[str, str]:
    """Say what a graph's file says of itself: text by name, the detector's ``about`` as JSON."""
    limits = {"threshold": detector.threshold, "pixel_threshold": detector.pixel_threshold}
    said = {
        "format": "fastflow-harness graph",
        "harness": harness.__version__,
        "digest": detector.variant.digest,
        "image_size": ",".join(map(str, detector.variant.shape)),  # height, width
        "resize": detector.variant.resize,
        "about": json.dumps(msgspec.to_builtins(detector.about), allow_nan=False),
    }
    return said | {name: repr(t.value) for name, t in limits.items() if t is not None}


def compare(detector: Detector, run: Run, photos: Sequence[Picture]) -> Difference:
    """Compare what a graph gives with what its detector does.

    Maps are measured by the largest value of these photos or of the calibration's, so that a map
    that ends at 0 where an image is strange is not measured by what rounding leaves there; a score
    by itself or by the calibration's median, so that one strange photo hides no other's error.

    Args:
        detector: as the graph was made of.
        run: gives what the graph does, of fitted images (B, H, W, 3).
        photos: of any size; with ``resize=pad`` of one shape.
    """
    levels = detector.levels
    largest, apart = np.abs(levels.values).max(initial=0.0), 0.0
    scores: list[NDArray[Any]] = []  # the detector's and the graph's, (2, B)
    for some in (images for size in TOGETHER for images in _batches(detector, photos, size)):
        box = _box(detector, some[0])
        fitted = np.stack([detector.fit(image)[box.rows, box.columns] for image in some])
        maps, score = detector.score(some)
        assert maps is not None, "a method without maps is refused"
        mine, (theirs, their_score) = maps[:, box.rows, box.columns], run(fitted)[:2]
        largest = max(largest, np.abs(mine).max())
        apart = np.maximum(apart, np.abs(mine - theirs).max())  # nan stays
        scores.append(np.stack([score, their_score]))
    expected, got = np.concatenate(scores, axis=1).astype(np.float64)
    usual = levels.scores if len(levels.scores) else expected
    scale = np.maximum(np.abs(expected), max(np.median(np.abs(usual)), 1e-30))
    worst = float((np.abs(got - expected) / scale).max())
    return Difference(float(apart / max(largest, 1e-30)), worst, len(photos))


def _batches(
    detector: Detector, photos: Sequence[Picture], size: int
) -> Iterator[list[Image.Image]]:
    for start in range(0, len(photos), size):
        yield [detector.read(photo) for photo in photos[start : start + size]]


def probe(shape: tuple[int, int]) -> list[Picture]:
    """Give images that any detector can look at: noise, and the photographs of ``surfaces``.

    Args:
        shape: of the noise, (H, W).
    """
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    grey = (getattr(skimage.data, name)() for name in CATEGORIES)
    return [noise, *(np.repeat(photograph[..., None], 3, axis=2) for photograph in grey)]


def _check(detector: Detector) -> None:
    """Refuse what no such graph can hold."""
    variant, interest = detector.variant, detector.interest
    turned = "0: copies are turned by Pillow"
    what = {
        "method": ("one that scores images apart", variant.method, detector.model.traceable),
        "views": (turned, variant.feature_spec.views, not variant.feature_spec.views),
        "test_turns": (turned, variant.test_turns, not variant.test_turns),
        "precision": ("float32", variant.precision, variant.precision == "float32"),
        "tile_size": ("0: tiles are joined outside", variant.tile_size, not variant.tile_size),
        "region of interest": ("all of a photo", interest, interest is None),
    }
    for field, (expected, value, fits) in what.items():
        if not fits:
            raise InputError(
                f"export: {field}: expected {expected}; got {value}; use the detector by "
                f"`harness predict`, or {OTHERWISE.get(field, 'train another')}"
            )

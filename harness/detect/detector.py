"""A detector: a run's weights with all that an image needs to become a score."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import harness
from harness.data import images as pictures
from harness.data.fitting import squared
from harness.data.frame import Box, Boxes, interior
from harness.data.tiles import Photos
from harness.detect.inference import fused
from harness.detect.parts import DetectorFile, Levels, Look, Prediction
from harness.detect.region import Interest, interest_tensors, read_interest, refuse_whole_scores
from harness.detect.threshold import Threshold, image_threshold, pixel_threshold
from harness.errors import InputError
from harness.experiment.variant import Variant
from harness.features.augmentation import evenly_turned
from harness.features.backbone import Backbone
from harness.features.extractor import Extractor, normalise
from harness.features.folding import fold_batch_norms
from harness.features.views import recipe_of
from harness.methods.contract import Energies, Method
from harness.methods.fastflow import FastFlow
from harness.run.kept import read_tensors, restore, write_tensors
from harness.run.machine import torch_device
from harness.run.model import make_model
from harness.run.watch import precision
from harness.score.reference import Reference, TapReference
from harness.score.rule import score, score_in_chunks

BATCH = 16  # images that pass together

# What tensors and numbers raise that do not fit together: of a file that somebody edited.
UNFIT = (LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)

Pixels = NDArray[np.uint8]
Picture = Path | str | Image.Image | Pixels  # a file, or pixels (H, W, 3)


class Detector:
    """Score images with a run's weights; :meth:`load` reads one from a file.

    Args:
        about: what it is.
        backbone: with its weights.
        model: that has learnt.
        reference: tables of good images, where the score rule reads any.
        levels: of the calibration's images.
        device: as in torch.
        interest: what counts of every image; None: all of it.
    """

    def __init__(
        self,
        about: DetectorFile,
        backbone: Backbone,
        model: Method,
        reference: Reference | None,
        levels: Levels,
        device: str = "cpu",
        interest: Interest | None = None,
    ) -> None:
        self.about, self.backbone, self.model = about, backbone, model
        self.reference, self.levels, self.device = reference, levels, device
        self.variant = Variant.from_fields(about.variant)
        if about.float32:
            self.variant = self.variant.replace(precision="float32")
        self.set_rates()
        self.set_interest(interest)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """Read a detector; nothing in its file is executed.

        Raises:
            InputError: no such file, a damaged or foreign one, or one of a newer version.

        >>> Detector.load("x")
        Traceback (most recent call last):
        harness.run.kept.DamagedTensors: x: expected a file of fastflow-harness detector; ...
        """
        path, device = Path(path), torch_device(device)
        about, tensors = read_tensors(path, DetectorFile)
        parts: dict[str, dict[str, Tensor]] = {
            p: {} for p in ("backbone", "model", "reference", "levels", "interest")
        }
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            try:
                variant = Variant.from_fields(about.variant)
            except InputError as error:  # a field or a value that a later version has
                what = f"a detector of this version, {harness.__version__}"
                raise InputError(f"{path}: expected {what}; {error}") from None
            spec = variant.feature_spec
            backbone = Backbone(spec.backbone, taps=spec.taps, image_size=spec.image_size)
            restore(backbone, parts["backbone"], path)
            given = recipe_of(spec).shapes(backbone.twin())
            if list(given) != about.shapes:  # before a model of any size is made
                raise InputError(f"expected features of {list(given)}; got {about.shapes}")
            model = make_model(variant, tuple(about.shapes), about.seed)
            restore(model, parts["model"], path)
            levels = Levels(*(parts["levels"][name].numpy() for name in Levels._fields))
            model.eval().to(device).to(memory_format=torch.channels_last)
            interest = read_interest(parts["interest"])
            reference = _reference(parts["reference"])
            return cls(about, backbone, model, reference, levels, device, interest)
        except InputError as error:
            said = str(error)
            raise InputError(said if said.startswith(str(path)) else f"{path}: {said}") from None
        except UNFIT as error:
            raise InputError(
                f"{path}: expected a detector; what it holds does not fit together "
                f"({type(error).__name__}: {str(error)[:120]}); make it anew"
            ) from None

    def save(self, path: Path | str) -> None:
        """Write the detector, whole or not at all."""
        tensors = {f"backbone.{k}": v for k, v in self.backbone.state_dict().items()}
        tensors |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, tap in enumerate(self.reference or ()):
            tensors[f"reference.{i}.count"] = torch.tensor(tap.count)
            tensors |= {f"reference.{i}.moments": tap.moments, f"reference.{i}.tables": tap.tables}
        levels = zip(Levels._fields, self.levels, strict=True)
        tensors |= {f"levels.{name}": torch.from_numpy(np.asarray(v)) for name, v in levels}
        kept = {} if self.interest is None else interest_tensors(self.interest)
        tensors |= {f"interest.{k}": v for k, v in kept.items()}
        write_tensors(Path(path), self.about, tensors)

    def set_rates(self, false_alarms: float | None = None, pixels: float | None = None) -> None:
        """Set the thresholds for other rates of false alarms than the detector's own.

        Args:
            false_alarms: the share of good images that may be flagged.
            pixels: the share of a good image's pixels that may be.

        Raises:
            InputError: a rate is not between 0 and 1, or asked of a detector without calibration.
        """
        asked, levels = self.about.calibration, self.levels
        self.threshold: Threshold | None = None
        self.pixel_threshold: Threshold | None = None
        if asked is None:
            if false_alarms is not None or pixels is not None:
                raise InputError("--false-alarms: expected a calibrated detector; got one without")
            return
        rate = asked.false_alarms if false_alarms is None else false_alarms
        self.threshold = image_threshold(levels.scores, rate)
        if len(levels.values):
            rate = asked.pixel_false_alarms if pixels is None else pixels
            self.pixel_threshold = pixel_threshold(
                levels.shares, levels.values, rate, len(levels.scores)
            )

    def set_interest(self, interest: Interest | None) -> None:
        """Set what counts of every image.

        Raises:
            InputError: the image scores are none of a map's, or of turned copies.
        """
        if interest:
            refuse_whole_scores(self.variant)
        self.interest = interest

    def __call__(self, images: Iterable[Picture] | Picture) -> Prediction:
        """Score images: files, Pillow's, or arrays (H, W, 3) of bytes.

        Raises:
            InputError: one cannot be read, or there are none.
        """
        one = isinstance(images, Path | str | Image.Image) or getattr(images, "ndim", 0) == 3
        given: list[Picture] = [images] if one else list(images)  # type: ignore[list-item,arg-type]
        if not given:
            raise InputError("images: expected at least one; got none")
        parts = [
            self.score([self.read(p) for p in given[i : i + BATCH]])
            for i in range(0, len(given), BATCH)
        ]
        maps = [m for m, _ in parts if m is not None]
        scores = np.concatenate([s for _, s in parts])
        return Prediction(scores, np.concatenate(maps) if maps else None, self.judge(scores))

    def judge(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell which scores exceed the threshold; without a calibration, none does."""
        limit = np.inf if self.threshold is None else self.threshold.value
        return np.asarray(scores > limit)

    def read(self, picture: Picture) -> Image.Image:
        """Read an image, RGB; what is white in 16 bits is what it was when the run learnt."""
        if isinstance(picture, Image.Image):
            return pictures.to_rgb(picture, Path("image"), self.about.bits)
        if isinstance(picture, str | Path):
            path = Path(picture)
            image = pictures.open_image(path)
            bits = self.about.bits if pictures.is_deep_grey(image) else 16
            return pictures.to_rgb(image, path, bits)
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise InputError(
                f"images: expected arrays of bytes, (H, W, 3); got {array.dtype} {array.shape}"
            )
        return Image.fromarray(array)

    def score(
        self, images: Sequence[Image.Image]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
        """Give maps (B, H, W), if the method localises, and scores (B,) of RGB images.

        What does not count is nan: beside an image, and outside the region of interest.
        """
        looks = self.look(images)
        scores = np.array([look.score for look in looks], np.float32)
        if looks[0].values is None:
            return None, scores
        frame = [max(look.frame[side] for look in looks) for side in (0, 1)]
        whole = np.full((len(looks), *frame), np.nan, np.float32)
        for placed, (values, box, _, inside, _) in zip(whole, looks, strict=True):
            assert values is not None
            shown = values if inside is None else np.where(inside, values, np.nan)
            placed[box.rows, box.columns] = shown
        return whole, scores

    def look(self, images: Sequence[Image.Image]) -> list[Look]:
        """Look at RGB images; a large one is cut into tiles, BATCH of which pass together.

        Raises:
            InputError: the region of interest is not one of these images'.
        """
        variant = self.variant
        if variant.tile_size:
            return [self._look_at_tiles(image) for image in images]
        boxes = [interior(i.size, variant.image_size, variant.resize) for i in images]
        inside = self._inside(images, boxes, [variant.shape] * len(images))
        fitted = np.stack([self.fit(image) for image in images])
        seen: Boxes = boxes if variant.resize == "pad" else None
        parts = list(
            score_in_chunks(variant, [self.energies(fitted)], self.reference, seen, regions=inside)
        )
        maps = [m for some, _ in parts if some is not None for m in some.float().numpy()]
        scores = torch.cat([s for _, s in parts])
        if turns := variant.test_turns:
            copies = np.concatenate([evenly_turned(image, turns) for image in fitted])
            _, more = score(variant, self.energies(copies), self.reference)
            scores = torch.cat([scores[:, None], more.view(len(scores), -1)], 1).double().mean(1)
        return [
            Look(
                maps[i] if maps else None,
                box,
                variant.shape,
                None if inside is None else inside[i].numpy(),
                float(scores[i].float()),
            )
            for i, box in enumerate(boxes)
        ]

    def _look_at_tiles(self, photo: Image.Image) -> Look:
        spec = self.variant.feature_spec
        whole = Photos([photo.size], spec.tile_size, spec.tile_overlap, spec.image_size)
        spans, (box,), frame = whole.windows(0), whole.boxes, whole.frame
        inside = self._inside([photo], [box], [frame])
        boxes = [interior(w.size, spec.image_size, spec.resize) for w in spans]
        energies = (
            self.energies(np.stack([self.fit(photo.crop(w)) for w in spans[i : i + BATCH]]))
            for i in range(0, len(spans), BATCH)
        )
        seen: Boxes = boxes if spec.resize == "pad" else None
        ((maps, scores),) = score_in_chunks(
            self.variant, energies, self.reference, seen, whole, inside
        )
        values = None if maps is None else maps[0].float().numpy()
        return Look(
            values, box, frame, None if inside is None else inside[0].numpy(), float(scores[0])
        )

    def _inside(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[Box],
        frames: Sequence[tuple[int, int]],
    ) -> list[Tensor] | None:
        """What counts of the images' maps; None: all."""
        if (interest := self.interest) is None:
            return None
        # In a frame of a photo's tiles the photo is everywhere, whatever a tile is fitted by.
        resize = "square" if self.variant.tile_size else self.variant.resize
        found = [
            interest.on_map(image.size, box, frame, resize)
            for image, box, frame in zip(images, boxes, frames, strict=True)
        ]
        return [torch.from_numpy(inside) for inside in found]

    def fit(self, image: Image.Image) -> Pixels:
        """Fit an image into the backbone's input, (H, W, 3)."""
        size, resize = self.variant.image_size, self.variant.resize
        return np.asarray(squared(image, size, resize, Image.Resampling.BILINEAR))

    @torch.inference_mode()
    def energies(self, fitted: Pixels) -> Energies:
        """Give the method's energies of fitted images (B, H, W, 3)."""
        return self._path(fitted).cpu()

    @cached_property
    def _path(self) -> Callable[[Pixels], Energies]:
        """The fastest path that gives the record's scores; in bfloat16 each path rounds anew."""
        variant = self.variant
        if isinstance(self.model, FastFlow) and variant.precision == "float32":
            whole = fused(self.backbone, self.model, pooling=variant.feature_pooling)
            return lambda images: Energies(whole(normalise(images, self.backbone).to(self.device)))
        folded = fold_batch_norms(self.backbone).to(memory_format=torch.channels_last)
        folded.to(self.device)
        return partial(self._plain, Extractor(variant.feature_spec, folded, {}))

    def _plain(self, extractor: Extractor, images: Pixels) -> Energies:
        features = extractor.extract(images, self.device)
        with precision(self.variant, self.device):
            return self.model.energies(features)


def _reference(tensors: dict[str, Tensor]) -> Reference | None:
    """The tables of every tap, if there are any."""
    taps = sorted({int(name.partition(".")[0]) for name in tensors})
    return [
        TapReference(int(tensors[f"{i}.count"]), tensors[f"{i}.moments"], tensors[f"{i}.tables"])
        for i in taps
    ] or None

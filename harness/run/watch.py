"""What a model says of the images, asked while it is trained and afterwards."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.frame import Boxes
from harness.data.tiles import Photos
from harness.errors import RunFailed
from harness.experiment.variant import Variant
from harness.features.defective import DefectiveCopies
from harness.methods.batches import batches
from harness.methods.contract import Arrays, Energies, Method
from harness.run.energies import REFERENCES
from harness.run.history import History
from harness.run.stop import check
from harness.score.reference import IMAGES, make_reference

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
NOBODY = np.arange(0)  # no images
# What helps a training whose numbers run away.
REMEDY = "try a smaller learning_rate, gradient_clip (as 1) or another clamp"

Rows = NDArray[np.int64]


@dataclass
class Watch:
    """Score images at an epoch of a training, and keep what was said of them.

    Attributes:
        variant: its arithmetic and batch size are used.
        device: as in torch.
        history: where it is kept.
        good: features of the good images, (N, C, H, W) per tap.
        test: of the test images.
        turned: of the test images' turned copies, those of one image in a row; or nothing.
        defective: copies of all good images; those of the held-out ones are scored.
        kept: the good images that are trained on.
        held: those that are not.
        good_boxes: where the input shows each good image, if not everywhere.
        test_boxes: where it shows each test image.
        photos: whose tiles the test images are, if they are tiles.

    >>> Watch(Variant(), "cpu", History(), good=(), test=()).held.tolist()
    []
    """

    variant: Variant
    device: str
    history: History
    good: Arrays
    test: Arrays
    turned: Arrays = ()
    defective: DefectiveCopies | None = None
    kept: Rows = field(default_factory=NOBODY.copy)
    held: Rows = field(default_factory=NOBODY.copy)
    good_boxes: Boxes = None
    test_boxes: Boxes = None
    photos: Photos | None = None

    def look(self, model: Method, epoch: int) -> None:
        """Score the test images, and the good ones, those trained on and those held out.

        Raises:
            RunFailed: an energy is not finite.
        """
        model.eval()
        with precision(self.variant, self.device):
            model.fit(self.good, device=self.device)
        energies = self.history.energies
        if not energies:
            energies.save_boxes(self.test_boxes)
            energies.save_photos(self.photos)
        energies.save(epoch, self._finite(model, epoch, self.test))
        if self.turned:
            part = energies.part("turned")
            if not part and self.test_boxes is not None:
                each = len(self.turned[0]) // len(self.test_boxes)
                part.save_boxes([box for box in self.test_boxes for _ in range(each)])
            part.save(epoch, self._finite(model, epoch, self.turned))
        if "tap_scale" in self.variant.choices:
            for name, rows in zip(REFERENCES, (self.kept, self.held), strict=True):
                self._save_reference(model, epoch, name, np.sort(rows[:IMAGES]))
        self.history.bank_bytes = model.bank_bytes
        if len(self.held):
            self.history.holdout[epoch] = loss = self._holdout_loss(model)
            if not math.isfinite(loss):
                raise RunFailed(
                    f"the held-out images' loss became {loss} at epoch {epoch}{self._help}"
                )
        if self.defective is not None:
            self._validate(model, epoch, self.defective)

    def _save_reference(self, model: Method, epoch: int, name: str, rows: Rows) -> None:
        """Keep tables of what the model says of these good images, if there are any."""
        if len(rows):
            said = energies_in_batches(model, self.good, self.variant, self.device, rows)
            boxes = self._boxes_of(rows)
            reference = make_reference(said, boxes, self.variant.image_size)
            self.history.energies.save_reference(epoch, name, reference)

    def _boxes_of(self, rows: Rows) -> Boxes:
        return None if self.good_boxes is None else [self.good_boxes[i] for i in rows.tolist()]

    @torch.inference_mode()
    def _holdout_loss(self, model: Method) -> float:
        size = self.variant.batch_size
        losses = [
            fmean(v.item() for v in losses_of(model, features, self.variant)) * len(rows)
            for rows, features in batches(self.good, self.held, size=size, device=self.device)
        ]
        return sum(losses) / len(self.held)

    def _validate(self, model: Method, epoch: int, defective: DefectiveCopies) -> None:
        """Score the held-out images, then their defective copies."""
        part = self.history.energies.part("validation")
        if not part:
            self.history.energies.write("validation/masks", defective.masks[self.held])
            boxes = self._boxes_of(self.held)
            part.save_boxes(None if boxes is None else [*boxes, *boxes])
        splits = (self.good, defective.features)
        part.save(
            epoch, chain.from_iterable(self._finite(model, epoch, s, self.held) for s in splits)
        )

    def _finite(
        self, model: Method, epoch: int, images: Arrays, rows: Rows | None = None
    ) -> Iterator[Energies]:
        for energies in energies_in_batches(model, images, self.variant, self.device, rows):
            if not energies.isfinite():
                which = "a test" if rows is None else "a validation"
                raise RunFailed(
                    f"{which} image's energy is not finite at epoch {epoch}{self._help}"
                )
            check()
            yield energies

    @property
    def _help(self) -> str:
        """What to do about numbers that are not finite."""
        if not (loss := self.history.loss):  # nothing is trained: the features are to blame
            return "; try feature_dtype=float32"
        return f"; last epoch's loss: {loss[-1]:.6g}; {REMEDY}, or feature_dtype=float32"


def energies_of(model: Method, test: Arrays, variant: Variant, device: str = "cpu") -> Energies:
    """Ask a model that has learnt about images, features (N, C, H, W) per tap, in batches."""
    return Energies.join(list(energies_in_batches(model, test, variant, device)))


@torch.inference_mode()
def energies_in_batches(
    model: Method, test: Arrays, variant: Variant, device: str = "cpu", rows: Rows | None = None
) -> Iterator[Energies]:
    """Yield what :func:`energies_of` joins, batch by batch; of these rows alone, if given."""
    for _, features in batches(test, rows, size=variant.batch_size, device=device):
        with precision(variant, device):
            energies = model.energies(features).cpu()
        yield energies


def losses_of(model: Method, features: list[Tensor], variant: Variant) -> Iterator[Tensor]:
    """Yield a batch's losses in the variant's arithmetic, each when it is asked for."""
    losses = model.losses(features)
    while True:
        with precision(variant, features[0].device.type):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def precision(variant: Variant, device: str) -> torch.autocast:
    """Enter the variant's arithmetic: bfloat16 where it says so, else float32."""
    reduced = PRECISIONS[variant.precision]
    return torch.autocast(device.split(":")[0], reduced, enabled=reduced is not None)

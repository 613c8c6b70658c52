"""A feature recipe with a backbone that can carry it out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.experiment.feature_spec import FeatureSpec
from harness.features.backbone import Backbone, load_backbone
from harness.features.folding import fold_batch_norms
from harness.features.views import Recipe, Shapes, recipe_of


@dataclass(frozen=True)
class Extractor:
    """Carry out a feature recipe: what a method is given of an image, and at what cost.

    Attributes:
        spec: the recipe as a value.
        backbone: the frozen network; its batch norms are folded in where it has weights.
        weights: ``source`` and ``sha256``; empty on the meta device.

    >>> extractor = Extractor.on_meta(FeatureSpec(backbone="resnet18.tv_in1k", taps=(1, 2)))
    >>> extractor.shapes
    ((64, 64, 64), (128, 32, 32))
    """

    spec: FeatureSpec
    backbone: Backbone
    weights: Mapping[str, str]

    @classmethod
    def load(cls, spec: FeatureSpec, folder: Path | None = None) -> Self:
        """Load the backbone with its weights; see :func:`load_backbone`."""
        backbone, weights = load_backbone(
            spec.backbone,
            taps=spec.taps,
            image_size=spec.image_size,
            weights=spec.weights,
            folder=folder,
        )
        folded = fold_batch_norms(backbone).to(memory_format=torch.channels_last)
        return cls(spec, folded, weights)

    @classmethod
    @cache
    def on_meta(cls, spec: FeatureSpec) -> Self:
        """Build the network on the meta device: shapes and counts, no weights or arithmetic."""
        with torch.device("meta"):
            backbone = Backbone(spec.backbone, taps=spec.taps, image_size=spec.image_size)
        return cls(spec, backbone, {})

    @cached_property
    def recipe(self) -> Recipe:
        """Choose how images become features."""
        return recipe_of(self.spec)

    @cached_property
    def shapes(self) -> Shapes:
        """Find (C, H, W) at each tap."""
        return self.recipe.shapes(self.backbone)

    def extract(self, images: NDArray[np.uint8], device: str = "cpu") -> list[Tensor]:
        """Give the features (B, C, H, W) per tap of images (B, H, W, 3), bytes."""
        copies = self.recipe.copies(images)
        taken = [
            self.recipe.take(self.backbone, normalise(copy, self.backbone).to(device))
            for copy in copies
        ]
        return self.recipe.join(taken)

    def look(self, images: Tensor) -> list[Tensor]:
        """Give features of normalised images (B, 3, H, W) at the cost of :meth:`extract`.

        The copies are not turned: turning is work of the processor, and is not counted.
        """
        taken = [self.recipe.take(self.backbone, images) for _ in range(self.recipe.count)]
        return self.recipe.join(taken)


def normalise(images: NDArray[np.uint8], backbone: Backbone) -> Tensor:
    """Make images (B, H, W, 3) of bytes the backbone's input (B, 3, H, W)."""
    return normalised(torch.from_numpy(images), backbone)


def normalised(images: Tensor, backbone: Backbone) -> Tensor:
    """Normalise images (B, H, W, 3) of bytes that are a tensor: (B, 3, H, W)."""
    x = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    return (x - mean) / std

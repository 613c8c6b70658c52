"""What a method is given of an image: the taps' features, or those of turned copies pooled.

A recipe says which copies of an image pass the backbone, what is taken of each, and how the
copies are joined. The cost of a recipe is measured through the same three steps.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.errors import InputError
from harness.experiment.feature_spec import FeatureSpec
from harness.features.backbone import Backbone

SHRUNK = (1, 2, 4)  # DifferNet's sizes of an image: whole, half and quarter sides

Bytes = NDArray[np.uint8]  # images (B, H, W, 3)
Shapes = tuple[tuple[int, int, int], ...]  # (C, H, W) at each tap


class Recipe(Protocol):
    """Say how images become the features of an entry."""

    count: int  # passes of the backbone that an image takes

    def copies(self, images: Bytes) -> Iterator[Bytes]:
        """Yield the copies of images (B, H, W, 3) that pass the backbone."""
        ...

    def take(self, backbone: Backbone, images: Tensor) -> list[Tensor]:
        """Take what is kept of one copy, normalised images (B, 3, H, W), per tap."""
        ...

    def join(self, copies: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Join the copies' parts to features (B, C, H, W) per tap."""
        ...

    def shapes(self, backbone: Backbone) -> Shapes:
        """Find (C, H, W) of the joined features at each tap, without weights."""
        ...


class Plain:
    """Take the features at the taps of the image as it is.

    Args:
        pooling: see :func:`pooled`.

    >>> list(Plain().copies(np.zeros((1, 2, 2, 3), np.uint8)))[0].shape
    (1, 2, 2, 3)
    """

    count = 1

    def __init__(self, pooling: int = 0) -> None:
        self.pooling = pooling

    def copies(self, images: Bytes) -> Iterator[Bytes]:
        """See :class:`Recipe`."""
        yield images

    def take(self, backbone: Backbone, images: Tensor) -> list[Tensor]:
        """See :class:`Recipe`."""
        return [pooled(tap, self.pooling) for tap in backbone(images)]

    def join(self, copies: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """See :class:`Recipe`."""
        return list(copies[0])

    def shapes(self, backbone: Backbone) -> Shapes:
        """See :class:`Recipe`."""
        return tuple((s.channels, s.height, s.width) for s in backbone.shapes())


class TurnedViews:
    """Take the pooled features of turned copies at three sizes (DifferNet, section 3.2).

    Args:
        views: copies, each turned by 360°/views more, black where nothing was.

    >>> TurnedViews(4).join([[torch.zeros(2, 6)]] * 4)[0].shape
    torch.Size([2, 6, 4, 1])
    """

    def __init__(self, views: int) -> None:
        self.count = views

    def copies(self, images: Bytes) -> Iterator[Bytes]:
        """See :class:`Recipe`."""
        for k in range(self.count):
            yield _turned(images, k * 360 / self.count)

    def take(self, backbone: Backbone, images: Tensor) -> list[Tensor]:
        """Average the features of every size over the positions: (B, 3C) per tap."""
        sizes = []
        for divisor in SHRUNK:
            shape = [side // divisor for side in images.shape[2:]]
            small = F.interpolate(images, shape, mode="bilinear", antialias=True)
            features = backbone(images if divisor == 1 else small)
            sizes.append([f.mean((2, 3)) for f in features])
        return [torch.cat(tap, dim=1) for tap in zip(*sizes, strict=True)]

    def join(self, copies: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Stack the copies: (B, 3C, views, 1) per tap."""
        return [torch.stack(tap, dim=2)[..., None] for tap in zip(*copies, strict=True)]

    def shapes(self, backbone: Backbone) -> Shapes:
        """See :class:`Recipe`.

        Raises:
            InputError: the model takes images of one size alone.
        """
        try:
            if backbone.norm:
                raise RuntimeError("a transformer")
            taps = self.take(backbone.twin(), torch.empty(1, 3, *backbone.shape, device="meta"))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                "views: expected a convolutional backbone, which takes images of the whole, half "
                f"and quarter of {' × '.join(map(str, backbone.shape))} pixels; got "
                f"{backbone.name} ({error}); use another backbone or image_size"
            ) from None
        return tuple((f.shape[1], self.count, 1) for f in taps)


def pooled(features: Tensor, window: int) -> Tensor:
    """Average each feature over the positions around it (PatchCore, section 3.1).

    PatchCore, MSFlow and PatchFlow average 3×3 positions; MSFlow keeps every second of them. At
    the border the mean is over the positions that are there, so that no zero enters it.

    Args:
        features: (B, C, H, W).
        window: positions a side, odd; 0: the features as they are.

    >>> pooled(torch.tensor([[[[0.0, 3.0, 6.0]]]]), 3)
    tensor([[[[1.5000, 3.0000, 4.5000]]]])
    """
    if not window:
        return features
    return F.avg_pool2d(features, window, 1, window // 2, count_include_pad=False)


def recipe_of(spec: FeatureSpec) -> Recipe:
    """Choose the recipe: of turned views where the spec has any; else of the image as it is."""
    return TurnedViews(spec.views) if spec.views else Plain(spec.pooling)


def _turned(images: Bytes, degrees: float) -> Bytes:
    """Images turned about their centre, black where nothing was."""
    turn = (Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image) for image in turn])

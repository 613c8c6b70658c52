"""What decides the features of an image, but for the image itself."""

from dataclasses import asdict, dataclass
from typing import Any

Size = int | tuple[int, int]  # the side of a square, or (height, width), pixels


def shape_of(size: Size) -> tuple[int, int]:
    """Give height and width of an input.

    >>> shape_of(256), shape_of((256, 640))
    ((256, 256), (256, 640))
    """
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Name a recipe of features: all variants with the same one share every pass of a backbone.

    Attributes:
        backbone: timm's ``architecture.tag``.
        weights: ``pretrained`` or ``random``.
        image_size: side of the square input, or its height and width, pixels.
        taps: feature stages, or block indices of a transformer.
        dtype: of the cached numbers.
        resize: how an image is fitted into the input.
        views: turned copies of an image whose features at three sizes are pooled (DifferNet);
            0: the features of the image as it is.
        pooling: positions a side of the window over which each feature is averaged; 0: none.
        augmentation: how copies of the training images are drawn; ``none``: there are none.
        augmentation_degrees: the largest angle of a copy.
        augmentation_copies: copies of a training image.
        test_turns: evenly turned copies of a test image, itself among them; 0: itself alone.
        tile_size: side of the tiles that photos are cut into, pixels of the photo; 0: none.
        tile_overlap: share of a tile that its neighbour shows too.

    >>> FeatureSpec(backbone="resnet18.tv_in1k").taps
    (1, 2, 3)
    """

    backbone: str
    weights: str = "pretrained"
    image_size: Size = 256
    taps: tuple[int, ...] = (1, 2, 3)
    dtype: str = "float32"
    resize: str = "square"
    views: int = 0
    pooling: int = 0
    augmentation: str = "none"
    augmentation_degrees: float = 180.0
    augmentation_copies: int = 8
    test_turns: int = 0
    tile_size: int = 0
    tile_overlap: float = 0.25

    @property
    def shape(self) -> tuple[int, int]:
        """Give height and width of the input, pixels."""
        return shape_of(self.image_size)

    @property
    def copies(self) -> int:
        """Count the copies of a training image that are cached beside it."""
        return 0 if self.augmentation == "none" else self.augmentation_copies

    @property
    def turned(self) -> int:
        """Count the turned copies of a test image that are cached beside it."""
        return max(0, self.test_turns - 1)

    def images(self, train: int, test: int) -> int:
        """Count the images that pass the backbone, copies among them.

        >>> FeatureSpec(backbone="resnet18.tv_in1k", augmentation="flips").images(10, 5)
        95
        """
        return train * (1 + self.copies) + test * (1 + self.turned)

    def about(self) -> dict[str, Any]:
        """List what decides the features, without later additions that are at rest.

        What is left out was not there when the first entries were made, so those stay valid.

        >>> "pooling" in FeatureSpec(backbone="resnet18.tv_in1k").about()
        False
        """
        about = asdict(self)
        for name in ("views", "pooling", "test_turns"):
            if not about[name]:
                del about[name]
        if not self.tile_size:
            del about["tile_size"], about["tile_overlap"]
        if not self.copies:
            for name in ("augmentation", "augmentation_degrees", "augmentation_copies"):
                del about[name]
        return about

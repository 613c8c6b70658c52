"""What decides the features of an image, but for the image itself."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Name a recipe of features: all variants with the same one share every pass of a backbone.

    Attributes:
        backbone: timm's ``architecture.tag``.
        weights: ``pretrained`` or ``random``.
        image_size: side of the square input, pixels.
        taps: feature stages, or block indices of a transformer.
        dtype: of the cached numbers.
        resize: how an image becomes a square.
        views: turned copies of an image whose features at three sizes are pooled (DifferNet);
            0: the features of the image as it is.

    >>> FeatureSpec(backbone="resnet18.tv_in1k").taps
    (1, 2, 3)
    """

    backbone: str
    weights: str = "pretrained"
    image_size: int = 256
    taps: tuple[int, ...] = (1, 2, 3)
    dtype: str = "float32"
    resize: str = "square"
    views: int = 0

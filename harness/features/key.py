"""The name of an entry of cached features: everything that decides its content."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from harness.data.contract import Category
from harness.experiment.feature_spec import FeatureSpec
from harness.features.extractor import Extractor

TRANSFORM = "{resize}-bilinear-1"  # see read_image; raised when its pixels change
ARITHMETIC = "cpu float32"  # where nothing says another


@dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """Name everything that decides the content of an entry.

    Attributes:
        spec: the feature recipe.
        weights_sha256: of the backbone's weights; empty for random ones.
        mean: subtracted from the images' channels.
        std: what they are divided by.
        dataset: the images' data set.
        category: their category.
        data_digest: of their content.
        arithmetic: of the backbone, as :func:`harness.run.machine.arithmetic` names it.

    >>> FeatureKey(
    ...     spec=FeatureSpec(backbone="resnet18.tv_in1k"),
    ...     weights_sha256="",
    ...     mean=(0.5,),
    ...     std=(0.5,),
    ...     dataset="surfaces",
    ...     category="grass",
    ...     data_digest="",
    ... ).transform
    'square-bilinear-1'
    """

    spec: FeatureSpec
    weights_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    category: str
    data_digest: str
    arithmetic: str = ARITHMETIC

    @classmethod
    def of(cls, extractor: Extractor, category: Category, arithmetic: str = ARITHMETIC) -> Self:
        """Name the entry of a category's images, computed in this arithmetic."""
        return cls(
            spec=extractor.spec,
            weights_sha256=extractor.weights["sha256"],
            mean=extractor.backbone.mean,
            std=extractor.backbone.std,
            dataset=category.dataset,
            category=category.name,
            data_digest=category.digest,
            arithmetic=arithmetic,
        )

    @property
    def transform(self) -> str:
        """Say how images are fitted, and which version of the code does it."""
        return TRANSFORM.format(resize=self.spec.resize)

    @property
    def digest(self) -> str:
        """Name the entry's folder."""
        text = json.dumps(self.about(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def about(self) -> dict[str, Any]:
        """Give the key as it is written beside the entry."""
        fields, spec = asdict(self), self.spec.about()
        del fields["spec"], spec["resize"]  # the latter is in the transform
        return {**spec, **fields, "transform": self.transform}

"""The frozen backbone: images in, features out; what it is, is read from the timm model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import InputError, unknown
from harness.experiment.feature_spec import Size, shape_of
from harness.experiment.values import show
from harness.features.weights import PACKAGES, WeightsFile, check_state_dict, find_weights


@dataclass(frozen=True)
class FeatureShape:
    """Describe what a tap gives: channels, size in positions, and pixels per position.

    >>> FeatureShape(64, 32, 32, stride=4).stride
    4
    """

    channels: int
    height: int
    width: int
    stride: int


class Backbone(nn.Module):
    """Return the features at the taps of a frozen timm model.

    CNN taps count timm's feature stages (1, 2, 3 are strides 4, 8 and 16); transformer taps are
    0-based block indices, taken after the model's own final norm, as in the reproductions.

    Args:
        name: ``architecture.tag``.
        taps: increasing indices.
        image_size: side of the square input, or its height and width, pixels.

    Raises:
        InputError: no such architecture, tap or size.

    >>> with torch.device("meta"):
    ...     backbone = Backbone("resnet18.tv_in1k", taps=(1, 2), image_size=64)
    >>> [(s.channels, s.height, s.stride) for s in backbone.shapes()]
    [(64, 16, 4), (128, 8, 8)]
    """

    def __init__(self, name: str, *, taps: Sequence[int], image_size: Size) -> None:
        super().__init__()
        self.name, self.shape, self.taps = name, shape_of(image_size), tuple(taps)
        self.model = _create(name)
        self.keys = tuple(self.model.state_dict())
        config = self.model.pretrained_cfg
        fixed = config["input_size"][-1]
        if config.get("fixed_input_size") and self.shape != shape_of(fixed):
            raise InputError(f"image_size: {name} expects {fixed}; got {show(image_size)}")
        # Transformers keep one width throughout and end in a norm that the taps need.
        self.norm = hasattr(self.model, "patch_embed") and hasattr(self.model, "norm")
        try:
            prune = self.model.prune_intermediate_layers
            self.indices = list(prune(list(self.taps), prune_norm=not self.norm))
        except (AssertionError, IndexError) as error:
            raise InputError(f"taps: {name} has no tap {max(self.taps)} ({error})") from None
        package = PACKAGES.get(name)
        self.mean = tuple(package.mean if package else config["mean"])
        self.std = tuple(package.std if package else config["std"])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":  # noqa: FBT001, FBT002 -- nn.Module's own
        """Stay in eval mode, whatever is asked: its batch statistics are frozen."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Give features (B, C, H, W) of normalised images (B, 3, H, W), fine to coarse."""
        features = self.model.forward_intermediates(
            images, indices=self.indices, norm=self.norm, stop_early=True,
            output_fmt="NCHW", intermediates_only=True,
        )  # fmt: skip
        return list(features)

    def shapes(self) -> list[FeatureShape]:
        """Find the shape at each tap, by the model itself without weights or arithmetic."""
        features = self.twin()(torch.empty(1, 3, *self.shape, device="meta"))
        shapes = [f.shape[1:] for f in features]
        return [FeatureShape(c, h, w, stride=round(self.shape[0] / h)) for c, h, w in shapes]

    def twin(self) -> "Backbone":
        """Make the same network on the meta device: shapes and counts, no weights."""
        with torch.device("meta"):
            return Backbone(self.name, taps=self.taps, image_size=self.shape)

    def load(self, file: WeightsFile) -> None:
        """Load the weights; a partial or mismatching file is an InputError that lists the keys."""
        needed = self.model.state_dict()
        found = file.state_dict()
        state = check_state_dict(found, needed=needed, known=self.keys, path=file.path)
        self.model.load_state_dict(state, strict=True)


def load_backbone(
    name: str,
    *,
    taps: Sequence[int],
    image_size: Size,
    weights: str = "pretrained",
    folder: Path | None = None,
) -> tuple[Backbone, dict[str, str]]:
    """Load a backbone with its weights, and say where they came from.

    Args:
        name: ``architecture.tag``.
        taps: see :class:`Backbone`.
        image_size: side of the square input, or its height and width, pixels.
        weights: ``pretrained`` or ``random`` (a fixed seed; said so in the result).
        folder: a local folder of weights files.

    Returns:
        The backbone, and ``{"source", "sha256"}``; the source of random weights is "random".
    """
    if weights == "random":
        with _seeded(0):
            backbone = Backbone(name, taps=taps, image_size=image_size)
        return backbone, {"source": "random", "sha256": ""}
    backbone = Backbone(name, taps=taps, image_size=image_size)
    file = find_weights(name, folder)
    backbone.load(file)
    return backbone, {"source": file.source, "sha256": file.sha256}


def _create(name: str) -> Any:  # noqa: ANN401 -- timm's models share no typed base
    import timm  # takes as long as torch; workers import this module and build no backbone

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise unknown("backbone", architecture, timm.list_models())
    # The tag picks timm's preprocessing; a tag of a package or of one's own file is not timm's.
    known = name in timm.list_pretrained(f"{architecture}.*")
    model = timm.create_model(name if known else architecture, pretrained=False)
    if not hasattr(model, "prune_intermediate_layers"):
        raise InputError(f"backbone: {architecture} does not give timm's intermediate features")
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's default generator seeded inside, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

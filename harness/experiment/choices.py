"""What there is to choose of each method, and what its own paper chose.

A method's fields are those of its own and those that every method has (backbone, images, masks,
seeds). Its recipe are its paper's values where they are not the variant's defaults; where a
paper is silent, its authors' code is followed and named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

TRAINED = frozenset({
    "optimiser", "learning_rate", "weight_decay", "schedule", "warmup_epochs", "epochs",
    "batch_size", "drop_last", "gradient_clip", "precision", "holdout", "eval_every", "patience",
    "epoch_selection",
})  # fmt: skip
MAP = frozenset({"smoothing", "align_corners", "image_score", "top_k"})
TAPS = frozenset({"score_map", "scale_aggregation"})  # of methods with a map for every tap


@dataclass(frozen=True)
class Choices:
    """A method as a value.

    Attributes:
        name: as it is printed, and as the ledger of published figures spells it.
        fields: the variant's fields that only some methods have, and this one does.
        recipe: field → its paper's value.
    """

    name: str
    fields: frozenset[str]
    recipe: Mapping[str, Any]

    @property
    def trained(self) -> bool:
        """By gradient, over epochs; else fitted in one pass."""
        return "epochs" in self.fields

    @property
    def localises(self) -> bool:
        """Gives an anomaly map, not an image score alone."""
        return "smoothing" in self.fields


def _choices(name: str, fields: frozenset[str], **recipe: Any) -> Choices:  # noqa: ANN401
    return Choices(name, fields, MappingProxyType(recipe))


METHODS: dict[str, Choices] = {
    "fastflow": _choices(
        "FastFlow",
        TRAINED | MAP | TAPS | {
            "norm", "flow_steps", "kernels", "hidden_ratio", "hidden_channels", "coupling",
            "permutation", "actnorm", "clamp", "clamp_value", "subnet_scale", "init_gain", "loss",
        },
    ),
    # Cohen & Hoshen 2020, arXiv 2005.02357: K = 50 neighbours, kappa = 1, sigma = 4.
    "spade": _choices(
        "SPADE", MAP | {"neighbours"},
        epochs=1, neighbours=50, score_map="nll", smoothing=4.0, image_score="own",
    ),
    # Defard et al. 2020, arXiv 2011.08785: 100 channels of a ResNet18, 550 of a Wide-ResNet50.
    "padim": _choices(
        "PaDiM", MAP | {"channels"}, epochs=1, score_map="nll", smoothing=4.0,
    ),
    # Roth et al. 2022, arXiv 2106.08265; the share of its middle row, 10 %.
    "patchcore": _choices(
        "PatchCore", MAP | {"coreset", "neighbours"},
        epochs=1, score_map="nll", smoothing=4.0, image_score="own",
    ),
    # Gudovskiy et al. 2022, arXiv 2107.12571; training and map are those of the authors' code:
    # 25 epochs of 8 passes each, warm-up over the first two. There the last batch is dropped,
    # the warm-up starts at a tenth of the rate, and the cosine ends at a thousandth.
    "cflow": _choices(
        "CFLOW-AD", TRAINED | MAP | TAPS | {"flow_steps", "clamp_value"},
        epochs=200, learning_rate=2e-4, weight_decay=0.0, schedule="cosine", warmup_epochs=16,
        clamp_value=1.9, score_map="likelihood", scale_aggregation="sum", align_corners=True,
    ),
    # Rudolph et al. 2021, arXiv 2008.12577; the training is that of the authors' code: 24
    # epochs of 8 passes each, 24 images in 4 turns to a batch; 64 turns of a test image. Adam's
    # betas (0.8, 0.8) and epsilon (1e-4) there are not taken over.
    "differnet": _choices(
        "DifferNet", TRAINED | {"flow_steps", "clamp_value", "hidden_channels", "views"},
        epochs=192, batch_size=24, learning_rate=2e-4, clamp_value=3.0, hidden_channels=2048,
        views=64, score_map="nll", image_score="own",
    ),
}  # fmt: skip
# Fields that only some methods have.
PARTIAL = frozenset[str]().union(*(m.fields for m in METHODS.values()))
OWN_SCORE = frozenset(k for k, m in METHODS.items() if m.recipe.get("image_score") == "own")


def method_of(name: str) -> str | None:
    """The method that a ledger's row is about; None where it is none of ours."""
    return next((key for key, m in METHODS.items() if name == m.name), None)

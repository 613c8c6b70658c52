"""A variant: every choice the FastFlow paper leaves open, as one frozen value.

The digest of the fields that differ from their defaults names the variant, so adding a field
keeps every old record valid. Changing a default does not: it changes what old digests mean. The
values of a named choice are the keys of the table that implements it; a test holds the two
together.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_type_hints

from harness.errors import InputError, unknown
from harness.experiment.choices import METHODS, Kind
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.values import Rule, checked, parsed, show


def _at_least(low: float) -> Rule:
    return Rule(f"a number of at least {low}", lambda v: low <= v < float("inf"))


def _above(low: float) -> Rule:
    return Rule(f"a number above {low}", lambda v: low < v < float("inf"))


Count = Annotated[int, _at_least(0)]
Positive = Annotated[int, _at_least(1)]
Amount = Annotated[float, _at_least(0)]
Factor = Annotated[float, _above(0)]
Share = Annotated[float, Rule("a share in (0, 1]", lambda v: 0 < v <= 1)]
Part = Annotated[float, Rule("a share in [0, 1)", lambda v: 0 <= v < 1)]
Width = Annotated[
    int | None, Rule("a whole number of at least 1, or none", lambda v: v is None or v >= 1)
]
MethodName = Annotated[str, Rule("one of " + ", ".join(METHODS), lambda v: v in METHODS)]
Tagged = Annotated[
    str,
    Rule(
        "a timm model with its weights tag, as in resnet18.tv_in1k",
        lambda v: v.count(".") == 1 and all(v.split(".")) and v.replace(".", "_").isidentifier(),
    ),
]
Taps = Annotated[
    tuple[int, ...],
    Rule(
        "strictly increasing indices of at least 0, as in (1, 2, 3)",
        lambda v: bool(v) and v[0] >= 0 and all(a < b for a, b in pairwise(v)),
    ),
]
Kernels = Annotated[
    tuple[int, ...],
    Rule("odd sizes, as in (3, 1)", lambda v: bool(v) and all(k > 0 and k % 2 for k in v)),
]


def _field(
    default: Any,  # noqa: ANN401
    says: str,
    paper: str = "",
    *,
    kind: Kind = "every",
    stage: str = "training",
) -> Any:  # noqa: ANN401
    """Declare a choice; ``stage`` says what is done anew when it changes."""
    about = {"says": says, "paper": paper, "kind": kind, "stage": stage}
    return field(default=default, metadata=about)


_feature = partial(_field, stage="features")
_flow = partial(_field, kind="flow")
_own = partial(_field, kind="own")
_trained = partial(_field, kind="trained")
_scoring = partial(_field, stage="scoring")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Describe one way to build, train and score a method.

    The defaults follow the paper's ResNet18.

    A field that a method does not have stays at its default, so that equal work has one digest;
    see :mod:`harness.experiment.choices`. Where the paper is silent (``norm``, ``permutation``,
    ``actnorm``, ``clamp``, ``loss``, the score rule), the default is the reproductions' habit,
    and a study varies it.

    >>> Variant(coupling="both")
    Traceback (most recent call last):
    harness.errors.InputError: coupling: expected one of one-sided, two-sided; got 'both'
    """

    method: MethodName = _field("fastflow", "the method", "FastFlow")
    # The frozen backbone, and what is cached of it.
    backbone: Tagged = _feature(
        "resnet18.tv_in1k", "a timm model with its tag", "four backbones; no ResNet tag"
    )
    weights: Literal["pretrained", "random"] = _feature(
        "pretrained", "the backbone's weights", "pretrained"
    )
    image_size: Annotated[int, _at_least(32)] = _feature(
        256, "side of the square input, pixels", "256; 384 (DeiT); 448 (CaiT)"
    )
    taps: Taps = _feature(
        (1, 2, 3),
        "feature stages of a CNN, or block indices from 0 of a transformer",
        "stages 1–3; block 7 (DeiT), 40 (CaiT), without saying where it counts from",
    )
    feature_dtype: Literal["float32", "float16"] = _feature(
        "float32", "number format of the cached features"
    )
    resize: Literal["square", "crop"] = _feature(
        "square",
        "how an image becomes a square: stretched; or its short side to 256/224 of the size, "
        "then the centre",
    )
    views: Count = _own(
        0, "turned copies of an image, pooled at three sizes; 0: as it is", stage="features"
    )
    # The flow on each tap (paper section 3.2, Fig. 2, Eq. 3).
    norm: Literal["none", "layer", "layer-affine", "batch"] = _flow(
        "layer", "norm of the features before the flow", "nothing"
    )
    flow_steps: Positive = _flow(8, "flow steps of each flow", "8 (ResNets); 20 (transformers)")
    kernels: Kernels = _flow(
        (3,), "the subnets' kernels, cycled over the steps", "3 for ResNet18, else 3,1"
    )
    hidden_ratio: Factor = _flow(
        1.0, "hidden channels of a subnet as a share of its input's", "disputed"
    )
    hidden_channels: Width = _flow(None, "hidden channels; in place of the ratio", "disputed")
    coupling: Literal["one-sided", "two-sided"] = _flow(
        "one-sided",
        "halves that a step transforms; nothing else changes with it",
        "both readings exist (Eq. 3, Fig. 2)",
    )
    permutation: Literal["none", "random", "reverse"] = _flow(
        "random", "of the channels", "“channel permute”"
    )
    actnorm: Literal["none", "affine", "data"] = _flow(
        "affine",
        "per-channel affine: learned after the coupling, or before it from a batch",
        "Fig. 2 draws an ActNorm; no initialisation",
    )
    clamp: Literal["none", "tanh", "tanh-unit", "atan", "atan-unit", "sigmoid"] = _flow(
        "tanh", "how the log-scale is bounded", "plain exp"
    )
    clamp_value: Factor = _flow(2.0, "the bound of the log-scale")
    subnet_scale: Factor = _flow(0.1, "factor on a subnet's output")
    init_gain: Amount = _flow(0.0, "Xavier's gain of the subnets; 0: torch's own weights")
    # The compared methods' own.
    coreset: Share = _own(0.1, "share of the patches in the bank")
    neighbours: Positive = _own(9, "nearest neighbours")
    channels: Positive = _own(100, "channels drawn at random")
    # Training.
    loss: Literal["sum", "mean"] = _flow("sum", "over a tap's dimensions", "Eq. 1; no reduction")
    optimiser: Literal["adam", "adamw"] = _trained("adam", "the optimiser", "Adam")
    learning_rate: Factor = _trained(1e-3, "learning rate", "1e-3")
    weight_decay: Amount = _trained(1e-5, "weight decay", "1e-5")
    schedule: Literal["constant", "cosine"] = _trained("constant", "of the learning rate")
    warmup_epochs: Count = _trained(0, "epochs of linear warm-up")
    epochs: Positive = _trained(500, "passes over the training images", "500")
    min_steps: Count = _trained(
        0, "optimiser steps at the least: with few images, epochs go up to reach them"
    )
    batch_size: Positive = _trained(32, "images of an optimiser step", "32")
    drop_last: bool = _trained(default=False, says="leave out a batch that is not full")
    gradient_clip: Amount = _trained(0.0, "largest norm of the gradient; 0: any")
    precision: Literal["float32", "bfloat16"] = _trained(
        "float32", "arithmetic of the convolutions"
    )
    holdout: Part = _trained(0.0, "share of the good images held out")
    eval_every: Count = _trained(0, "epochs between evaluations; 0: the last alone")
    patience: Count = _trained(0, "evaluations without a better epoch to stop after; 0: never")
    smoke: bool = _field(default=False, says="a smoke run, never a result")
    # Scoring: needs no new training.
    mask_resize: Literal["nearest", "covered"] = _scoring(
        "nearest",
        "how masks are resized; covered: only pixels that the defect covers whole",
        "nothing",
    )
    leaks: Literal["refuse", "allow"] = _scoring("refuse", "the same file in training and test")
    score_map: Literal["exp-mean", "nll", "nll-log-det", "likelihood"] = _scoring(
        "exp-mean", "which map a tap gives", "“likelihood map”", kind="taps"
    )
    scale_aggregation: Literal["mean", "sum", "max"] = _scoring(
        "mean", "how the taps' maps are joined", "upsampled and averaged", kind="taps"
    )
    align_corners: bool = _scoring(default=False, says="of the maps' upsampling", kind="map")
    smoothing: Amount = _scoring(0.0, "deviation of a Gaussian on the map, pixels", kind="map")
    image_score: Literal["max", "top-k", "mean", "own"] = _scoring(
        "max", "how a map becomes an image score; own: the method's", "nothing", kind="map"
    )
    top_k: Share = _scoring(0.01, "share of the highest pixels for top-k", kind="map")
    epoch_selection: Literal[
        "last", "label-free", "best-on-test", "best-image-on-test", "best-pixel-on-test"
    ] = _scoring(
        "last",
        "which epoch counts; the best-… ones are oracles, by image and pixel AUROC or one of them",
        "nothing",
        kind="trained",
    )

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self, name, checked(name, getattr(self, name), HINTS[name]))
        self._check_method()
        if self.epoch_selection == "label-free" and self.holdout == 0:
            raise InputError(
                "epoch_selection: label-free chooses by the loss of held-out good images; "
                "expected holdout above 0; got 0"
            )
        if self.patience and (self.epoch_selection == "last" or not self.eval_every):
            raise InputError(
                "patience: expected an epoch_selection that compares epochs, and eval_every above "
                f"0; got {self.epoch_selection} and {self.eval_every}"
            )

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401
        """Copy it with some fields changed; an unknown field is an error.

        Another method keeps the images, the backbone and the rules for masks and leaks, and
        brings its own settings for the rest.

        >>> Variant(epochs=3).replace(method="padim").changes()
        {'method': 'padim', 'epochs': 1, 'score_map': 'nll', 'smoothing': 4.0}
        """
        for name in changes:
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
        method = changes.get("method", self.method)
        if method == self.method or method not in METHODS:
            return replace(self, **changes)
        kept = {name: getattr(self, name) for name in FIELDS if name not in _OF_METHOD}
        return type(self)(**kept | dict(METHODS[method].recipe) | changes)

    @property
    def choices(self) -> tuple[str, ...]:
        """List the fields that its method has."""
        method = METHODS[self.method]
        return tuple(name for name in FIELDS if method.has(name, ABOUT[name]["kind"]))

    @property
    def arguments(self) -> dict[str, Any]:
        """Give its method's own fields as its constructor takes them.

        >>> Variant().replace(method="padim").arguments
        {'channels': 100}
        """
        return {name: getattr(self, name) for name in self.choices if name in _ARGUMENTS}

    def changes(self, base: "Variant | None" = None) -> dict[str, Any]:
        """List the fields that differ from ``base`` (from the defaults, if none is given)."""
        other = base or Variant()
        return {k: v for k, v in asdict(self).items() if v != getattr(other, k)}

    @property
    def digest(self) -> str:
        """Name the variant by 12 hexadecimal digits, the same in all versions and machines."""
        text = json.dumps(self.changes(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def feature_spec(self) -> FeatureSpec:
        """Give what decides its cached features."""
        names = (name for name in FIELDS if ABOUT[name]["stage"] == "features")
        return FeatureSpec(**{n.removeprefix("feature_"): getattr(self, n) for n in names})

    @property
    def training(self) -> Self:
        """Leave out the scoring choices: the variant that has to be trained.

        Early stopping looks at the scores, so with ``patience`` they are part of the training.
        """
        if self.patience:
            return self
        scoring = {n: DEFAULTS[n] for n in FIELDS if ABOUT[n]["stage"] == "scoring"}
        own = {k: v for k, v in METHODS[self.method].recipe.items() if k in scoring}
        return self.replace(**scoring | own)

    def _check_method(self) -> None:
        method = METHODS[self.method]
        choices = self.choices
        for name in FIELDS:
            wanted = method.recipe.get(name, DEFAULTS[name])
            if name not in choices and (value := getattr(self, name)) != wanted:
                raise InputError(
                    f"{name}: {method.name} has no such choice; expected {show(wanted)}; got "
                    f"{show(value)} (method={self.method} alone brings what it needs)"
                )
        if "views" in choices and not self.views:
            raise InputError(f"views: {method.name} expected at least 1; got 0")
        if self.epoch_selection in _OF_MAPS and not method.localises:
            raise InputError(
                f"epoch_selection: {method.name} gives no map; expected another rule than "
                f"{self.epoch_selection}, as best-image-on-test"
            )
        if self.image_score == "own" and not method.has_own_score:
            raise InputError(
                f"image_score: {method.name} has no image score of its own; expected max, top-k "
                "or mean; got own"
            )

    @classmethod
    def from_fields(cls, settings: Mapping[str, Any]) -> Self:
        """Make the variant that a record's ``variant`` block describes (lists become tuples)."""
        return cls().replace(**settings)


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Variant))
ABOUT: dict[str, Mapping[str, Any]] = {f.name: f.metadata for f in fields(Variant)}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Variant)}
HINTS: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(Variant, include_extras=True).items()
    if name in FIELDS
}
_OF_MAPS = ("best-on-test", "best-pixel-on-test")  # epochs by a metric of the pixels
# What a method's constructor takes, where the method has it.
_ARGUMENTS = {
    n for n, a in ABOUT.items() if a["kind"] in ("flow", "own") and a["stage"] == "training"
}
# What another method brings anew: its own fields, and every other choice of the training.
_OF_METHOD = {n for n, a in ABOUT.items() if a["kind"] != "every" or a["stage"] == "training"} - {
    "smoke"
}


def parse(name: str, text: str) -> Any:  # noqa: ANN401
    """Read the value of field ``name`` as it is written on a command line.

    >>> parse("kernels", "3,1"), parse("hidden_channels", "none"), parse("coupling", "two-sided")
    ((3, 1), None, 'two-sided')
    """
    if name not in FIELDS:
        raise unknown("field", name, FIELDS)
    return parsed(name, text, HINTS[name])

"""A variant: every choice the FastFlow paper leaves open, as one frozen value.

The digest of the fields that differ from their defaults names the variant, so adding a field
keeps every old record valid. Changing a default does not: it changes what old digests mean.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Self, get_args, get_origin, get_type_hints

from harness.errors import InputError, unknown
from harness.experiment.choices import METHODS, OWN_SCORE, PARTIAL

Check = tuple[str, Callable[[Any], bool]]  # what is expected, in words, and the test for it


def _one_of(*choices: str) -> Check:
    return "one of " + ", ".join(choices), lambda v: v in choices


def _at_least(low: float) -> Check:
    return f"a number of at least {low}", lambda v: low <= v < float("inf")


def _above(low: float) -> Check:
    return f"a number above {low}", lambda v: low < v < float("inf")


_SHARE: Check = ("a share in [0, 1)", lambda v: 0 <= v < 1)
_TAGGED: Check = (
    "a timm model with its weights tag, as in resnet18.tv_in1k",
    lambda v: v.count(".") == 1 and all(v.split(".")) and v.replace(".", "_").isidentifier(),
)
_TAPS: Check = (
    "strictly increasing indices of at least 0, as in (1, 2, 3)",
    lambda v: bool(v) and v[0] >= 0 and all(a < b for a, b in pairwise(v)),
)
_KERNELS: Check = (
    "odd sizes, as in (3, 1)",
    lambda v: bool(v) and all(k > 0 and k % 2 for k in v),
)
_FLAG: Check = ("true or false", lambda v: isinstance(v, bool))
_COUNT: Check = ("a whole number of at least 0", lambda v: v >= 0)
_WIDTH: Check = ("a whole number of at least 1, or none", lambda v: v is None or v >= 1)


def _field(default: Any, check: Check, group: str = "training") -> Any:  # noqa: ANN401
    return field(default=default, metadata={"check": check, "group": group})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build, train and score a method; the defaults follow FastFlow's ResNet18.

    A field that a method does not have stays at its default, so that equal work has one digest;
    see :mod:`harness.experiment.choices`. Where the paper is silent (``norm``, ``permutation``,
    ``actnorm``, ``clamp``, ``loss``, the score rule), the default is the reproductions' habit, and a study
    varies it.

    >>> Variant(coupling="both")
    Traceback (most recent call last):
    harness.errors.InputError: coupling: expected one of one-sided, two-sided; got 'both'
    """

    method: str = _field("fastflow", _one_of(*METHODS))
    # the frozen backbone and what is cached of it
    backbone: str = _field("resnet18.tv_in1k", _TAGGED, "features")
    weights: str = _field("pretrained", _one_of("pretrained", "random"), "features")
    image_size: int = _field(256, _at_least(32), "features")
    taps: tuple[int, ...] = _field((1, 2, 3), _TAPS, "features")
    feature_dtype: str = _field("float32", _one_of("float32", "float16"), "features")
    resize: str = _field("square", _one_of("square", "crop"), "features")
    views: int = _field(0, _COUNT, "features")  # turned copies, pooled; 0: the image as it is
    # the flow on each tap (paper section 3.2, Fig. 2, Eq. 3)
    norm: str = _field("layer", _one_of("none", "layer", "layer-affine", "batch"))
    flow_steps: int = _field(8, _at_least(1))
    kernels: tuple[int, ...] = _field((3,), _KERNELS)
    hidden_ratio: float = _field(1.0, _above(0))
    hidden_channels: int | None = _field(None, _WIDTH)
    coupling: str = _field("one-sided", _one_of("one-sided", "two-sided"))
    permutation: str = _field("random", _one_of("none", "random", "reverse"))
    actnorm: str = _field("affine", _one_of("none", "affine", "data"))
    clamp: str = _field(
        "tanh", _one_of("none", "tanh", "tanh-unit", "atan", "atan-unit", "sigmoid")
    )
    clamp_value: float = _field(2.0, _above(0))
    subnet_scale: float = _field(0.1, _above(0))
    init_gain: float = _field(0.0, _at_least(0))  # Xavier with this gain; 0: torch's own
    # the compared methods' own
    coreset: float = _field(0.1, ("a share in (0, 1]", lambda v: 0 < v <= 1))
    neighbours: int = _field(9, _at_least(1))
    channels: int = _field(100, _at_least(1))
    # training (facts of the paper: Adam, 1e-3, 1e-5, 500 epochs, batch 32)
    loss: str = _field("sum", _one_of("sum", "mean"))
    optimiser: str = _field("adam", _one_of("adam", "adamw"))
    learning_rate: float = _field(1e-3, _above(0))
    weight_decay: float = _field(1e-5, _at_least(0))
    schedule: str = _field("constant", _one_of("constant", "cosine"))
    warmup_epochs: int = _field(0, _at_least(0))
    epochs: int = _field(500, _at_least(1))
    batch_size: int = _field(32, _at_least(1))
    drop_last: bool = _field(default=False, check=_FLAG)
    gradient_clip: float = _field(0.0, _at_least(0))
    precision: str = _field("float32", _one_of("float32", "bfloat16"))
    holdout: float = _field(0.0, _SHARE)
    eval_every: int = _field(0, _at_least(0))
    patience: int = _field(0, _at_least(0))  # evaluations without a better epoch; 0: no end
    smoke: bool = _field(default=False, check=_FLAG)
    # scoring: needs no new training
    mask_resize: str = _field("nearest", _one_of("nearest", "covered"), "scoring")
    leaks: str = _field("refuse", _one_of("refuse", "allow"), "scoring")
    score_map: str = _field(
        "exp-mean", _one_of("exp-mean", "nll", "nll-log-det", "likelihood"), "scoring"
    )
    scale_aggregation: str = _field("mean", _one_of("mean", "sum", "max"), "scoring")
    align_corners: bool = _field(False, _FLAG, "scoring")  # of the taps' upsampling
    smoothing: float = _field(0.0, _at_least(0), "scoring")
    image_score: str = _field("max", _one_of("max", "top-k", "mean", "own"), "scoring")
    top_k: float = _field(0.01, ("a share in (0, 1]", lambda v: 0 < v <= 1), "scoring")
    epoch_selection: str = _field(
        "last", _one_of("last", "label-free", "best-on-test", "best-pixel-on-test"), "scoring"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _typed(f.name, getattr(self, f.name)))
            expected, holds = f.metadata["check"]
            if not holds(getattr(self, f.name)):
                raise InputError(f"{f.name}: expected {expected}; got {getattr(self, f.name)!r}")
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
        """A copy with some fields changed; an unknown field is an error.

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
        """The fields that its method has."""
        return tuple(n for n in FIELDS if n not in PARTIAL or n in METHODS[self.method].fields)

    def changes(self, base: "Variant | None" = None) -> dict[str, Any]:
        """The fields that differ from ``base`` (from the defaults, if none is given)."""
        other = base or Variant()
        return {k: v for k, v in asdict(self).items() if v != getattr(other, k)}

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that name the variant; stable over versions and machines."""
        text = json.dumps(self.changes(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def features(self) -> tuple[Any, ...]:
        """What decides the cached features: backbone, weights, size, taps, dtype, resize."""
        names = (f.name for f in fields(self) if f.metadata["group"] == "features")
        return tuple(getattr(self, name) for name in names)

    @property
    def training(self) -> Self:
        """The variant without its scoring choices: what has to be trained.

        Early stopping looks at the scores, so with ``patience`` they are part of the training.
        """
        if self.patience:
            return self
        scoring = {f.name: f.default for f in fields(self) if f.metadata["group"] == "scoring"}
        own = {k: v for k, v in METHODS[self.method].recipe.items() if k in scoring}
        return self.replace(**scoring | own)

    def _check_method(self) -> None:
        method = METHODS[self.method]
        for f in fields(self):
            expected = method.recipe.get(f.name, f.default)
            value = getattr(self, f.name)
            if f.name in PARTIAL - method.fields and value != expected:
                raise InputError(
                    f"{f.name}: {method.name} has no such choice; expected {show(expected)}; got "
                    f"{show(value)} (method={self.method} alone brings what it needs)"
                )
        if "views" in method.fields and not self.views:
            raise InputError(f"views: {method.name} expected at least 1; got 0")
        if self.epoch_selection == "best-pixel-on-test" and not method.localises:
            raise InputError(
                f"epoch_selection: {method.name} gives no map; expected another rule than "
                "best-pixel-on-test"
            )
        if self.image_score == "own" and self.method not in OWN_SCORE:
            raise InputError(
                f"image_score: {method.name} has no image score of its own; expected max, top-k "
                "or mean; got own"
            )

    @classmethod
    def from_fields(cls, settings: Mapping[str, Any]) -> Self:
        """The variant that a record's ``variant`` block describes (JSON lists become tuples)."""
        return cls().replace(**settings)


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Variant))
# What another method brings anew: its own fields, and every other choice of the training.
_OF_METHOD = PARTIAL | {f.name for f in fields(Variant) if f.metadata["group"] == "training"} - {
    "smoke"
}
_HINTS = get_type_hints(Variant)


def parse(name: str, text: str) -> Any:  # noqa: ANN401
    """The value of field ``name`` written on a command line.

    >>> parse("kernels", "3,1"), parse("hidden_channels", "none"), parse("coupling", "two-sided")
    ((3, 1), None, 'two-sided')
    """
    if name not in FIELDS:
        raise unknown("field", name, FIELDS)
    if _HINTS[name] is str:
        return _typed(name, text)
    try:
        value = ast.literal_eval(
            {"none": "None", "true": "True", "false": "False"}.get(text, text)
        )
    except (ValueError, SyntaxError):
        value = text  # _typed says what was expected
    return _typed(name, value)


def show(value: Any) -> str:  # noqa: ANN401
    """A value as one would write it on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _typed(name: str, value: Any) -> Any:  # noqa: ANN401
    """``value`` in the declared type of field ``name``; no silent change of meaning."""
    hint = _HINTS[name]
    wrong = InputError(f"{name}: expected {_words(hint)}; got {value!r}")
    if get_origin(hint) is tuple:
        items = (value,) if _is(value, int) else value
        if not isinstance(items, (tuple, list)) or not all(_is(i, int) for i in items):
            raise wrong
        return tuple(items)
    if hint is float and _is(value, int):
        return float(value)
    kinds = get_args(hint) or (hint,)
    if not any(_is(value, kind) for kind in kinds):
        raise wrong
    return value


def _is(value: Any, kind: type) -> bool:  # noqa: ANN401
    """Like isinstance, but True is not a whole number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:  # noqa: ANN401
    if get_origin(hint) is tuple:
        return "whole numbers, as in 3,1"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return " or ".join(names.get(k, "none") for k in get_args(hint) or (hint,))

"""A variant: every choice the FastFlow paper leaves open, as one frozen value.

The digest of the fields that differ from their defaults names the variant, so adding a field
keeps every old record valid. Changing a default does not: it changes what old digests mean. The
values of a named choice are the keys of the table that implements it; a test holds the two
together.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self, get_type_hints

from harness.errors import InputError, unknown
from harness.experiment.choices import METHODS
from harness.experiment.feature_spec import FeatureSpec, shape_of
from harness.experiment.fields.declare import MethodName, choice
from harness.experiment.fields.features import Features
from harness.experiment.fields.flow import Flow
from harness.experiment.fields.scoring import Scoring
from harness.experiment.fields.training import Training
from harness.experiment.values import checked, parsed, show


@dataclass(frozen=True, kw_only=True)
class _Method:
    method: MethodName = choice("fastflow", "the method", "FastFlow")


@dataclass(frozen=True, kw_only=True)
class Variant(Scoring, Training, Flow, Features, _Method):
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

    def __post_init__(self) -> None:
        for name in FIELDS:
            if (value := getattr(self, name)) is not DEFAULTS[name]:  # most are, and those fit
                object.__setattr__(self, name, checked(name, value, HINTS[name]))
        if len(set(self.shape)) == 1:  # equal work has one digest
            object.__setattr__(self, "image_size", self.shape[0])
        self._check_method()
        if self.tap_weights and len(self.tap_weights) != len(self.taps):
            raise InputError(
                f"tap_weights: expected one a tap, {len(self.taps)}; got {len(self.tap_weights)}"
            )
        if self.tap_reference == "held-out" and self.holdout == 0:
            raise InputError(
                "tap_reference: held-out reads the values of held-out good images; expected "
                "holdout above 0; got 0"
            )
        self._check_validation()
        self._check_tiles()
        often = self.eval_every or self.eval_steps
        if self.patience and (self.epoch_selection == "last" or not often):
            raise InputError(
                "patience: expected an epoch_selection that compares epochs, and eval_steps or "
                f"eval_every above 0; got {self.epoch_selection} and {often}"
            )

        for name, other in (("warmup_steps", "warmup_epochs"), ("eval_steps", "eval_every")):
            if (value := getattr(self, name)) and (of_other := getattr(self, other)):
                raise InputError(
                    f"{name}: expected 0 beside {other} above 0, which says the same in epochs; "
                    f"got {value} and {of_other}; set one of the two to 0"
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

    @cached_property
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
        other = base or _PLAIN
        return {k: v for k in FIELDS if (v := getattr(self, k)) != getattr(other, k)}

    @cached_property
    def digest(self) -> str:
        """Name the variant by 12 hexadecimal digits, the same in all versions and machines."""
        text = json.dumps(self.changes(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def shape(self) -> tuple[int, int]:
        """Give height and width of the input, and of its maps, pixels.

        >>> Variant(image_size=(256, 640)).shape
        (256, 640)
        """
        return shape_of(self.image_size)

    @cached_property
    def feature_spec(self) -> FeatureSpec:
        """Give what decides its cached features."""
        names = (name for name in FIELDS if ABOUT[name]["stage"] == "features")
        return FeatureSpec(**{n.removeprefix("feature_"): getattr(self, n) for n in names})

    @cached_property
    def training(self) -> Self:
        """Leave out the scoring choices: the variant that has to be trained.

        Early stopping looks at the scores, so with ``patience`` they are part of the training.
        """
        if self.patience:
            return self
        scoring = {n: DEFAULTS[n] for n in FIELDS if ABOUT[n]["stage"] == "scoring"}
        own = {k: v for k, v in METHODS[self.method].recipe.items() if k in scoring}
        return self.replace(**scoring | own)

    def _check_validation(self) -> None:
        rule = self.epoch_selection
        if self.validation != "none" and self.holdout == 0:
            raise InputError(
                f"validation: {self.validation} needs held-out good images; expected holdout "
                "above 0; got 0"
            )
        if rule == "lowest-holdout-loss" and self.holdout == 0:
            raise InputError(
                f"epoch_selection: {rule} chooses by the loss of held-out good images; expected "
                "holdout above 0; got 0"
            )
        if rule == "label-free" and self.validation == "none":
            raise InputError(
                f"epoch_selection: {rule} chooses by the AUROC of synthetic defects; expected "
                "validation=synthetic, with holdout above 0; got validation=none (the loss of "
                "held-out good images is lowest-holdout-loss)"
            )

    def _check_tiles(self) -> None:
        """Refuse what would not look at all of a photo, or in another frame than its own."""
        for name, wanted in (("resize", ("square", "pad")), ("test_turns", (0,))):
            if self.tile_size and (value := getattr(self, name)) not in wanted:
                raise InputError(
                    f"{name}: expected {' or '.join(map(show, wanted))} beside tile_size; got "
                    f"{show(value)}; set tile_size=0, or this"
                )

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
                f"image_score: {method.name} has no image score of its own; expected "
                "another rule, as max; got own"
            )

    @classmethod
    def from_fields(cls, settings: Mapping[str, Any]) -> Self:
        """Make the variant that a record's ``variant`` block describes (lists become tuples).

        Before there was a ``validation``, ``label-free`` was what is ``lowest-holdout-loss`` now.
        """
        if settings.get("epoch_selection") == "label-free" and "validation" not in settings:
            settings = {**settings, "epoch_selection": "lowest-holdout-loss"}
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
_PLAIN = Variant()  # every field at its default
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

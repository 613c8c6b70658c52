"""The methods, and what there is to choose of each.

A method is one entry of :data:`METHODS`: adding one is its file and that entry. Its recipe are its
paper's values where they are not the variant's defaults; where a paper is silent, its authors'
code is followed and named.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

# Who has a field of a variant: every method; FastFlow's flow; what is trained by gradient; what
# gives a map; what gives one for every tap; or none but those that name it.
Kind = Literal["every", "flow", "trained", "map", "taps", "own"]

SUBJECT = "fastflow"  # the method that the paper is about; the others are compared with it


@dataclass(frozen=True)
class MethodEntry:
    """Describe a method as a value; nothing of torch is imported for it.

    Attributes:
        name: as it is printed, and as the ledger of published figures spells it.
        where: its class, ``module:Class``; its constructor takes the shapes at the taps and the
            method's own fields by their names.
        kinds: of the variant's fields that it has.
        fields: further ones, by name.
        recipe: field → its paper's value.
        draws: whether its constructor takes a ``generator``.
        images: training images that it needs at the least.

    >>> METHODS["padim"].trained, METHODS["differnet"].localises
    (False, False)
    """

    name: str
    where: str
    kinds: frozenset[str]
    fields: frozenset[str]
    recipe: Mapping[str, Any]
    draws: bool
    images: int

    @property
    def trained(self) -> bool:
        """Tell whether it is trained by gradient, over epochs; else it is fitted in one pass."""
        return "trained" in self.kinds

    @property
    def localises(self) -> bool:
        """Tell whether it gives an anomaly map, not an image score alone."""
        return "map" in self.kinds

    @property
    def has_own_score(self) -> bool:
        """Tell whether it gives an image score of its own."""
        return self.recipe.get("image_score") == "own"

    def has(self, field: str, kind: str) -> bool:
        """Tell whether it has this field of a variant, which is of this kind."""
        return kind == "every" or kind in self.kinds or field in self.fields

    def load(self) -> Any:  # noqa: ANN401 -- a subclass of Method, whose module imports torch
        """Import its class."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)


def method_entry(
    name: str,
    where: str,
    *kinds: Kind,
    fields: Iterable[str] = (),
    draws: bool = True,
    images: int = 2,
    **recipe: Any,  # noqa: ANN401
) -> MethodEntry:
    """Make a method's entry; see :class:`MethodEntry`.

    Most need two images: from one alone nothing is learnt of how good images differ. A flow would
    make every position of it likely, and a covariance over images has n − 1 below it.
    """
    recipe_ = MappingProxyType(recipe)
    return MethodEntry(name, where, frozenset(kinds), frozenset(fields), recipe_, draws, images)


METHODS: dict[str, MethodEntry] = {
    "fastflow": method_entry(
        "FastFlow", "harness.methods.fastflow:FastFlow", "flow", "trained", "map", "taps"
    ),
    # Cohen & Hoshen 2020, arXiv 2005.02357: K = 50 neighbours, kappa = 1, sigma = 4.
    "spade": method_entry(
        "SPADE",
        "harness.methods.spade:SPADE",
        "map",
        fields=("neighbours",),
        draws=False,
        images=1,  # a bank of one image is a bank
        epochs=1,
        neighbours=50,
        score_map="nll",
        smoothing=4.0,
        image_score="own",
    ),
    # Defard et al. 2020, arXiv 2011.08785: 100 channels of a ResNet18, 550 of a Wide-ResNet50.
    "padim": method_entry(
        "PaDiM",
        "harness.methods.padim:PaDiM",
        "map",
        fields=("channels",),
        epochs=1,
        score_map="nll",
        smoothing=4.0,
    ),
    # Roth et al. 2022, arXiv 2106.08265; the share of its middle row, 10 %.
    "patchcore": method_entry(
        "PatchCore",
        "harness.methods.patchcore:PatchCore",
        "map",
        fields=("coreset", "neighbours"),
        images=1,
        epochs=1,
        score_map="nll",
        smoothing=4.0,
        image_score="own",
    ),
    # Gudovskiy et al. 2022, arXiv 2107.12571; training and map are those of the authors' code:
    # 25 epochs of 8 passes each, warm-up over the first two. There the last batch is dropped,
    # the warm-up starts at a tenth of the rate, and the cosine ends at a thousandth.
    "cflow": method_entry(
        "CFLOW-AD",
        "harness.methods.cflow:CFLOW",
        "trained",
        "map",
        "taps",
        fields=("flow_steps", "clamp_value"),
        epochs=200,
        learning_rate=2e-4,
        weight_decay=0.0,
        schedule="cosine",
        warmup_epochs=16,
        clamp_value=1.9,
        score_map="likelihood",
        scale_aggregation="sum",
        align_corners=True,
    ),
    # Rudolph et al. 2021, arXiv 2008.12577; the training is that of the authors' code: 24
    # epochs of 8 passes each, 24 images in 4 turns to a batch; 64 turns of a test image. Adam's
    # betas (0.8, 0.8) and epsilon (1e-4) there are not taken over.
    "differnet": method_entry(
        "DifferNet",
        "harness.methods.differnet:DifferNet",
        "trained",
        fields=("flow_steps", "clamp_value", "hidden_channels", "views"),
        epochs=192,
        batch_size=24,
        learning_rate=2e-4,
        clamp_value=3.0,
        hidden_channels=2048,
        views=64,
        score_map="nll",
        image_score="own",
    ),
}


def method_of(name: str) -> str | None:
    """Find the method that a ledger's row is about; None where it is none of ours.

    >>> method_of("CFLOW-AD"), method_of("US")
    ('cflow', None)
    """
    return next((key for key, method in METHODS.items() if name == method.name), None)

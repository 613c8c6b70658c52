"""How a choice is declared: its type, default, meaning, what the paper says, and who has it."""

from dataclasses import field
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

from harness.experiment.choices import METHODS, Kind
from harness.experiment.feature_spec import Size, shape_of
from harness.experiment.values import Rule


def at_least(low: float) -> Rule:
    """Ask for a number of at least this.

    >>> at_least(1).holds(0)
    False
    """
    return Rule(f"a number of at least {low}", lambda v: low <= v < float("inf"))


def above(low: float) -> Rule:
    """Ask for a number above this.

    >>> above(0).holds(0)
    False
    """
    return Rule(f"a number above {low}", lambda v: low < v < float("inf"))


Count = Annotated[int, at_least(0)]
Positive = Annotated[int, at_least(1)]
Fours = Annotated[int, Rule("a multiple of 4, or 0", lambda v: v >= 0 and v % 4 == 0)]
Alternate = Annotated[int, Rule("0, or a number of at least 2", lambda v: v == 0 or v >= 2)]
InputSize = Annotated[
    Size,
    Rule(
        "a side of at least 32, or height,width of such, as in 256,640",
        lambda v: min(shape_of(v)) >= 32,
    ),
]
Amount = Annotated[float, at_least(0)]
Factor = Annotated[float, above(0)]
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
Weights = Annotated[
    tuple[float, ...],
    Rule(
        "numbers of at least 0, not all 0, as in (1, 1, 0.5)",
        lambda v: not v or (all(0 <= w < float("inf") for w in v) and any(v)),
    ),
]
Turns = Annotated[int, Rule("a number of at least 2, or 0 for none", lambda v: v == 0 or v >= 2)]
Window = Annotated[
    int, Rule("an odd size, as 3, or 0 for none", lambda v: v == 0 or (v > 0 and v % 2 == 1))
]
Tile = Annotated[int, Rule("a side of at least 16, or 0 for none", lambda v: v == 0 or v >= 16)]
Overlap = Annotated[float, Rule("a share in [0, 0.9]", lambda v: 0 <= v <= 0.9)]
Kernels = Annotated[
    tuple[int, ...],
    Rule("odd sizes, as in (3, 1)", lambda v: bool(v) and all(k > 0 and k % 2 for k in v)),
]


def choice(
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


feature = partial(choice, stage="features")
flow = partial(choice, kind="flow")
own = partial(choice, kind="own")
trained = partial(choice, kind="trained")
scoring = partial(choice, stage="scoring")

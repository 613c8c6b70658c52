"""How a choice is declared: its type, default, meaning, what the paper says, and who has it."""

from dataclasses import field
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

from harness.experiment.choices import METHODS, Kind
from harness.experiment.feature_spec import Size, shape_of
from harness.experiment.values import Rule, between


def none_or(low: float, high: float) -> Rule:
    """Ask for 0, which means none, or a number of these bounds.

    >>> none_or(2, 360).holds(0), none_or(2, 360).holds(1)
    (True, False)
    """
    return Rule(
        f"0 for none, or a number from {low} to {high}", lambda v: v == 0 or low <= v <= high
    )


def odd(high: int) -> Rule:
    """Ask for the odd side of a window.

    >>> odd(31).holds(2), odd(31).holds(33)
    (False, False)
    """
    return Rule(f"an odd size, as 3, of at most {high}", lambda v: 1 <= v <= high and v % 2 == 1)


# Bounds are wide: what anyone could want is inside, and what is outside is a slip of the hand,
# or cannot be computed. Each says why it is where it is.
EPOCHS = 10**6  # the paper has 500; a million are years of the smallest flow
STEPS = 10**9  # a million epochs of a thousand batches
SIDE = 4096  # pixels of an input: features of one image take gigabytes; larger photos are tiled
PHOTO = 65535  # pixels of a photo's side: no JPEG is longer
WIDTH = 2**16  # channels: 30 times what any backbone has at a tap
RATIO = 1000  # beyond it a share or a factor is no longer one
TINY = 1e-12  # of a rate or a step: less is rounded away by float32 weights

Epochs = Annotated[int, between(1, EPOCHS)]
SomeEpochs = Annotated[int, between(0, EPOCHS)]
Steps = Annotated[int, between(0, STEPS)]
# Of a step all images are in memory at once: 65536 would take a hundred times a GPU's.
Batch = Annotated[int, between(1, 2**16)]
Depth = Annotated[int, between(1, 1000)]  # steps of a flow: 20 are the most that is published
Channels = Annotated[int, between(1, WIDTH)]
Neighbours = Annotated[int, between(1, 10**5)]  # a bank has more patches, and seldom so many
Copies = Annotated[int, between(1, 1000)]  # each of them is cached
Views = Annotated[int, between(0, 1000)]  # turned: a third of a degree apart
Fours = Annotated[
    int,
    Rule(
        f"0, or a multiple of 4 up to {SIDE}", lambda v: 0 <= v <= SIDE and v % 4 == 0
    ),  # a code's wavelengths: more of them than an input has pixels say nothing more
]
Alternate = Annotated[int, none_or(2, EPOCHS)]
InputSize = Annotated[
    Size,
    Rule(
        f"a side from 32 to {SIDE}, or height,width of such, as in 256,640 (larger photos: "
        "tile_size)",
        lambda v: all(32 <= side <= SIDE for side in shape_of(v)),
    ),
]
Degrees = Annotated[float, Rule("degrees above 0, up to 180, which is all round",
                                lambda v: 0 < v <= 180)]  # fmt: skip
# Adam moves a weight by about the rate in a step: above 10 nothing of it is left.
Rate = Annotated[float, between(TINY, 10)]
Decay = Annotated[float, between(0, RATIO)]  # AdamW's: at the default rate 1000 is all of a weight
Epsilon = Annotated[float, between(1e-30, 1)]  # float32 has nothing smaller; TensorFlow's are 1
Clip = Annotated[float, none_or(TINY, 10**12)]
Average = Annotated[float, Rule("a decay from 0 to 0.999999, which averages a million steps",
                                lambda v: 0 <= v <= 0.999999)]  # fmt: skip
Noise = Annotated[float, between(0, 100)]  # deviations of the features: 100 leave nothing of them
Blur = Annotated[float, none_or(1e-3, SIDE)]  # pixels: wider than the map, narrower than any pixel
Bound = Annotated[float, between(1e-6, 80)]  # of a log-scale: exp of 89 is beyond float32
Factor = Annotated[float, between(1e-6, RATIO)]
Gain = Annotated[float, none_or(1e-6, RATIO)]
Share = Annotated[float, Rule("a share in (0, 1]", lambda v: 0 < v <= 1)]
Part = Annotated[float, Rule("a share in [0, 1)", lambda v: 0 <= v < 1)]
Width = Annotated[
    int | None,
    Rule(f"a whole number from 1 to {WIDTH}, or none", lambda v: v is None or 1 <= v <= WIDTH),
]
MethodName = Annotated[str, Rule("one of " + ", ".join(METHODS), lambda v: v in METHODS)]
Tagged = Annotated[
    str,
    Rule(
        "a timm model with its weights tag, as in resnet18.tv_in1k",
        lambda v: (
            len(v) <= 100  # timm's longest has 55
            and v.isascii()
            and v.count(".") == 1
            and all(v.split("."))
            and v.replace(".", "_").isidentifier()
        ),
    ),
]
Taps = Annotated[
    tuple[int, ...],
    Rule(
        "strictly increasing indices from 0 to 999, as in (1, 2, 3)",  # no backbone is so deep
        lambda v: bool(v) and v[0] >= 0 and v[-1] < 1000 and all(a < b for a, b in pairwise(v)),
    ),
]
Weights = Annotated[
    tuple[float, ...],
    Rule(
        "numbers from 0 to 1000, not all below 0.001, as in (1, 1, 0.5)",  # they are proportions
        lambda v: not v or (all(0 <= w <= RATIO for w in v) and max(v) >= 1 / RATIO),
    ),
]
Turns = Annotated[int, none_or(2, 360)]  # a degree apart
# Of positions: the finest grid of the largest input has 1024 a side.
Window = Annotated[
    int, Rule("0 for none, or " + odd(1023).expects, lambda v: v == 0 or odd(1023).holds(v))
]
Tile = Annotated[int, none_or(16, PHOTO)]
Overlap = Annotated[float, Rule("a share in [0, 0.9]", lambda v: 0 <= v <= 0.9)]
# 31 is the largest kernel of a convolutional network in use (RepLKNet's), and half of the finest
# grid at 256 pixels: beyond it most of a kernel sees padding.
Kernels = Annotated[
    tuple[int, ...],
    Rule(
        "odd sizes of at most 31, as in (3, 1)",
        lambda v: 0 < len(v) <= 1000 and all(odd(31).holds(k) for k in v),
    ),
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

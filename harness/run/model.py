"""From a variant to its model: where a Variant's fields become a method's plain arguments."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.experiment.variant import Variant
from harness.methods.cflow import CFLOW
from harness.methods.contract import Method
from harness.methods.differnet import DifferNet
from harness.methods.fastflow import FastFlow
from harness.methods.padim import PaDiM
from harness.methods.patchcore import PatchCore
from harness.methods.spade import SPADE

# Method → its class, and the argument that each of the variant's fields becomes. Every field
# named here is one of :data:`harness.experiment.choices.METHODS`; a test holds the two together.
CLASSES: dict[str, tuple[Callable[..., Method], dict[str, str]]] = {
    "fastflow": (
        FastFlow,
        {
            "norm": "norm", "loss": "loss", "flow_steps": "steps", "kernels": "kernels",
            "hidden_ratio": "hidden_ratio", "hidden_channels": "hidden_channels",
            "coupling": "coupling", "permutation": "permutation", "actnorm": "actnorm",
            "clamp": "clamp", "clamp_value": "clamp_value", "subnet_scale": "subnet_scale",
            "init_gain": "init_gain",
        },
    ),
    "spade": (SPADE, {"neighbours": "neighbours"}),
    "padim": (PaDiM, {"channels": "channels"}),
    "patchcore": (PatchCore, {"coreset": "coreset", "neighbours": "neighbours"}),
    "cflow": (CFLOW, {"flow_steps": "steps", "clamp_value": "clamp_value"}),
    "differnet": (
        DifferNet,
        {
            "flow_steps": "steps", "clamp_value": "clamp_value",
            "hidden_channels": "hidden_channels",
        },
    ),
}  # fmt: skip


def make_model(variant: Variant, shapes: Sequence[tuple[int, int, int]], seed: int) -> Method:
    """The variant's model for features of these (C, H, W); seeded before anything is drawn."""
    torch.manual_seed(seed)
    kind, named = CLASSES[variant.method]
    arguments: dict[str, Any] = {name: getattr(variant, f) for f, name in named.items()}
    if variant.method != "spade":  # draws nothing
        # Of its own: the permutations of a seed are the same for every variant.
        arguments["generator"] = torch.Generator().manual_seed(seed)
    return kind(shapes, **arguments)

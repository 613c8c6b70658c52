"""Choices of the model: the flow on each tap, and what the compared methods have instead."""

from dataclasses import dataclass
from typing import Literal

from harness.experiment.fields.declare import (
    Alternate,
    Bound,
    Channels,
    Depth,
    Factor,
    Fours,
    Gain,
    Kernels,
    Neighbours,
    Rate,
    Share,
    Width,
    flow,
    own,
)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Choose the flow on each tap (paper section 3.2, Fig. 2, Eq. 3)."""

    norm: Literal["none", "layer", "layer-affine", "batch", "standard", "whiten"] = flow(
        "layer",
        "norm of the features before the flow; standard, whiten: of the training images' "
        "channels, each or all together",
        "nothing",
    )
    flow_steps: Depth = flow(8, "flow steps of each flow", "8 (ResNets); 20 (transformers)")
    kernels: Kernels = flow(
        (3,), "the subnets' kernels, cycled over the steps", "3 for ResNet18, else 3,1"
    )
    hidden_ratio: Factor = flow(
        1.0, "hidden channels of a subnet as a share of its input's", "disputed"
    )
    hidden_channels: Width = flow(None, "hidden channels; in place of the ratio", "disputed")
    coupling: Literal["one-sided", "two-sided"] = flow(
        "one-sided",
        "halves that a step transforms; nothing else changes with it",
        "both readings exist (Eq. 3, Fig. 2)",
    )
    coupling_function: Literal["affine", "additive"] = flow(
        "affine",
        "what a coupling does with a half: scale and shift it; additive: shift it alone, which "
        "keeps the volume",
        "scale and shift (Eq. 3)",
    )
    permutation: Literal["none", "random", "reverse"] = flow(
        "random", "of the channels", "“channel permute”"
    )
    actnorm: Literal["none", "affine", "data"] = flow(
        "affine",
        "per-channel affine: learned after the coupling, or before it from a batch",
        "Fig. 2 draws an ActNorm; no initialisation",
    )
    clamp: Literal["none", "tanh", "tanh-unit", "atan", "atan-unit", "sigmoid"] = flow(
        "tanh", "how the log-scale is bounded", "plain exp"
    )
    clamp_value: Bound = flow(2.0, "the bound of the log-scale")
    subnet_scale: Factor = flow(0.1, "factor on a subnet's output")
    init_gain: Gain = flow(0.0, "Xavier's gain of the subnets; 0: torch's own weights")
    zero_last: bool = flow(
        default=False,
        says="the subnets' last convolution starts at zero: couplings start as the identity",
    )
    subnet_norm: Literal["none", "layer", "batch"] = flow(
        "none", "norm before the subnets' ReLU", "none in Fig. 2"
    )
    base: Literal["standard", "learned"] = flow(
        "standard",
        "the flows' base distribution: standard normal, or mean and deviation of every channel "
        "learned (AltUB)",
        "standard normal (Eq. 1)",
    )
    base_learning_rate: Rate = flow(0.05, "learning rate of a learned base")
    base_every: Alternate = flow(
        0,
        "n: every n-th step updates a learned base alone, at its rate, and all others flow and "
        "base at learning_rate (AltUB); 0: every step both, the base at its rate",
    )
    position_channels: Fours = flow(
        0, "channels of a code of the position that every subnet sees too, as in CFLOW-AD; 0: none"
    )
    # The compared methods' own.
    coreset: Share = own(0.1, "share of the patches in the bank")
    neighbours: Neighbours = own(9, "nearest neighbours")
    channels: Channels = own(100, "channels drawn at random")

"""Optimiser steps that change a part of a model alone."""

from typing import Any

import torch


class Turns:
    """Let a group of an optimiser's parameters be updated alone in every n-th step.

    That is a group with ``alone_every`` n above 0. In step n, 2n, … it moves at its own rate and
    nothing else does; in the others all move, and it does at the training's rate. The group's
    moments are one and the same in both. Where a gradient is clipped, it is the whole model's.

    Args:
        optimiser: whose steps are counted; one without such a group is left as it is.
        rate: the training's.

    >>> a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    >>> alone = {"params": [b], "lr": 0.5, "alone_every": 2}
    >>> optimiser = torch.optim.SGD([{"params": [a]}, alone], lr=0.1)
    >>> _ = Turns(optimiser, rate=0.1)
    >>> for _ in range(2):
    ...     a.grad, b.grad = -torch.ones(1), -torch.ones(1)
    ...     optimiser.step()
    ...     round(a.item(), 2), round(b.item(), 2)
    (0.1, 0.1)
    (0.1, 0.6)
    """

    def __init__(self, optimiser: torch.optim.Optimizer, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.starts = [group["lr"] for group in optimiser.param_groups]  # before any schedule
        self.own: list[float] = []  # every group's rate, while a step is taken
        if any(group.get("alone_every") for group in optimiser.param_groups):
            optimiser.register_step_pre_hook(self._before)
            optimiser.register_step_post_hook(self._after)

    def _before(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:  # noqa: ANN401
        self.steps += 1
        groups = optimiser.param_groups
        self.own = [group["lr"] for group in groups]
        alone = [g for g in groups if self.steps % (g.get("alone_every") or self.steps + 1) == 0]
        for group, start in zip(groups, self.starts, strict=True):
            if alone and not any(group is other for other in alone):
                for parameter in group["params"]:
                    parameter.grad = None  # which an optimiser passes over
            elif not alone and group.get("alone_every"):
                group["lr"] *= self.rate / start  # the schedule's factor is in both

    def _after(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:  # noqa: ANN401
        for group, rate in zip(optimiser.param_groups, self.own, strict=True):
            group["lr"] = rate

"""A moving average of a model's weights, which is what an evaluation then sees."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

RUNNING = ("running_mean", "running_var")  # what a batch norm goes by at an evaluation


class WeightAverage:
    """Hold an exponential moving average of a model's weights, taken after every optimiser step.

    After step n, from 0, the average moves to the weights by 1 − min(decay, (1 + n)/(10 + n)):
    the ramp lets it forget where the weights started. Training goes on with the weights
    themselves. The running moments of batch norms are averaged as the weights are.

    Args:
        model: on its device.
        optimiser: of its weights.
        decay: share of the average that a step keeps; 0: no average, and nothing is held.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> average = WeightAverage(model, optimiser, decay=0.9)
    >>> before = model.weight.item()
    >>> model.weight.grad = torch.ones(1, 1)
    >>> optimiser.step()  # by −1: the average goes 9/10 of the way
    >>> with average.applied():
    ...     round(before - model.weight.item(), 4)
    0.9
    >>> round(before - model.weight.item(), 4)
    1.0
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, decay: float) -> None:
        self.decay, self.steps = decay, 0
        moments = [b for name, b in model.named_buffers() if name.endswith(RUNNING)]
        self.weights: list[Tensor] = [*model.parameters(), *moments] if decay else []
        self.average = [w.detach().clone() for w in self.weights]
        if decay:
            optimiser.register_step_post_hook(self._update)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average inside, and its weights again, bit for bit, after."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average."""
        for weight, average in zip(self.weights, self.average, strict=True):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    @torch.no_grad()
    def _update(self, *_: Any) -> None:  # noqa: ANN401 -- what torch's hook is given
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for weight, average in zip(self.weights, self.average, strict=True):
            average.lerp_(weight, 1 - kept)

"""All that a training changes on its way, and where it stands: what a checkpoint holds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor

from harness.experiment.measured import Grown
from harness.methods.contract import Method
from harness.run.averaging import WeightAverage
from harness.run.growing import Member
from harness.run.history import History
from harness.run.kept import Said
from harness.run.noise import FeatureNoise
from harness.run.process import generators_of
from harness.run.turns import Turns


class Position(Said, kw_only=True):
    """Say how far a training has come, and of what it is.

    >>> Position.what
    'checkpoint'
    """

    what: ClassVar[str] = "checkpoint"

    identity: dict[str, str]  # of what, word by word
    threads: int
    seconds: float  # that it has taken
    epoch: int  # from 1
    batches: int  # of this epoch, that are done
    total: float  # of their losses
    loss: list[float]
    holdout: dict[int, float]
    bank_bytes: int
    grown: list[Grown] = msgspec.field(default_factory=list)  # of the threads
    steps: int  # of the weights' average
    turns: int
    rates: list[float]  # of the optimiser's groups
    schedule: dict[str, Any]
    energies: str  # the name of the growing file
    members: list[Member]  # what of it counts


@dataclass
class Training:
    """Hold everything that a training changes on its way.

    Attributes:
        model: what is trained.
        optimiser: of its parameters.
        schedule: of the optimiser's rates.
        turns: of its groups.
        average: of the weights.
        noise: on the features.
        history: what it leaves.
        device: where it is.
        epoch: the one that it is in, from 1.
        batches: of this epoch, that are done.
        total: of their images' losses.
        evaluated: members of the energies before this epoch's evaluation; None: all there are.
    """

    model: Method
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    turns: Turns
    average: WeightAverage
    noise: FeatureNoise
    history: History
    device: str = "cpu"
    epoch: int = 1
    batches: int = 0
    total: float = 0.0
    evaluated: int | None = None

    def next_epoch(self) -> None:
        """Stand at the beginning of the next epoch."""
        self.epoch, self.batches, self.total = self.epoch + 1, 0, 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Give all that is numbers: by names, as they lie in memory."""
        named = dict(self._named())
        for i, parameter in enumerate(self._parameters()):
            of_it = self.optimiser.state.get(parameter, {})
            named |= {f"optimiser.{i}.{name}": value for name, value in of_it.items()}
        found = {name: _as_it_lies(tensor.detach()) for name, tensor in named.items()}
        return found | {f"generator.{i}": g.get_state() for i, g in enumerate(self._generators())}

    def restore(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Stand where the position and its tensors say."""
        for name, live in self._named():
            _as_it_lies(live.detach()).copy_(tensors[name])
        for i, parameter in enumerate(self._parameters()):
            before = f"optimiser.{i}."
            for name in (n for n in tensors if n.startswith(before)):
                self.optimiser.state[parameter][name.removeprefix(before)] = _like(
                    parameter, tensors[name]
                )
        for i, generator in enumerate(self._generators()):
            generator.set_state(tensors[f"generator.{i}"])
        for group, rate in zip(self.optimiser.param_groups, position.rates, strict=True):
            group["lr"] = rate
        self.schedule.load_state_dict(dict(position.schedule))
        self.turns.steps, self.average.steps = position.turns, position.steps
        self.history.loss[:] = position.loss
        self.history.holdout.update(position.holdout)
        self.history.bank_bytes = position.bank_bytes
        self.history.grown[:] = position.grown
        self.epoch, self.batches, self.total = position.epoch, position.batches, position.total

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, buffers of every kind, and the average."""
        yield from ((f"model.{n}", p) for n, p in self.model.named_parameters())
        yield from ((f"model.{n}", b) for n, b in self.model.named_buffers())
        yield from ((f"average.{i}", a) for i, a in enumerate(self.average.average))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def _generators(self) -> list[torch.Generator]:
        """Those of the method, of the noise, and torch's own of the processor and the device."""
        own = [torch.default_generator]
        if self.device.startswith("cuda"):
            index = torch.device(self.device).index
            own.append(torch.cuda.default_generators[index or 0])
        return [*generators_of(self.model), self.noise.generator, *own]


def _as_it_lies(tensor: Tensor) -> Tensor:
    """The same numbers with the axes in the order of memory: no copy is made of channels-last."""
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))


def _like(parameter: Tensor, stored: Tensor) -> Tensor:
    """What an optimiser keeps of a parameter, laid out as it lays it out: as the parameter."""
    if stored.dim() == 0:
        return stored.to(parameter.device)
    live = torch.empty_like(parameter.detach(), dtype=stored.dtype)
    _as_it_lies(live).copy_(stored)
    return live

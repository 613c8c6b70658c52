"""What is counted and measured of a run, as blocks of its record."""

import math
from collections.abc import Mapping
from typing import TypeGuard

import msgspec

Metrics = dict[str, float]  # as fractions; one that is undefined is absent


class Block(msgspec.Struct, omit_defaults=True):
    """Be a part of a record; a field that is at its default is not written."""


class Parameters(Block, kw_only=True):
    """Count parameters by kind; see :meth:`harness.methods.contract.Method.count_parameters`.

    >>> Parameters(flow=1000, norm=24, frozen=8, backbone=7).additional
    1024
    """

    flow: int
    norm: int
    frozen: int
    backbone: int

    @property
    def additional(self) -> int:
        """Count the paper's "A.d. params": what is trained beside the backbone."""
        return self.flow + self.norm


class Macs(Block, kw_only=True):
    """Count multiply-accumulates of an image; ``step``: of a training step, where it is less.

    >>> Macs(backbone=20, flow=10).training
    10
    """

    backbone: int
    flow: int
    step: int | None = None

    @property
    def training(self) -> int:
        """Count those of an image in a training step, forward."""
        return self.flow if self.step is None else self.step


class Speed(Block, kw_only=True):
    """Hold measured times; every field is absent where nothing was measured.

    >>> Speed().fps is None
    True
    """

    latency_ms: float | None = None
    latency_ms_min: float | None = None
    latency_ms_max: float | None = None
    fps: float | None = None
    fps_min: float | None = None
    fps_max: float | None = None
    fps_batch_size: int | None = None
    rounds: int | None = None
    threads: int | None = None
    device: str | None = None
    measures: str | None = None
    additional_ms: float | None = None  # the paper's "A.d. time"
    images_kept: int | None = None  # in the bank that was timed
    session: str = ""  # what was measured in turns with it has the same; empty in old records


# From which epoch on, behind how many of its batches, there were how many threads.
Grown = tuple[int, int, int]


class Environment(Block, kw_only=True, omit_defaults=False):
    """Say what a run ran on."""

    harness: str
    commit: str | None
    python: str
    platform: str
    versions: dict[str, str]
    device: str
    device_name: str
    threads: int  # the most there were
    compiled: bool | None  # whether flow steps ran compiled; None: an old record
    arithmetic: str = ""  # of float32, as in "cuda tf32"; empty: an old record
    grown: list[Grown] = []  # how its training's threads grew; empty: they were always as many


class Measured(Block, kw_only=True, omit_defaults=False):
    """Hold what differs between two runs of the same thing."""

    fit_seconds: float | None  # None: an equal training was taken up
    score_seconds: float
    peak_memory_bytes: int | None  # None: scored later, in a process of many
    bank_bytes: int
    finished: str  # ISO 8601
    speed: Speed


def finite(values: Mapping[str, float]) -> Metrics:
    """Keep the metrics that exist: an undefined one is absent from a record, not zero.

    >>> finite({"image_auroc": 0.5, "aupro": float("nan")})
    {'image_auroc': 0.5}
    """
    return {k: float(v) for k, v in values.items() if math.isfinite(v)}


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a metric read from a record is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)

"""From energies of every tap to anomaly maps, without training.

The paper "upsamples the summed 2D likelihood map"; which map and how the taps are joined is
open. A tap's map is made in four steps, each a choice: which parts of its likelihood are taken, on
what scale they are read, which function of them is the map, and what each image's own level is.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.frame import Box
from harness.experiment.feature_spec import Size, shape_of
from harness.score.reference import ABOVE, PARTS, Reference, TapReference
from harness.score.smooth import gaussian


class MapRule(NamedTuple):
    """Say which of :data:`PARTS` a map is of, and which function of their values."""

    parts: tuple[int, ...]
    link: Callable[[Tensor], Tensor]


MAPS: dict[str, MapRule] = {
    "exp-mean": MapRule((0,), lambda x: -torch.exp(-x)),  # gathierry, anomalib
    "nll": MapRule((0,), lambda x: x),
    "nll-log-det": MapRule((1,), lambda x: x),  # RistoranteRist
    "likelihood": MapRule((1,), lambda x: -torch.exp(-x)),  # CFLOW-AD
    "nll-both": MapRule((0, 1), lambda x: x),  # their mean: half of the log-determinant counts
}
# Of a part's values, by the training images' at the same tap; and the least p-value told apart.
Scale = Callable[[Tensor, TapReference, int, str, float], Tensor]
SCALES: dict[str, Scale] = {
    "none": lambda values, of, part, rule, floor: values,
    "standardised": lambda values, of, part, rule, floor: of.standardise(values, part, rule),
    "quantile": lambda values, of, part, rule, floor: of.read(values, part, rule, 1 - ABOVE),
    # p as of a test: (values at least as large + 1) / (all + 1), so that none is impossible.
    "neg-log-p": lambda values, of, part, rule, floor: of.read(
        values,
        part,
        rule,
        -torch.log(floor + (1 - floor) * (of.count * ABOVE + 1) / (of.count + 1)),
    ),
}
LEVELS: dict[str, Callable[[Tensor], Tensor]] = {  # of maps (B, h, w), what counts as their zero
    "none": lambda maps: maps.new_zeros(()),
    "mean": lambda maps: maps.mean((1, 2), keepdim=True),
    "median": lambda maps: _quantile(maps.flatten(1), 0.5),
    "tenth": lambda maps: _quantile(maps.flatten(1), 0.1),
    "border": lambda maps: _quantile(_border(maps), 0.5),
}
JOINS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "sum": lambda maps: maps.sum(0),
    "max": lambda maps: maps.amax(0),
}


def anomaly_maps(
    energies: Sequence[tuple[Tensor, Tensor]],
    *,
    size: Size,
    score_map: str,
    scale_aggregation: str,
    smoothing: float,
    align_corners: bool = False,
    tap_scale: str = "none",
    tap_position: str = "global",
    p_floor: float = 0.0,
    tap_weights: Sequence[float] = (),
    centring: str = "none",
    reference: Reference | None = None,
    box: Box | None = None,
) -> Tensor:
    """Make anomaly maps, larger = more anomalous.

    Args:
        energies: per tap ``(energy, log_det)``, each (B, H, W).
        size: side of the input image, or its height and width, pixels.
        score_map: a key of :data:`MAPS`.
        scale_aggregation: how the taps' maps are joined, a key of :data:`JOINS`.
        align_corners: as torch's ``interpolate`` has it: lelexx and CFLOW-AD's code align.
        smoothing: standard deviation of a Gaussian on the map, pixels; 0: none.
        tap_scale: on what scale a tap's values are read, a key of :data:`SCALES`.
        tap_position: whether by those of all positions, of the same, or of those around it.
        p_floor: share of the training images' values beyond which ``neg-log-p`` hardly rises, so
            that a few extreme positions do not decide alone; 0: it rises up to the largest.
        tap_weights: of the taps' maps, in proportion; empty: equal.
        centring: what is taken off each image's map at each tap, a key of :data:`LEVELS`.
        reference: of the training images; needed by every ``tap_scale`` but ``none``.
        box: where the input shows the image; what lies around it has no part in the maps. None:
            everywhere.

    Returns:
        (B, H, W) of the input, or of the box, of the energies' type. Memory: that of B maps a tap.
    """
    total, frame = sum(tap_weights), shape_of(size)
    scales = []
    for tap, (energy, log_det) in enumerate(energies):
        of = reference[tap] if reference else _NOTHING
        values = _read(energy, log_det, of, score_map, tap_scale, tap_position, p_floor)
        if box is None:
            values = centred(values, centring)
        else:
            values = _centred_inside(values, box, frame, centring)
        weight = tap_weights[tap] * len(energies) / total if tap_weights else 1.0
        scales.append((values if weight == 1.0 else values * weight)[:, None])
    upsampled = torch.stack(
        [F.interpolate(s, frame, mode="bilinear", align_corners=align_corners) for s in scales]
    )
    if box:
        upsampled = upsampled[..., box.rows, box.columns]
    return gaussian(JOINS[scale_aggregation](upsampled), smoothing)[:, 0]


_NOTHING = TapReference(0, torch.empty(0), torch.empty(0))  # where no scale asks for one


def _read(
    energy: Tensor,
    log_det: Tensor,
    of: TapReference,
    score_map: str,
    tap_scale: str,
    tap_position: str,
    p_floor: float,
) -> Tensor:
    """A tap's map (B, h, w), before any centring."""
    parts, link = MAPS[score_map]
    read = [
        link(SCALES[tap_scale](PARTS[part](energy, log_det), of, part, tap_position, p_floor))
        for part in parts
    ]
    return read[0] if len(read) == 1 else torch.stack(read).mean(0)


def count_saturated(
    energies: Sequence[tuple[Tensor, Tensor]],
    *,
    score_map: str,
    tap_scale: str = "none",
    tap_position: str = "global",
    p_floor: float = 0.0,
    reference: Reference | None = None,
) -> list[int]:
    """Count each tap's values that are what an infinite energy would give: there pixels tie.

    The arguments are those of :func:`anomaly_maps`.

    >>> one = [(torch.tensor([[[3.0, 200.0]]]), torch.zeros(1, 1, 2))]
    >>> count_saturated(one, score_map="exp-mean"), count_saturated(one, score_map="nll")
    ([1], [0])
    """
    counts = []
    for tap, (energy, log_det) in enumerate(energies):
        rule = (
            reference[tap] if reference else _NOTHING,
            score_map,
            tap_scale,
            tap_position,
            p_floor,
        )
        end = _read(torch.full_like(energy[:1], torch.inf), torch.zeros_like(log_det[:1]), *rule)
        counts.append(int((_read(energy, log_det, *rule) == end).sum()))
    return counts


def _centred_inside(values: Tensor, box: Box, frame: tuple[int, int], centring: str) -> Tensor:
    """Values (B, h, w) of a frame, centred by those in the box; the nearest of them around it."""
    _, height, width = values.shape
    top, left, bottom, right = box.positions(frame, (height, width))
    inside = centred(values[:, top:bottom, left:right], centring)
    rows = torch.arange(height, device=values.device).clamp(top, bottom - 1) - top
    columns = torch.arange(width, device=values.device).clamp(left, right - 1) - left
    return inside[:, rows[:, None], columns]


def centred(maps: Tensor, level: str) -> Tensor:
    """Take each map's own level, a key of :data:`LEVELS`, off maps (B, h, w).

    >>> centred(torch.tensor([[[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]]), "border")
    tensor([[[0., 0., 0.],
             [0., 4., 0.],
             [0., 0., 0.]]])
    """
    return maps if level == "none" else maps - LEVELS[level](maps)


def _border(maps: Tensor) -> Tensor:
    """The values at the border of maps (B, h, w): (B, k)."""
    rows = [maps[:, 0], maps[:, -1]]
    return torch.cat([*rows, maps[:, 1:-1, 0], maps[:, 1:-1, -1]], dim=1)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that this share of each row (B, k) does not exceed, (B, 1, 1)."""
    rank = max(1, math.ceil(share * values.shape[1]))
    return values.kthvalue(rank, dim=1).values[:, None, None]

"""Exact parameter accounting: which readings of the paper give its printed counts.

The paper's "A.d. params" are printed to 0.1 M and its widths and couplings are disputed. Here
every reading is built (on the meta device: no weights, no data) and counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.experiment.values import show
from harness.experiment.variant import Variant
from harness.paper.ledger import Published
from harness.run.measure import count_parameters
from harness.studies.paper import PAPER

# Hidden channels as a share of the subnet's input, which is half the channels C, or a number.
WIDTHS: dict[str, dict[str, Any]] = {
    "C/2": {"hidden_ratio": 1.0},
    "C": {"hidden_ratio": 2.0},  # mjack3
    "C/4": {"hidden_ratio": 0.5},
    "1.05·C/2": {"hidden_ratio": 1.05},
    "1.06·C/2": {"hidden_ratio": 1.06},  # lelexx
    "0.16·C/2": {"hidden_ratio": 0.16},  # gathierry's ViTs
    "0.16·C": {"hidden_ratio": 0.32},
    "128": {"hidden_channels": 128},  # C/6 of a ViT
    "64": {"hidden_channels": 64},  # C/12 of a ViT
}
KERNELS = ((3,), (3, 1))
# The last one has as many subnets as the first.
COUPLINGS = (("one-sided", 1), ("two-sided", 1), ("two-sided", 2))  # steps divided by


def hypotheses() -> Iterator[tuple[str, str, Variant]]:
    """Yield backbone's name, width's name and variant of every reading."""
    for name, base in PAPER.items():
        for kernels in KERNELS:
            for coupling, divided in COUPLINGS:
                for width, changes in WIDTHS.items():
                    yield name, width, base.replace(
                        kernels=kernels, coupling=coupling, norm="layer-affine",
                        flow_steps=base.flow_steps // divided,
                        **{"hidden_channels": None, **changes},
                    )  # fmt: skip


def account(published: Sequence[Published]) -> list[dict[str, Any]]:
    """Count every reading, a row each, with the printed count it may stand for.

    Returns:
        backbone, architecture, kernels, coupling, flow_steps, width; ``flow``: trainable;
        ``norm``: what a LayerNorm with affine before the flow would add (0 for a ViT, whose own
        norm is frozen); ``frozen``: permutation indices; ``published`` (M) and ``status``, None
        where nothing is printed; ``rounds`` and ``rounds_with_norm``: whether flow, or flow and
        norm, round to it.
    """
    rows = []
    for name, width, variant in hypotheses():
        architecture = variant.backbone.split(".")[0]
        # Steps repeat with the kernels: one cycle is built and counted.
        cycles, rest = divmod(variant.flow_steps, len(variant.kernels))
        assert rest == 0, f"{variant.flow_steps} steps are no whole cycles of {variant.kernels}"
        counts = count_parameters(variant.replace(flow_steps=len(variant.kernels)))
        vit = len(variant.taps) == 1
        flow, norm = cycles * counts.flow, 0 if vit else counts.norm
        printed = _printed(published, architecture, variant.kernels, PAPER[name].kernels)
        rows.append({
            "backbone": name, "architecture": architecture, "kernels": show(variant.kernels),
            "coupling": variant.coupling, "flow_steps": variant.flow_steps, "width": width,
            "flow": flow, "norm": norm, "frozen": cycles * counts.frozen,
            "published": printed.value if printed else None,
            "status": printed.status if printed else None,
            "rounds": _rounds(flow, printed), "rounds_with_norm": _rounds(flow + norm, printed),
        })  # fmt: skip
    return rows


def accounting(published: Sequence[Published], variants: Mapping[str, Variant]) -> dict[str, Any]:
    """Give every reading's row, and the additional parameters of these variants."""
    counts = {digest: count_parameters(v).additional for digest, v in variants.items()}
    return {"readings": account(published), "variants": counts}


def _printed(
    published: Sequence[Published],
    architecture: str,
    kernels: tuple[int, ...],
    chosen: tuple[int, ...],
) -> Published | None:
    """The count that the paper prints for this backbone with these kernels."""
    for figure in published:
        ours = (figure.by, figure.method, figure.metric) == (
            "FastFlow", "FastFlow", "additional_params",
        )  # fmt: skip
        if ours and figure.backbone == architecture:
            if figure.fields.get("kernels", chosen) == kernels:
                return figure
    return None


def _rounds(parameters: int, printed: Published | None) -> bool | None:
    """Whether the count rounds to the printed one; None where nothing is printed."""
    if printed is None:
        return None
    digits = len(printed.printed.partition(".")[2])
    return round(parameters / 1e6, digits) == printed.value

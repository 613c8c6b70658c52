"""anomalib's FastFlow with our weights, so that both sides compute the same thing.

anomalib builds its backbone from timm and would download the weights; here it takes ours.
"""

from typing import Any, cast

import torch
from torch import nn

from benchmarks.common import BACKBONE, Options
from harness.experiment.variant import Variant
from harness.features.backbone import Backbone, load_backbone
from harness.methods.fastflow import FastFlow
from harness.methods.flow.step import FlowStep
from harness.run.model import make_model

# Of anomalib's block: kernels (3,) is conv3x3_only, (3, 1) its default.
VARIANT = Variant(
    backbone=BACKBONE, norm="layer-affine", kernels=(3,), flow_steps=8, image_size=256,
)  # fmt: skip


def our_backbone(options: Options, variant: Variant) -> Backbone:
    """The variant's, with the weights that the options name."""
    backbone, _ = load_backbone(
        variant.backbone, taps=variant.taps, image_size=variant.image_size,
        weights="pretrained" if options.weights else "random", folder=options.weights,
    )  # fmt: skip
    return backbone


def our_model(
    options: Options, variant: Variant, *, generic: bool = False
) -> tuple[Backbone, FastFlow]:
    """Our backbone and flow for a variant, on the CPU.

    Args:
        options: names the weights.
        variant: what to build.
        generic: move every per-channel scale and offset off its start, so that no term is hidden.
    """
    backbone = our_backbone(options, variant)
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = make_model(variant, shapes, 0)
    if generic:
        drawn = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "subnet" not in name:
                    p.add_(0.1 * torch.randn(p.shape, generator=drawn))
    return backbone, model.eval()


def peer_model(variant: Variant, backbone: Backbone, flow: FastFlow | None = None) -> Any:
    """Anomalib's torch model of the same variant with the same weights.

    Raises:
        ValueError: the variant is none that anomalib can express.
    """
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    size = (variant.image_size, variant.image_size)
    model = FastflowModel(
        size, variant.backbone.split(".")[0], pre_trained=False, **peer_options(variant)
    )
    load_extractor(model, backbone)
    if flow is not None:
        load_flow(model, flow)
    return model.eval()


def peer_options(variant: Variant) -> dict[str, Any]:
    """The variant in anomalib's words."""
    if variant.kernels not in ((3,), (3, 1)) or variant.coupling != "one-sided":
        raise ValueError(f"anomalib has no such FastFlow: {variant}")
    return {
        "flow_steps": variant.flow_steps,
        "conv3x3_only": variant.kernels == (3,),
        "hidden_ratio": variant.hidden_ratio,
    }


def load_extractor(model: nn.Module, backbone: Backbone) -> None:
    """Our backbone's weights in anomalib's feature extractor, every key of it."""
    extractor = cast(nn.Module, model.feature_extractor)
    ours = backbone.model.state_dict()
    extractor.load_state_dict({k: ours[k] for k in extractor.state_dict()}, strict=True)


@torch.no_grad()
def load_flow(model: nn.Module, flow: FastFlow) -> None:
    """Our norms and flows in anomalib's; its permutations are matrices of zeros and ones."""
    norms = cast(nn.ModuleList, model.norms)
    norms.load_state_dict(flow.norms.state_dict(), strict=True)
    chains = zip(flow.flows, cast(nn.ModuleList, model.fast_flow_blocks), strict=True)
    for ours, theirs in chains:
        for step, block in zip(cast(Any, ours), theirs.module_list, strict=True):
            _load_step(step, block)


def _load_step(step: FlowStep, block: Any) -> None:
    block.subnet.load_state_dict(step.subnet.state_dict(), strict=True)
    affine = cast(Any, step.affine)
    block.global_scale.copy_(affine.global_scale)
    block.global_offset.copy_(affine.global_offset)
    matrix = torch.eye(len(step.perm))[step.perm]  # row i has its one where output i reads
    block.w_perm.copy_(matrix[:, :, None, None])
    block.w_perm_inv.copy_(matrix.T[:, :, None, None])

"""The inference path gives the plain path's energies."""

import pytest
import torch

from harness.backbones import Backbone
from harness.fast import fold_batch_norms, fused
from harness.fastflow import FastFlow


@pytest.fixture(params=["resnet18.tv_in1k", "tf_efficientnet_lite0.pypi_in1k"])
def backbone(request):
    """A backbone with generic batch norms."""
    torch.manual_seed(0)
    backbone = Backbone(request.param, taps=(1, 2), image_size=64)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return backbone


def test_folded_backbone_gives_the_same_features(backbone):
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain, folded = backbone(images), fold_batch_norms(backbone)(images)
    for a, b in zip(plain, folded, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5 * a.abs().max().item())


def test_resnet_has_no_batch_norm_left():
    folded = fold_batch_norms(Backbone("resnet18.tv_in1k", taps=(1, 2), image_size=64))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_energies_equal_the_plain_path(backbone, precision, error):
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = FastFlow(shapes, norm="layer", steps=3, kernels=(3, 1)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.energies(backbone(images))
    for (e, j), (e_fast, j_fast) in zip(plain, fused(backbone, model, precision=precision)(images),
                                        strict=True):  # fmt: skip
        torch.testing.assert_close(e_fast, e, rtol=error, atol=error)
        torch.testing.assert_close(j_fast, j, rtol=error, atol=error)

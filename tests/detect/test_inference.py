"""The inference path gives the plain path's energies."""

import pytest
import torch

from harness.detect.inference import fused
from harness.features.views import pooled
from harness.methods.fastflow import FastFlow
from harness.run.process import arithmetic_inside


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_energies_equal_the_plain_path(backbone, precision, error):
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = FastFlow(shapes, norm="layer", flow_steps=3, kernels=(3, 1)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.energies(backbone(images)).taps
    for (e, j), (e_fast, j_fast) in zip(plain, fused(backbone, model, precision=precision)(images),
                                        strict=True):  # fmt: skip
        torch.testing.assert_close(e_fast, e, rtol=error, atol=error)
        torch.testing.assert_close(j_fast, j, rtol=error, atol=error)


def test_pooled_features_are_pooled_here_too(backbone):
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = FastFlow(shapes, norm="layer", flow_steps=1, kernels=(3,)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.energies([pooled(tap, 3) for tap in backbone(images)]).taps
    for (e, _), (fast, _) in zip(plain, fused(backbone, model, pooling=3)(images), strict=True):
        torch.testing.assert_close(fast, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_float32_is_float32_on_a_gpu_too_unless_tf32_is_asked_for(backbone, precision):
    """Torch's own default is TF32 for convolutions."""
    convolutions, products, seen = torch.backends.cudnn, torch.backends.cuda.matmul, []
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = FastFlow(shapes, norm="layer", flow_steps=1, kernels=(3,)).eval()
    path = fused(backbone, model, precision=precision)
    original = FastFlow.energies

    def spy(model, features):
        seen.append((convolutions.allow_tf32, products.allow_tf32))
        return original(model, features)

    with pytest.MonkeyPatch.context() as patch, arithmetic_inside(tf32=False):
        patch.setattr(FastFlow, "energies", spy)
        convolutions.allow_tf32 = True
        path(torch.randn(2, 3, 64, 64))
        assert (convolutions.allow_tf32, products.allow_tf32) == (True, False)
    assert seen == [(precision == "tf32", precision == "tf32")]


def test_the_path_keeps_the_weights_that_it_was_made_of(backbone):
    shapes = [(s.channels, s.height, s.width) for s in backbone.shapes()]
    model = FastFlow(shapes, norm="layer", flow_steps=2, kernels=(3,)).eval()
    path, images = fused(backbone, model), torch.randn(2, 3, 64, 64)
    before = path(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for (a, _), (b, _) in zip(before, path(images), strict=True):
        assert torch.equal(a, b)

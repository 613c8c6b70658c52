"""Norms before the flow, in float64 where it is mathematics."""

import pytest
import torch

from harness.methods.fastflow import FastFlow
from harness.methods.norms import FLOOR, NORMS, LayerNorm, Surveyed, survey


def correlated(channels=4, images=64, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    x = torch.randn(images, channels, side, side, generator=generator, dtype=torch.float64)
    return torch.einsum("dc,bchw->bdhw", mixing, x) + 3


def rows(x):
    return x.permute(1, 0, 2, 3).flatten(1)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_whitened_channels_have_unit_covariance(batch):
    x = correlated()
    norm = Surveyed(4, correlated=True).double()
    survey([norm], [[part] for part in x.split(batch)])
    y = rows(norm(x))
    torch.testing.assert_close(y.mean(1), torch.zeros(4).double(), atol=1e-9, rtol=0)
    covariance = y @ y.T / y.shape[1]
    torch.testing.assert_close(covariance, torch.eye(4).double(), atol=1e-8, rtol=0)


def test_standardised_channels_keep_their_correlation():
    x = correlated()
    norm = Surveyed(4, correlated=False).double()
    survey([norm], [[x]])
    torch.testing.assert_close(rows(norm(x)).corrcoef(), rows(x).corrcoef())
    torch.testing.assert_close(
        rows(norm(x)).std(1, correction=0), torch.ones(4).double(), atol=1e-9, rtol=0
    )


def test_whitening_is_symmetric_and_moves_features_least():
    norm = Surveyed(4, correlated=True).double()
    survey([norm], [[correlated()]])
    torch.testing.assert_close(norm.matrix, norm.matrix.T)
    assert bool((torch.linalg.eigvalsh(norm.matrix) > 0).all())


@pytest.mark.parametrize("correlated_", [False, True])
def test_a_dead_channel_is_not_blown_up(correlated_):
    x = correlated()
    x[:, 2] = 0.5
    norm = Surveyed(4, correlated=correlated_).double()
    survey([norm], [[x]])
    assert torch.linalg.eigvalsh(norm.matrix)[-1] <= (
        1.0001 / (FLOOR * rows(x).cov(correction=0).diag().max()).sqrt()
    )
    assert bool(norm(x).isfinite().all())
    assert norm(x)[:, 2].abs().max() < 1e-3


def test_nothing_is_read_where_no_norm_asks():
    def never():
        raise AssertionError("read")
        yield

    survey([NORMS[n](4, 2, 2) for n in ("none", "layer", "batch")], never())


def test_a_norm_of_all_images_is_kept_and_counted():
    model = FastFlow([(4, 8, 8), (2, 4, 4)], norm="whiten", flow_steps=1, kernels=(1,))
    x = [correlated().float(), correlated(2, side=4).float()]
    model.survey([x[:1] + x[1:]])
    assert model.bank_bytes == 4 * (4 + 16 + 2 + 4)
    assert model.count_parameters()["norm"] == 0
    again = FastFlow([(4, 8, 8), (2, 4, 4)], norm="whiten", flow_steps=1, kernels=(1,))
    again.load_state_dict(model.state_dict())
    for norm, feature in zip(again.norms, x, strict=True):
        assert rows(norm(feature)).std(1).sub(1).abs().max() < 0.01
    assert isinstance(NORMS["layer-affine"](2, 4, 4), LayerNorm)


def test_it_is_float32_under_autocast_and_works_on_the_meta_device():
    norm = Surveyed(4, correlated=True)
    survey([norm], [[correlated().float()]])
    x = correlated(seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x), norm(x), rtol=0, atol=0)
        assert norm(x).dtype == torch.float32
    assert norm.to("meta")(x.to("meta")).shape == x.shape

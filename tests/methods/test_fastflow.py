"""FastFlow: its likelihood against the change of variables, its energies, norms and seeds."""

import math

import pytest
import torch
from torch.distributions import Normal

from harness.experiment.variant import Variant
from harness.methods.fastflow import FastFlow, _HalfSquares
from harness.methods.flow.position import positional_encoding
from harness.methods.flow.step import run_chain
from harness.methods.norms import NORMS, LayerNorm
from harness.run.model import make_model

SHAPES = ((4, 3, 2), (6, 2, 1))
FLOW = {"flow_steps": 2, "kernels": (3, 1), "subnet_scale": 0.3}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(norm="none", seed=0, **flow):
    torch.manual_seed(seed)
    return FastFlow(SHAPES, norm=norm, **(FLOW | flow))


def features(batch=3):
    return [3 * draw(batch, *shape, seed=i) + 1 for i, shape in enumerate(SHAPES)]


def jacobian(function, x):
    """Of one sample x (C, H, W), by a copy of it for every output."""
    copies = x.expand(x.numel(), *x.shape).clone().requires_grad_()
    eye = torch.eye(x.numel(), dtype=x.dtype)
    (grad,) = torch.autograd.grad(function(copies).flatten(1), copies, eye)
    return grad.flatten(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("coupling", ["one-sided", "two-sided"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_nll_is_the_change_of_variables(norm, coupling, reduction):
    """−log N(z; 0, I) − log|det dz/dx| of the normalised features, without the constant."""
    model = make(norm, coupling=coupling).double().eval()
    xs = [x.double() for x in features()]
    expected = torch.zeros(3, dtype=torch.float64)
    for norm_, flow, x in zip(model.norms, model.flows, xs, strict=True):
        x = norm_(x).detach()
        dims = x[0].numel()
        for i in range(3):
            z = flow(x[i : i + 1])[0]
            log_det = torch.linalg.slogdet(jacobian(lambda x, f=flow: f(x)[0], x[i])).logabsdet
            nll = -Normal(0, 1).log_prob(z).sum() - 0.5 * math.log(2 * math.pi) * dims - log_det
            expected[i] += nll / (dims if reduction == "mean" else 1)
    actual = model.nll(xs, reduction=reduction)
    assert actual.shape == (3,)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_learned_base_is_a_normal_distribution_of_every_channel():
    """−log N(z; μ, σ) − log|det dz/dx|, z of the flow alone; energy − log_det is its mean."""
    model = make(base="learned", coupling="two-sided").double().eval()
    for i, parameter in enumerate(model.bases.parameters()):
        parameter.data += 0.5 * draw(*parameter.shape, seed=i).double()
    xs = [x.double() for x in features()]
    total = torch.zeros(3, dtype=torch.float64)
    taps = model.energies(xs).taps
    for flow, base, x, (energy, share) in zip(model.flows, model.bases, xs, taps, strict=True):
        z, log_det = flow(x)
        law = Normal(base.mean[:, None, None], base.log_sigma.exp()[:, None, None])
        log_p = law.log_prob(z) + 0.5 * math.log(2 * math.pi)
        nll = -log_p.sum((1, 2, 3)) - log_det
        total += nll.detach()
        dims = x.shape[1]
        torch.testing.assert_close(
            ((energy - share).double() * dims).sum((1, 2)), nll, rtol=1e-5, atol=1e-5
        )
        wanted = 0.5 * ((z - law.mean) / law.stddev).square().mean(1)
        torch.testing.assert_close(energy.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        model.nll(xs, reduction="sum").double(), total, rtol=1e-5, atol=1e-5
    )


def test_every_subnet_sees_where_it_is():
    """The change of variables holds under the condition, and equal features differ by place."""
    model = make(position_channels=8, kernels=(1,)).double()
    seen = []
    for step in (s for flow in model.flows for s in flow):
        step.subnet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = [torch.ones(1, *shape, dtype=torch.float64) for shape in SHAPES]
    plain = [run_chain(f, x_, model._position(i, x_)) for i, (f, x_) in
              enumerate(zip(model.flows, x, strict=True))]  # fmt: skip
    for i, given in enumerate(seen):
        code = positional_encoding(8, *SHAPES[i // 2][1:]).double()
        assert torch.equal(given[:, -8:], code)
    for (z, log_det), shape, (z_, log_det_) in zip(plain, SHAPES, model(x), strict=True):
        assert z[0].flatten(1).std(1).max() > 1e-4, shape  # 1×1 kernels see no border
        torch.testing.assert_close(z_, z, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_det_, log_det, rtol=0, atol=1e-12)
    flow, code = model.flows[0], model._position(0, x[0])
    sample = draw(*SHAPES[0]).double()
    _, log_det = run_chain(flow, sample[None], code)

    def z_of(copies):
        return run_chain(flow, copies, code.expand(len(copies), -1, -1, -1))[0]

    truth = torch.linalg.slogdet(jacobian(z_of, sample)).logabsdet
    torch.testing.assert_close(log_det.sum(), truth, rtol=1e-9, atol=1e-9)


def test_a_learned_base_starts_as_the_standard_one():
    one, other = make(), make(base="learned")
    assert torch.equal(
        one.nll(features(), reduction="sum"), other.nll(features(), reduction="sum")
    )
    added = other.count_parameters()["flow"] - one.count_parameters()["flow"]
    assert added == 2 * sum(channels for channels, _, _ in SHAPES)


@pytest.mark.parametrize("norm", NORMS)
def test_forward_is_freias_chain(norm):
    """The same z as FrEIA's own forward, and its log-determinant spread over the positions."""
    model = make(norm).eval()
    pairs = model(features())
    for norm_, flow, x, (z, log_det) in zip(
        model.norms, model.flows, features(), pairs, strict=True
    ):
        expected, total = flow(norm_(x))
        torch.testing.assert_close(z, expected)
        assert log_det.shape == (3, *z.shape[2:])
        torch.testing.assert_close(log_det.sum((1, 2)), total)


def test_energies():
    model = make("layer")
    for shape, (z, log_det), (energy, share) in zip(
        SHAPES, model(features()), model.energies(features()).taps, strict=True
    ):
        assert energy.shape == share.shape == (3, *shape[1:])
        assert energy.dtype == share.dtype == torch.float32
        torch.testing.assert_close(energy, (z**2).sum(1) / (2 * shape[0]))
        torch.testing.assert_close(share, log_det / shape[0])


def test_energies_add_up_to_the_nll():
    model = make("layer")
    total = sum(
        shape[0] * (energy - log_det).sum((1, 2))
        for shape, (energy, log_det) in zip(SHAPES, model.energies(features()).taps, strict=True)
    )
    torch.testing.assert_close(total, model.nll(features(), reduction="sum"))


def test_energies_build_no_graph_and_are_float32_in_any_precision():
    with torch.autocast("cpu", torch.bfloat16):
        energies = make("layer").energies(features()).taps
    energies += make("none").bfloat16().energies([x.bfloat16() for x in features()]).taps
    assert all(t.dtype == torch.float32 and not t.requires_grad for pair in energies for t in pair)


def test_nll_is_trainable_and_does_not_touch_the_features():
    model = make("layer-affine")
    inputs = features()
    model.nll(inputs, reduction="mean").mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.testing.assert_close(inputs, features(), rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("actnorm", ["none", "affine", "data"])
def test_equal_seeds_give_equal_states(norm, actnorm):
    one, same, other = (make(norm, seed, actnorm=actnorm).state_dict() for seed in (5, 5, 6))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert any(not torch.equal(one[k], other[k]) for k in one if "subnet" in k)
    assert any(not torch.equal(one[k], other[k]) for k in one if k.endswith("perm"))


@pytest.mark.parametrize("norm", NORMS)
def test_train_and_eval_return_the_same(norm):
    def outline(pairs):
        return [[(type(t), t.shape, t.dtype) for t in pair] for pair in pairs]

    model = make(norm)
    trained, evaluated = model.train()(features()), model.eval()(features())
    assert outline(trained) == outline(evaluated)
    if norm != "batch":
        torch.testing.assert_close(trained, evaluated, rtol=0, atol=0)


def test_another_number_of_taps_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        make()(features()[:1])


@pytest.mark.parametrize(
    ("norm", "dims"), [("layer", (1, 2, 3)), ("layer-affine", (1, 2, 3)), ("batch", (0, 2, 3))]
)
def test_norms_normalise_over_their_dimensions(norm, dims):
    for x, module in zip(features(8), make(norm).train().norms, strict=True):
        y = module(x)
        assert y.mean(dims).abs().max() < 1e-5
        assert (y.var(dims, correction=0) - 1).abs().max() < 1e-4
        assert y.mean(list({0, 1, 2, 3} - set(dims))).abs().max() > 1e-2


def test_no_norm_is_the_identity():
    assert all(torch.equal(n(x), x) for n, x in zip(make().norms, features(), strict=True))


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        ("none", 0),
        ("layer", 0),
        ("layer-affine", 2 * (4 * 3 * 2 + 6 * 2 * 1)),
        ("batch", 2 * (4 + 6)),
    ],
)
def test_parameters_of_the_norms(norm, count):
    assert sum(p.numel() for p in make(norm).norms.parameters()) == count


def test_parameters_equal_gathierrys_printout():
    shapes = ((64, 64, 64), (128, 32, 32), (256, 16, 16))
    with torch.device("meta"):
        model = FastFlow(shapes, norm="layer-affine", flow_steps=8, kernels=(3,))
    assert sum(p.numel() for p in model.parameters()) == 5_574_912


@pytest.mark.parametrize("norm", NORMS)
def test_initialise_normalises_the_input_of_every_step(norm):
    """Step after step: each ActNorm sees what the steps before it, initialised, give."""
    model = make(norm, flow_steps=3, actnorm="data").eval()
    inputs = features(64)
    model.initialise(inputs)
    for norm_, flow, x in zip(model.norms, model.flows, inputs, strict=True):
        x = norm_(x)
        for step in flow:
            scale, shift, _ = step.affine.coefficients()
            y = x * scale + shift
            assert y.mean((0, 2, 3)).abs().max() < 1e-5
            assert (y.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
            x = step.transform(x)[0]


@pytest.mark.parametrize(
    "change",
    [{"coupling": "two-sided"}, {"kernels": (3, 1)}, {"hidden_channels": 7}, {"actnorm": "data"}],
    ids=str,
)
def test_a_seeds_permutations_do_not_depend_on_the_variant(change):
    """Changing one field changes nothing else: with one seed, the permutations stay."""
    one, other = (
        [b for k, b in make_model(v, SHAPES, 0).named_buffers() if k.endswith("perm")]
        for v in (Variant(flow_steps=3), Variant(flow_steps=3, **change))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_is_torchs_in_any_layout(layout, affine):
    ours = LayerNorm([3, 4, 5], elementwise_affine=affine).double()
    torchs = torch.nn.LayerNorm([3, 4, 5], elementwise_affine=affine).double()
    for parameter in ours.parameters():
        parameter.data += torch.randn_like(parameter)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    pairs = []
    for norm in (ours, torchs):
        y = norm(x)
        (grads := torch.autograd.grad(y.pow(3).sum(), [x, *norm.parameters()]))
        pairs.append((y, *grads))
    torch.testing.assert_close(*pairs)
    assert pairs[0][0].is_contiguous(memory_format=layout)


def test_half_squares_have_autograds_gradient():
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_HalfSquares.apply, z)
    torch.testing.assert_close(_HalfSquares.apply(z), 0.5 * z.square().sum(1))
    zero = torch.zeros(1, 2, 1, 1, requires_grad=True)
    _HalfSquares.apply(zero).sum().backward()
    assert zero.grad.eq(0).all()

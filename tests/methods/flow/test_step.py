"""The flow step in float64: equal to FrEIA's blocks, and the mathematics as a property table."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, AllInOneBlock, GLOWCouplingBlock
from torch import nn

from harness.methods.flow.affine import ActNorm
from harness.methods.flow.step import CLAMPS, FlowStep, _Permute, make_flow
from harness.methods.flow.subnet import make_subnet

BATCH = 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}
ALL_IN_ONE = {"coupling": "one-sided", "actnorm": "affine", "permutation": "random"} | {
    "clamp": "tanh", "clamp_value": 2.0, "subnet_scale": 0.1,
}  # fmt: skip
BARE = {"actnorm": "none", "permutation": "none", "subnet_scale": 1.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def randomise(module, deviation, seed=0):
    """Generic weights: no zero offset and no unit scale hides a term."""
    drawn = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(deviation * torch.randn(p.shape, dtype=p.dtype, generator=drawn))
    return module


# --- equal to FrEIA -----------------------------------------------------------------------------


def subnets(kernel, hidden):
    """FrEIA's subnet constructor, written without the harness."""
    return lambda given, out: nn.Sequential(
        nn.Conv2d(given, hidden, kernel, padding=(kernel - 1) // 2),
        nn.ReLU(),
        nn.Conv2d(hidden, out, kernel, padding=(kernel - 1) // 2),
    )


def twin_names(names, block):
    """Our parameter name → FrEIA's."""
    renamed = {"affine.global_scale": "global_scale", "affine.global_offset": "global_offset"}
    if isinstance(block, GLOWCouplingBlock):
        renamed |= {n: n.replace("subnet_back", "subnet2").replace("subnet.", "subnet1.")
                    for n in names}  # fmt: skip
    return {n: renamed.get(n, n) for n in names}


def copy_into(block, step):
    """The step's parameters into FrEIA's block; FrEIA's permutation into the step."""
    theirs = dict(block.named_parameters())
    ours = dict(step.named_parameters())
    for name, twin in twin_names(ours, block).items():
        theirs[twin].data.copy_(ours[name].data)
    if isinstance(block, AllInOneBlock):
        # Row i of the 1x1 convolution has its one in the column that output channel i reads.
        step.perm.copy_(block.w_perm.flatten(1).argmax(1))
        step.perm_inverse.copy_(block.w_perm_inv.flatten(1).argmax(1))


def trainable(steps, blocks):
    """Pairs (ours, theirs) of every trainable parameter; neither side has one more."""
    pairs = []
    for step, block in zip(steps, blocks, strict=True):
        ours = dict(step.named_parameters())
        theirs = {n: p for n, p in block.named_parameters() if p.requires_grad}
        names = twin_names(ours, block)
        assert set(names.values()) == set(theirs)
        pairs += [(ours[n], theirs[twin]) for n, twin in names.items()]
    return pairs


def result(function, parameters, x, *, rev):
    """Output, log-det, and the gradients by input and parameters of a generic function of both."""
    x = x.clone().requires_grad_()
    y, log_det = function(x, rev)
    loss = (y * draw(*y.shape, seed=8)).sum() + (log_det * draw(*log_det.shape, seed=9)).sum()
    return [y, log_det, *torch.autograd.grad(loss, [x, *parameters])]


def assert_equal_to_freia(ours, theirs, pairs, x):
    for rev in (False, True):
        a = result(ours, [p for p, _ in pairs], x, rev=rev)
        b = result(theirs, [p for _, p in pairs], x, rev=rev)
        for ours_, theirs_ in zip(a, b, strict=True):
            torch.testing.assert_close(ours_, theirs_, **EXACT)


def one_step(module):
    def function(x, rev):
        (y,), log_det = module([x], rev=rev)
        return y, log_det

    return function


@pytest.fixture(autouse=True)
def freia_permutation(monkeypatch):
    """FrEIA 0.2 draws its permutation from NumPy's global generator: here from a seeded one."""
    monkeypatch.setattr(np.random, "permutation", np.random.default_rng(3).permutation)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [2, 5, 6, 9])
def test_step_equals_freia_all_in_one_block(channels, kernel):
    dims = [(channels, 4, 3)]
    step = FlowStep(dims, kernel=kernel, hidden_channels=7, **ALL_IN_ONE).double()
    randomise(step, 1.0)
    build = subnets(kernel, 7)
    block = AllInOneBlock(dims, subnet_constructor=build, affine_clamping=2.0).double()
    copy_into(block, step)
    x = draw(BATCH, *dims[0])
    assert_equal_to_freia(one_step(step), one_step(block), trainable([step], [block]), x)


@pytest.mark.parametrize("channels", [5, 6])
def test_chain_equals_freia_all_in_one_blocks(channels):
    dims = (channels, 4, 3)
    kernels = (3, 1, 3, 1)
    flow = make_flow(*dims, flow_steps=4, kernels=(3, 1), hidden_channels=7, **ALL_IN_ONE).double()
    randomise(flow, 0.5)
    chain = SequenceINN(*dims)
    for kernel in kernels:
        chain.append(AllInOneBlock, subnet_constructor=subnets(kernel, 7))
    chain.double()
    for step, block in zip(flow, chain, strict=True):
        copy_into(block, step)
    assert len({tuple(s.perm.tolist()) for s in flow}) > 1
    pairs = trainable(flow, chain)
    x = draw(BATCH, *dims)
    assert_equal_to_freia(
        lambda x, rev: flow(x, rev=rev), lambda x, rev: chain(x, rev=rev), pairs, x
    )


@pytest.mark.parametrize("block", [GLOWCouplingBlock, AffineCouplingOneSided])
@pytest.mark.parametrize("clamp", ["atan", "tanh", "sigmoid"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [5, 6, 7])
def test_step_equals_freia_coupling_blocks(block, clamp, kernel, channels):
    dims = [(channels, 4, 3)]
    coupling = "two-sided" if block is GLOWCouplingBlock else "one-sided"
    step = FlowStep(
        dims, kernel=kernel, hidden_channels=7, coupling=coupling,
        clamp=clamp, clamp_value=1.7, **BARE,
    ).double()  # fmt: skip
    randomise(step, 0.3)
    # For 5 channels FrEIA's own split_len=0.5 rounds to even, (2, 3); ours and AllInOneBlock's
    # is (3, 2).
    theirs = block(
        dims, subnet_constructor=subnets(kernel, 7), clamp=1.7, clamp_activation=clamp.upper(),
        split_len=channels - channels // 2,
    ).double()  # fmt: skip
    copy_into(theirs, step)
    x = draw(BATCH, *dims[0])
    assert_equal_to_freia(one_step(step), one_step(theirs), trainable([step], [theirs]), x)


def test_clamps_by_pencil():
    bounds = {name: clamp(torch.tensor(1e9), 2.0).item() for name, clamp in CLAMPS.items()}
    slopes = {name: clamp(torch.tensor(1e-3), 2.0).item() * 1e3 for name, clamp in CLAMPS.items()}
    assert bounds == {
        "none": 1e9, "tanh": 2.0, "tanh-unit": 2.0, "sigmoid": 2.0,
        "atan": pytest.approx(2 * 0.636 * math.pi / 2),
        "atan-unit": pytest.approx(2 * 0.636 * math.pi / 2),
    }  # fmt: skip
    expected = {"none": 1.0, "tanh": 2.0, "tanh-unit": 1.0, "sigmoid": 1.0}
    expected |= {"atan": 2 * 0.636, "atan-unit": 0.636}
    assert slopes == pytest.approx(expected, rel=1e-3)


# --- the property table -------------------------------------------------------------------------

COUPLINGS = ("one-sided", "two-sided")
ACTNORMS = ("none", "affine", "data")
PERMUTATIONS = ("none", "random", "reverse")
KERNELS = ((3,), (1,), (3, 1))
SHAPES = ((4, 3, 3), (5, 2, 3))
every_flow = pytest.mark.parametrize(
    ("coupling", "actnorm", "permutation", "clamp", "kernels"),
    list(product(COUPLINGS, ACTNORMS, PERMUTATIONS, CLAMPS, KERNELS)),
    ids=str,
)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def build(shape, coupling, actnorm, permutation, clamp, kernels, **step):
    """A flow of two steps with generic weights, its ActNorms initialised."""
    flow = make_flow(
        *shape, flow_steps=2, kernels=kernels, coupling=coupling, actnorm=actnorm,
        permutation=permutation, clamp=clamp, clamp_value=1.5, subnet_scale=0.2,
        hidden_channels=6, generator=generator(), **step,
    ).double()  # fmt: skip
    randomise(flow, 0.3)
    x = 2 * draw(16, *shape, seed=1) + 1
    for step in flow:
        x = step.initialise(x)
    return flow


def jacobians(function, x):
    """The Jacobian of every sample, (B, D, D): each output's gradient on a copy of its own."""
    dims = x[0].numel()
    copies = x.repeat_interleave(dims, dim=0).requires_grad_()
    rows = torch.eye(dims, dtype=x.dtype).repeat(len(x), 1)
    (grad,) = torch.autograd.grad(function(copies).flatten(1), copies, rows)
    return grad.reshape(len(x), dims, dims)


@every_shape
@every_flow
def test_flow_is_invertible_and_its_log_det_is_the_jacobians(
    shape, coupling, actnorm, permutation, clamp, kernels
):
    flow = build(shape, coupling, actnorm, permutation, clamp, kernels)
    x = draw(BATCH, *shape)
    z, log_det = flow(x)
    back, log_det_back = flow(z, rev=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    assert log_det.shape == log_det_back.shape == (BATCH,)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-9)
    truth = torch.linalg.slogdet(jacobians(lambda x: flow(x)[0], x)).logabsdet
    torch.testing.assert_close(log_det, truth, rtol=0, atol=1e-8)
    assert log_det.std() > 1e-3  # it depends on the sample


@every_shape
@pytest.mark.parametrize(("coupling", "actnorm"), list(product(COUPLINGS, ACTNORMS)))
def test_additive_coupling_is_invertible_and_keeps_the_volume(shape, coupling, actnorm):
    flow = build(shape, coupling, actnorm, "random", "none", (3, 1), coupling_function="additive")
    x = draw(BATCH, *shape)
    z, log_det = flow(x)
    torch.testing.assert_close(flow(z, rev=True)[0], x, rtol=0, atol=1e-9)
    truth = torch.linalg.slogdet(jacobians(lambda x: flow(x)[0], x)).logabsdet
    torch.testing.assert_close(log_det, truth, rtol=0, atol=1e-8)
    assert log_det.std() < 1e-12  # it is the affines' alone, the same for every sample


def test_additive_coupling_by_pencil():
    step = FlowStep([(4, 2, 2)], kernel=1, coupling_function="additive", **BARE).double()
    assert step.subnet[-1].out_channels == 2  # the shift of one half alone
    x = draw(BATCH, 4, 2, 2)
    y, _ = step.transform(x)
    torch.testing.assert_close(y, torch.cat((x[:, :2], x[:, 2:] + step.subnet(x[:, :2])), 1))


@every_flow
def test_gradients_reach_every_parameter(coupling, actnorm, permutation, clamp, kernels):
    flow = build(SHAPES[0], coupling, actnorm, permutation, clamp, kernels)
    z, log_det = flow(draw(BATCH, *SHAPES[0]))
    (0.5 * z.square().sum() - log_det.sum()).backward()
    for name, p in flow.named_parameters():
        assert p.requires_grad, name
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize(("coupling", "actnorm"), list(product(COUPLINGS, ACTNORMS)))
def test_log_det_per_position(coupling, actnorm, rev):
    """With 1x1 kernels a position is a flow of its own; any kernel: the positions sum up."""
    for kernels in ((1,), (3,)):
        flow = build((5, 2, 3), coupling, actnorm, "random", "tanh", kernels)
        x = draw(BATCH, 5, 2, 3)
        y, per_position = flow[0].transform(x, rev=rev)
        (y_forward,), log_det = flow[0]([x], rev=rev)
        assert per_position.shape == (BATCH, 2, 3)
        torch.testing.assert_close(y, y_forward, rtol=0, atol=0)
        torch.testing.assert_close(per_position.sum((1, 2)), log_det, **EXACT)
        if kernels == (1,):
            for i, j in product(range(2), range(3)):
                _, alone = flow[0]([x[:, :, i : i + 1, j : j + 1]], rev=rev)
                torch.testing.assert_close(per_position[:, i, j], alone, **EXACT)


def test_samples_do_not_see_each_other():
    flow = build(SHAPES[0], "two-sided", "data", "random", "tanh", (3, 1))
    x = draw(BATCH, *SHAPES[0])
    z, log_det = flow(x)
    for i in range(BATCH):
        alone, log_det_alone = flow(x[i : i + 1])
        torch.testing.assert_close(alone[0], z[i], **EXACT)
        torch.testing.assert_close(log_det_alone[0], log_det[i], **EXACT)


def test_permutation_gathers_and_its_gradients_are_exact():
    perm = torch.tensor([2, 0, 3, 1])  # not its own inverse
    inverse = torch.argsort(perm)
    x = draw(2, 4, 1, 2).requires_grad_()
    assert torch.equal(_Permute.apply(x, perm, inverse), x[:, perm])
    assert torch.autograd.gradcheck(lambda x: _Permute.apply(x, perm, inverse).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: _Permute.apply(x, perm, inverse).pow(3), x)


@pytest.mark.parametrize(
    ("permutation", "expected"), [("none", [0, 1, 2, 3, 4]), ("reverse", [4, 3, 2, 1, 0])]
)
def test_fixed_permutations(permutation, expected):
    assert FlowStep([(5, 2, 2)], permutation=permutation).perm.tolist() == expected


def test_random_permutation_is_the_generators():
    first, again, other = (
        FlowStep([(64, 2, 2)], generator=generator(seed)).perm.tolist() for seed in (0, 0, 1)
    )
    assert sorted(first) == list(range(64))
    assert first == again != other


# --- coupling changes nothing else --------------------------------------------------------------


def pair(actnorm, clamp="tanh"):
    """The same settings and seed, one-sided and two-sided."""
    flows = []
    for coupling in COUPLINGS:
        torch.manual_seed(0)
        flows.append(
            make_flow(
                6, 3, 3, flow_steps=3, kernels=(3, 1), coupling=coupling, actnorm=actnorm,
                clamp=clamp, generator=generator(),
            ).double()
        )  # fmt: skip
    return flows


@pytest.mark.parametrize("actnorm", ACTNORMS)
def test_coupling_leaves_permutation_and_affine(actnorm):
    one, two = ({k: v for k, v in flow.state_dict().items() if ".subnet" not in k}
                for flow in pair(actnorm))  # fmt: skip
    assert any("perm" in k for k in one)
    torch.testing.assert_close(two, one, rtol=0, atol=0)


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("actnorm", ACTNORMS)
def test_two_sided_with_a_silent_second_subnet_is_one_sided(actnorm, clamp):
    one, two = pair(actnorm, clamp)
    two.load_state_dict(randomise(one, 1.0).state_dict(), strict=False)
    for step in two:
        nn.init.zeros_(step.subnet_back[-1].weight)
        nn.init.zeros_(step.subnet_back[-1].bias)
    x = draw(BATCH, 6, 3, 3)
    torch.testing.assert_close(two(x), one(x), rtol=0, atol=0)


# --- ActNorm ------------------------------------------------------------------------------------


def test_data_actnorm_leaves_mean_0_and_deviation_1():
    x = 5 * draw(32, 6, 4, 4) * torch.arange(1, 7).view(1, 6, 1, 1) - 3
    step = FlowStep([(6, 4, 4)], actnorm="data").double()
    step.affine.initialise(x)
    scale, shift, log_scale = step.affine.coefficients()
    y = x * scale + shift
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        y.std((0, 2, 3), correction=0), torch.ones(6).double(), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(log_scale, scale.log())


def test_data_actnorm_comes_before_the_coupling():
    """Fig. 2: what the subnet is given is already normalised."""
    x = 5 * draw(32, 6, 4, 4) - 3
    step = FlowStep([(6, 4, 4)], actnorm="data").double()
    seen = []
    step.subnet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = step.initialise(x)
    (given,) = seen
    assert given.mean((0, 2, 3)).abs().max() < 1e-6
    assert (given.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    torch.testing.assert_close(output, step([x])[0][0], rtol=0, atol=0)


def test_data_actnorm_is_the_identity_until_initialised():
    x = draw(2, 4, 3, 3)
    scale, shift, log_scale = ActNorm(4).double().coefficients()
    assert torch.equal(x * scale + shift, x)
    assert not log_scale.any()


def test_data_actnorm_keeps_a_constant_channel_finite():
    x = draw(8, 4, 3, 3)
    x[:, 1] = 7.0
    step = FlowStep([(4, 3, 3)], actnorm="data", permutation="none").double()
    y = step.initialise(x)
    assert y.isfinite().all()
    assert all(p.isfinite().all() for p in step.parameters())
    scale, shift, _ = step.affine.coefficients()
    assert (x * scale + shift)[:, 1].abs().max() < 1e-3


# --- widths and parameters ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "width", "hidden", "hidden_back"),
    [
        (10, {}, 5, 5),
        (11, {}, 6, 5),  # the ratio is of each subnet's own input
        (768, {"hidden_ratio": 0.16}, 61, 61),
        (10, {"hidden_ratio": 0.35}, 1, 1),  # 1.75, truncated
        (4, {"hidden_ratio": 0.1}, 1, 1),
        (10, {"hidden_ratio": 2.0}, 10, 10),
        (11, {"hidden_channels": 128, "hidden_ratio": 0.5}, 128, 128),
    ],
)
def test_hidden_width(channels, width, hidden, hidden_back):
    with torch.device("meta"):
        step = FlowStep([(channels, 2, 2)], coupling="two-sided", **width)
    first, second = channels - channels // 2, channels // 2
    convs = [step.subnet[0], step.subnet[2], step.subnet_back[0], step.subnet_back[2]]
    assert [(c.in_channels, c.out_channels) for c in convs] == [
        (first, hidden), (hidden, 2 * second), (second, hidden_back), (hidden_back, 2 * first),
    ]  # fmt: skip


RESNET18 = ((64, 64, 64), (128, 32, 32), (256, 16, 16))
WRN50 = ((256, 64, 64), (512, 32, 32), (1024, 16, 16))
DEIT = ((768, 24, 24),)


@pytest.mark.parametrize(
    ("shapes", "settings", "total"),
    [
        (RESNET18, {"flow_steps": 8, "kernels": (3,)}, 4_657_408),
        (RESNET18, {"flow_steps": 8, "kernels": (3, 1)}, 2_593_024),
        (WRN50, {"flow_steps": 8, "kernels": (3, 1)}, 41_337_856),
        (DEIT, {"flow_steps": 20, "kernels": (3, 1), "hidden_channels": 128}, 14_794_240),
        (
            DEIT,
            {"flow_steps": 20, "kernels": (3, 1), "hidden_channels": 64, "coupling": "two-sided"},
            14_809_600,
        ),
        (DEIT, {"flow_steps": 20, "kernels": (3, 1), "hidden_ratio": 0.16}, 7_074_500),
    ],
)
def test_parameters_equal_the_known_totals(shapes, settings, total):
    with torch.device("meta"):
        flows = [make_flow(*shape, **settings) for shape in shapes]
    assert sum(p.numel() for flow in flows for p in flow.parameters()) == total


def test_kernels_cycle_over_the_steps():
    flow = make_flow(4, 3, 3, flow_steps=5, kernels=(3, 1))
    assert [step.subnet[0].kernel_size[0] for step in flow] == [3, 1, 3, 1, 3]


def test_unknown_keyword_is_an_error():
    with pytest.raises(TypeError, match="kernal"):
        make_flow(4, 3, 3, flow_steps=1, kernels=(3,), kernal=1)


def test_init_gain_bounds_the_subnets_first_weights():
    torch.manual_seed(0)
    flow = make_flow(6, 3, 3, flow_steps=1, kernels=(3,), init_gain=0.02, coupling="two-sided")
    for conv in (flow[0].subnet[0], flow[0].subnet[2], flow[0].subnet_back[0]):
        fans = 9 * (conv.in_channels + conv.out_channels)
        bound = 0.02 * (6 / fans) ** 0.5  # Glorot and Bengio 2010, Eq. 16
        assert 0.5 * bound < conv.weight.abs().max() <= bound


def test_a_last_layer_of_zero_leaves_what_the_coupling_is_given():
    for coupling in COUPLINGS:
        settings = {**BARE, "coupling": coupling, "zero_last": True, "init_gain": 1.0}
        step = FlowStep([(6, 3, 3)], **settings).double()
        assert step.subnet[0].weight.any()
        x = draw(BATCH, 6, 3, 3)
        y, log_det = step.transform(x)
        assert torch.equal(y, x)
        assert not log_det.any()


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_norm_before_the_relu_keeps_the_flow_exact(norm):
    """Evaluated, so that a batch norm goes by its moments; those of a batch before."""
    flow = build(SHAPES[1], "two-sided", "affine", "random", "tanh", (3, 1), subnet_norm=norm)
    assert [type(m) for m in flow[0].subnet[2:]] == [nn.ReLU, nn.Conv2d]
    flow.eval()
    x = draw(BATCH, *SHAPES[1])
    z, log_det = flow(x)
    torch.testing.assert_close(flow(z, rev=True)[0], x, rtol=0, atol=1e-9)
    truth = torch.linalg.slogdet(jacobians(lambda x: flow(x)[0], x)).logabsdet
    torch.testing.assert_close(log_det, truth, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("norm", "over"), [("layer", (1,)), ("batch", (0, 2, 3))])
def test_a_subnets_norm_by_pencil(norm, over):
    subnet = make_subnet(4, 2, kernel=1, hidden=6, norm=norm).double()
    x = draw(BATCH, 4, 3, 3)
    a = subnet[0](x)
    variance, mean = torch.var_mean(a, dim=over, correction=0, keepdim=True)
    wanted = subnet[-1](((a - mean) / (variance + 1e-5).sqrt()).relu())
    torch.testing.assert_close(subnet(x), wanted, **EXACT)

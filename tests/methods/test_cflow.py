"""CFLOW-AD: the conditional step in float64, counts, chunks, scores by pencil."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.methods.cflow import CFLOW
from harness.methods.flow.position import positional_encoding
from harness.methods.flow.step import FlowStep, make_flow, run_chain

SHAPES = ((4, 4, 6), (6, 2, 3))
SMALL = {"flow_steps": 2, "condition": 8, "fibers": 16}
WRN50 = ((512, 32, 32), (1024, 16, 16), (2048, 8, 8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def features(images=3, seed=0):
    return [draw(images, *s, seed=seed + i, dtype=torch.float32) for i, s in enumerate(SHAPES)]


def build(seed=0, deviation=0.3, **changes):
    """A small CFLOW with generic weights."""
    torch.manual_seed(seed)
    model = CFLOW(SHAPES, generator=generator(seed), **SMALL | changes)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(deviation * torch.randn(p.shape))
    return model


# --- the conditional step -----------------------------------------------------------------------


def conditional(channels, coupling="one-sided", **settings):
    flow = make_flow(
        channels, 1, 1, flow_steps=3, kernels=(1,), condition=5, coupling=coupling,
        hidden_ratio=2.0, generator=generator(), **settings,
    ).double()  # fmt: skip
    with torch.no_grad():
        for i, p in enumerate(flow.parameters()):
            p.add_(draw(*p.shape, seed=i))
    return flow


@pytest.mark.parametrize(
    ("channels", "coupling"), list(product([4, 5], ["one-sided", "two-sided"]))
)
def test_conditional_flow_is_invertible_and_its_log_det_is_the_jacobians(channels, coupling):
    flow = conditional(channels, coupling)
    x, c = draw(3, channels, 1, 1), draw(3, 5, 1, 1, seed=1)
    z, log_det = flow(x, [c])
    back, log_det_back = flow(z, [c], rev=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-9)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, i=i: flow(x.view(1, channels, 1, 1), [c[i : i + 1]])[0].flatten(),
            x[i].flatten(),
        )
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)
    other, _ = flow(x, [c + 1])
    assert (other - z).abs().max() > 1e-3


def test_conditional_flow_equals_freia_all_in_one_blocks():
    flow = conditional(5, clamp_value=1.9)
    chain = SequenceINN(5)
    for step in flow:
        chain.append(
            AllInOneBlock, cond=0, cond_shape=(5,), affine_clamping=1.9,
            subnet_constructor=lambda i, o: nn.Sequential(
                nn.Linear(i, 2 * i), nn.ReLU(), nn.Linear(2 * i, o)
            ),
        )  # fmt: skip
        block, hard = chain[-1].double(), torch.eye(5).double()[step.perm]
        state = {"w_perm": hard, "w_perm_inv": hard.T}
        for name, p in step.named_parameters():
            state[name.removeprefix("affine.")] = p.flatten(2).squeeze(-1) if p.ndim > 1 else p
        block.load_state_dict(state)
    x, c = draw(7, 5), draw(7, 5, seed=1)
    z, log_det = flow(x[..., None, None], [c[..., None, None]])
    expected, expected_log_det = chain(x, [c])
    torch.testing.assert_close(z.flatten(1), expected)
    torch.testing.assert_close(log_det, expected_log_det)


def test_a_subnet_counts_the_condition_in_its_width():
    step = FlowStep([(7, 1, 1)], [(8, 1, 1)], kernel=1, hidden_ratio=2.0)
    assert [tuple(step.subnet[i].weight.shape[:2]) for i in (0, 2)] == [(24, 12), (6, 24)]


# --- what it is built of ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "total"),
    [
        (((768, 28, 28),), 10_512_384),  # CaiT; FastFlow's Table 1
        (WRN50, 81_647_616),
        (((128, 32, 32), (256, 16, 16), (512, 8, 8)), 8_620_032),  # ResNet18
    ],
)
def test_parameters_equal_the_published_counts(shapes, total):
    with torch.device("meta"):
        model = CFLOW(shapes)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == total
    assert model.bank_bytes == 0


def test_it_scores_on_the_meta_device():
    with torch.device("meta"):
        model = CFLOW(SHAPES, **SMALL)
        model.fill(10)
        with FlopCounterMode(display=False) as counter:
            taps = model.energies([torch.empty(2, *s) for s in SHAPES]).taps
    assert [tuple(e.shape) for e, _ in taps] == [(2, 4, 6), (2, 2, 3)]
    # Two 1x1 convolutions a step: 10 -> 20 -> 4 at 24 positions, 11 -> 22 -> 6 at 6.
    macs = 2 * 2 * (24 * (10 * 20 + 20 * 4) + 6 * (11 * 22 + 22 * 6))
    assert counter.get_total_flops() == 2 * macs


def test_encoding_by_pencil():
    code = positional_encoding(8, 3, 2)[0]
    assert code.shape == (8, 3, 2)
    row, column = 2, 1
    rates = (1.0, 0.01)
    expected = [f(p * r) for p in (column, row) for r in rates for f in (math.sin, math.cos)]
    assert code[:, row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_all_that_is_random_is_the_generators():
    first, again, other = (
        [p.tolist() for n, p in build(seed).named_buffers() if n.endswith("perm")]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    runs = []
    for _ in range(2):
        model = build()
        torch.manual_seed(len(runs))  # not the default generator's
        runs.append([loss.item() for loss in model.losses(features())])
    assert runs[0] == runs[1]


# --- losses -------------------------------------------------------------------------------------


def test_losses_are_of_whole_chunks_of_every_tap():
    """72 positions at the first tap: 4 chunks of 16. 18 at the second: one."""
    assert len(list(build().losses(features()))) == 5
    assert len(list(build(fibers=18).losses(features()))) == 5
    assert len(list(build(fibers=100).losses(features()))) == 2  # all there are


def test_losses_of_all_positions_are_those_of_the_scores():
    model, batch = build(fibers=1000), features()
    losses = list(model.losses(batch))
    for loss, (energy, log_det) in zip(losses, model.energies(batch).taps, strict=True):
        log_p = log_det - energy - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(loss.detach(), torch.log1p(torch.exp(-log_p)).mean())


def test_every_position_is_used_once_with_its_own_encoding():
    """Features that are their position's encoding: vector and condition must agree."""
    code = positional_encoding(8, 4, 6)
    model = CFLOW([(8, 4, 6)], flow_steps=1, condition=8, fibers=16, generator=generator())
    seen = []
    model.flows[0][0].subnet.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    list(model.losses([code.repeat(2, 1, 1, 1)]))
    given = torch.cat(seen, dim=-1)[0, :, 0]  # (4 + 8, 48): the first half, and the condition
    torch.testing.assert_close(given[:4], given[4:8], rtol=0, atol=0)
    twice = code.flatten(2)[0].T.repeat(2, 1)
    rows = sorted(map(tuple, given[4:].T.tolist()))
    assert rows == sorted(map(tuple, twice.tolist()))
    orders = [given[4:].T.tolist(), twice.tolist()]
    assert orders[0] != orders[1]


def test_training_lowers_the_loss_and_reaches_every_parameter():
    model = CFLOW(SHAPES, generator=generator(), **SMALL)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    epochs = []
    for _ in range(20):
        losses = []
        for loss in model.losses(features()):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        epochs.append(np.mean(losses))
    assert epochs[-1] < epochs[0] - 0.05
    assert all((p != before[n]).any() for n, p in model.named_parameters())


# --- scores -------------------------------------------------------------------------------------


def test_scores_are_the_flows_per_channel():
    model, batch = build(), features()
    for i, (energy, log_det) in enumerate(model.energies(batch).taps):
        code = model.get_buffer(f"encoding_{i}").expand(3, -1, -1, -1)
        z, expected = run_chain(model.flows[i], batch[i], code)
        torch.testing.assert_close(energy, 0.5 * z.detach().square().mean(1))
        torch.testing.assert_close(log_det, expected.detach() / z.shape[1])


def test_scores_by_pencil():
    """Without subnets a flow is its permutations: energy ½·mean x², and no log-determinant."""
    model = CFLOW([(2, 1, 2)], flow_steps=3, condition=4, generator=generator())
    with torch.no_grad():
        for step in model.flows[0]:
            for p in step.subnet.parameters():
                p.zero_()
    x = torch.tensor([[[[1.0, 0.0]], [[3.0, 2.0]]]])
    ((energy, log_det),) = model.energies([x]).taps
    torch.testing.assert_close(energy, torch.tensor([[[2.5, 1.0]]]))
    torch.testing.assert_close(log_det, torch.zeros(1, 1, 2), rtol=0, atol=1e-5)
    model.fit([x.numpy()])  # the best training position: energy 1
    ((energy, log_det),) = model.energies([x]).taps
    likelihood = torch.exp(log_det - energy)
    torch.testing.assert_close(likelihood, torch.tensor([[[math.exp(-1.5), 1.0]]]))


def test_fit_makes_one_the_largest_likelihood_of_the_training_images():
    model = build()
    train = [x.numpy() for x in features(images=35)]
    for _ in range(2):  # again: from the beginning
        model.fit(train)
        for energy, log_det in model.energies([torch.from_numpy(x) for x in train]).taps:
            assert (log_det - energy).amax().item() == pytest.approx(0.0, abs=1e-5)
    test = model.energies(features(seed=7))
    assert test.images is None
    assert "largest" in model.state_dict()


def test_the_loss_is_the_authors():
    """-log sigmoid of the log-likelihood per channel, constant included."""
    model = CFLOW([(2, 1, 1)], flow_steps=1, condition=4, generator=generator())
    with torch.no_grad():
        for p in model.flows[0][0].subnet.parameters():
            p.zero_()
    (loss,) = model.losses([torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)])
    log_p = -0.5 * 5 - 0.5 * math.log(2 * math.pi)
    assert loss.item() == pytest.approx(-F.logsigmoid(torch.tensor(log_p)).item(), rel=1e-5)

"""DifferNet: the flow in float64, counts, copies, scores by pencil."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.methods.differnet import DifferNet
from harness.methods.flow.subnet import make_subnet

SHAPES = ((6, 8, 1), (9, 8, 1))
SMALL = {"flow_steps": 2, "hidden_channels": 7}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def features(images=5, views=8, dtype=torch.float32):
    return [torch.randn(images, c, views, 1, generator=generator(), dtype=dtype) for c in (6, 9)]


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return DifferNet(SHAPES, generator=generator(seed), **SMALL | changes)


def test_flow_is_invertible_and_its_log_det_is_the_jacobians():
    model = build().double()
    x = torch.randn(3, 9, 1, 1, dtype=torch.float64, generator=generator())
    z, log_det = model.flow(x)
    back, _ = model.flow(z, rev=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: model.flow(x.view(1, 9, 1, 1))[0].flatten(), x[i].flatten()
        )
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)


def test_parameters_are_those_of_the_authors():
    """AlexNet: 3·256 channels, halves of 384; two subnets of four linear maps a block."""
    with torch.device("meta"):
        model = DifferNet([(768, 64, 1)])
    subnet = (384 + 1) * 2048 + 2 * (2048 + 1) * 2048 + (2048 + 1) * 768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 8 * 2 * subnet
    assert model.bank_bytes == 0


def test_subnets_have_hidden_layers():
    subnet = make_subnet(4, 8, kernel=1, hidden=7, hidden_layers=3)
    assert [conv.out_channels for conv in subnet[::2]] == [7, 7, 7, 8]
    assert all(isinstance(relu, torch.nn.ReLU) for relu in subnet[1::2])


def test_it_scores_on_the_meta_device():
    with torch.device("meta"):
        model = DifferNet(SHAPES, **SMALL)
        model.fill(10)
        with FlopCounterMode(display=False) as counter:
            scores = model.energies([torch.empty(2, *s) for s in SHAPES])
    assert scores.images.shape == (2,)
    subnets = (5 * 7 + 2 * 49 + 7 * 8) + (4 * 7 + 2 * 49 + 7 * 10)
    assert counter.get_total_flops() == 2 * 2 * 2 * 8 * subnets


def test_scores_by_pencil():
    """Silent subnets leave permutations: the mean of x² over copies and channels, per image."""
    model = build()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = torch.zeros(2, 9, 4, 1)
    x[1, :, 0] = 2.0  # one copy of four
    scores = model.energies([x[:, :6], x])
    assert scores.taps == []
    assert scores.images.tolist() == [0.0, 1.0]


def test_the_loss_is_the_mean_over_copies_per_channel():
    model, batch = build(views_per_step=8), features()
    (loss,) = model.losses(batch)
    rows = batch[1].permute(0, 2, 1, 3).reshape(40, 9, 1, 1)
    z, log_det = model.flow(rows)
    expected = (0.5 * z.square().sum((1, 2, 3)) - log_det).mean() / 9
    torch.testing.assert_close(loss, expected)
    (all_of_them,) = build(views_per_step=100).losses(batch)
    torch.testing.assert_close(all_of_them, loss)


def test_each_image_has_its_own_copies_every_step():
    model = build(views_per_step=4)
    seen = []
    model.flow[0].subnet_back.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    marked = torch.arange(5.0)[:, None] * 10 + torch.arange(8.0)  # image and copy
    batch = [marked[:, None, :, None].expand(-1, c, -1, -1) for c in (6, 9)]
    for _ in range(2):
        list(model.losses(batch))
    first, second = (sorted(s[:, 0, :, 0].sort(1).values.tolist()) for s in seen)
    assert all(len(set(row)) == 4 for row in first)
    assert [int(row[0] // 10) for row in first] == list(range(5))
    assert len({tuple(v % 10 for v in row) for row in first}) > 1
    assert first != second


def test_the_generator_decides():
    losses = [[next(build(seed).losses(features())).item() for _ in range(2)] for seed in (0, 1)]
    assert losses[0][0] == losses[0][1] != losses[1][0]


def test_held_out_images_draw_nothing():
    """All their copies count, so the loss is that of all of them, whatever was drawn before."""
    model, batch = build(views_per_step=4).eval(), features()
    before = model.generator.get_state()
    (loss,) = model.losses(batch)
    (all_of_them,) = build(views_per_step=8).losses(batch)
    torch.testing.assert_close(loss, all_of_them)
    assert torch.equal(model.generator.get_state(), before)


def test_training_lowers_the_loss():
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(30):
        (loss,) = model.losses(features())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 0.05
    assert all(p.grad is not None for p in model.parameters())

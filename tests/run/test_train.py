"""The training core."""

import math

import numpy as np
import pytest
import torch

from harness.errors import RunFailed
from harness.experiment.choices import METHODS
from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.methods.fastflow import FastFlow
from harness.run import train as core
from harness.run.model import make_model
from harness.run.noise import FeatureNoise
from harness.run.schedule import epochs_of, evaluations_of, factor_of
from harness.run.train import train as fit
from harness.run.turns import Turns

SHAPES = ((6, 4, 4), (8, 2, 2))
BASE = Variant(flow_steps=2, kernels=(3, 1), epochs=4, batch_size=4, learning_rate=1e-2)


def arrays(images, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *shape)).astype(np.float32) for shape in SHAPES]


def train(variant, seed=0, images=10, **options):
    model = make_model(variant, SHAPES, seed)
    history = fit(model, arrays(images), arrays(3, 1), variant=variant, seed=seed, **options)
    return model, history


VARIANTS = {
    "base": {},
    "two-sided": {"coupling": "two-sided"},
    "additive": {"coupling_function": "additive"},
    "data actnorm": {"actnorm": "data"},
    "no norm": {"norm": "none"},
    "affine norm": {"norm": "layer-affine"},
    "batch norm": {"norm": "batch"},
    "mean loss": {"loss": "mean"},
    "adamw, cosine, warm-up": {"optimiser": "adamw", "schedule": "cosine", "warmup_epochs": 1},
    "epsilon, average, noise": {"adam_epsilon": 1e-4, "ema": 0.5, "feature_noise": 0.1},
    "zero last": {"zero_last": True},
    "subnets' layer norm": {"subnet_norm": "layer"},
    "subnets' batch norm": {"subnet_norm": "batch"},
    "position": {"position_channels": 8, "actnorm": "data"},
    "learned base": {"base": "learned"},
    "learned base, alone at times": {"base": "learned", "base_every": 2},
    "clipped": {"gradient_clip": 1.0},
    "bfloat16": {"precision": "bfloat16"},
    "holdout": {"holdout": 0.2, "eval_every": 2},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_loss_falls_and_every_parameter_moves(changes):
    variant = BASE.replace(**changes)
    before = make_model(variant, SHAPES, 0).state_dict()
    model, history = train(variant)
    assert len(history.loss) == 4
    assert history.loss[-1] < history.loss[0]
    still = [n for n, p in model.named_parameters() if torch.equal(p.cpu(), before[n])]
    assert still == []


def test_same_seed_same_result_bit_for_bit():
    (_, a), (_, b), (_, c) = train(BASE), train(BASE), train(BASE, seed=1)
    assert a.loss == b.loss != c.loss
    for (e1, j1), (e2, j2) in zip(a.energies[4].taps, b.energies[4].taps, strict=True):
        assert torch.equal(e1, e2)
        assert torch.equal(j1, j2)


def test_variants_with_one_seed_see_the_same_batches(monkeypatch):
    seen = []
    original = np.ascontiguousarray

    def spy(rows, kind):
        seen.append(rows[..., 0, 0].sum())
        return original(rows, kind)

    monkeypatch.setattr("harness.methods.batches.np.ascontiguousarray", spy)
    train(BASE)
    first = list(seen)
    seen.clear()
    train(BASE.replace(coupling="two-sided", kernels=(1,)))
    assert seen == first


def test_test_images_do_not_change_the_training():
    model, history = train(BASE)
    other = make_model(BASE, SHAPES, 0)
    changed = fit(other, arrays(10), arrays(7, 5), variant=BASE, seed=0)
    assert changed.loss == history.loss
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_evaluation_epochs():
    assert list(train(BASE)[1].energies) == [4]
    assert list(train(BASE.replace(eval_every=3))[1].energies) == [3, 4]
    assert list(train(BASE.replace(eval_every=2))[1].energies) == [2, 4]


def test_evaluation_does_not_change_the_training():
    assert train(BASE)[1].loss == train(BASE.replace(eval_every=1))[1].loss


class Drawing(FastFlow):
    """A flow that draws whenever it is asked, from every generator that it can reach."""

    def __init__(self, shapes, *, generator=None, **flow):
        super().__init__(shapes, generator=generator, **flow)
        self.own = generator

    def energies(self, features):
        found = super().energies(features)
        energy, log_det = found.taps[0]
        noise = torch.rand(energy.shape) + torch.rand(energy.shape, generator=self.own)
        return Energies([(energy + noise, log_det), *found.taps[1:]])

    def losses(self, features):
        noise = torch.rand(()) + torch.rand((), generator=self.own)
        yield from (loss + noise for loss in super().losses(features))


SMALL = {"holdout": 0.3, "epochs": 4, "batch_size": 4, "flow_steps": 2}
DRAWING = {
    "fastflow": Variant(**SMALL),
    "cflow": Variant().replace(method="cflow", warmup_epochs=0, **SMALL),
    "differnet": Variant().replace(method="differnet", hidden_channels=8, views=8, **SMALL),
    "one that draws when it is asked": Variant(**SMALL),
}


def test_every_trained_method_is_among_them():
    assert {v.method for v in DRAWING.values()} == {m for m in METHODS if METHODS[m].trained}


@pytest.mark.parametrize("name", DRAWING)
def test_how_often_is_evaluated_changes_neither_training_nor_the_last_epoch(name):
    shapes = ((6, 8, 1), (8, 8, 1))  # of turned views, and as good as any to the others
    rng = np.random.default_rng(0)
    good, test = ([rng.normal(size=(n, *s)).astype("f4") for s in shapes] for n in (10, 3))

    def run(every):
        variant = DRAWING[name].replace(eval_every=every)
        model = make_model(variant, shapes, 0)
        if name not in METHODS:
            model = Drawing(
                shapes, **variant.arguments, generator=torch.Generator().manual_seed(0)
            )
        history = fit(model, good, test, variant=variant, seed=0)
        last = history.energies[4]
        tensors = [t for tap in last.taps for t in tap]
        return history, tensors + ([] if last.images is None else [last.images])

    (often, a), (once, b) = run(1), run(0)
    assert often.loss == once.loss
    assert often.holdout[4] == once.holdout[4]
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_energies_are_those_of_the_trained_model():
    model, history = train(BASE)
    features = [torch.from_numpy(a) for a in arrays(3, 1)]
    for (found, _), (wanted, _) in zip(
        history.energies[4].taps, model.eval().energies(features).taps, strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_holdout_is_left_out_of_training_and_measured():
    _, history = train(BASE.replace(holdout=0.3, eval_every=2))
    assert sorted(history.holdout) == [2, 4]
    _, whole = train(BASE)
    assert whole.holdout == {}
    assert whole.loss != history.loss


def test_a_holdout_that_leaves_nothing_is_refused():
    with pytest.raises(RunFailed, match="expected a share that leaves images on both sides"):
        train(BASE.replace(holdout=0.01))


def test_copies_like_their_images_change_nothing():
    """Bit for bit: drawing among copies moves neither the batches nor the weights."""
    variant = BASE.replace(holdout=0.2, eval_every=2)
    _, plain = train(variant)
    _, drawn = train(variant, augmented=[np.repeat(a, 3, axis=0) for a in arrays(10)])
    assert drawn.loss == plain.loss
    assert drawn.holdout == plain.holdout
    for (e, j), (e_, j_) in zip(drawn.energies[4].taps, plain.energies[4].taps, strict=True):
        assert torch.equal(e, e_)
        assert torch.equal(j, j_)


def test_an_epoch_takes_one_copy_of_every_image_that_is_not_held_out(monkeypatch):
    epochs, each = [], 5
    copies = [np.repeat(a, each, axis=0) for a in arrays(10)]
    monkeypatch.setattr(
        core,
        "_epoch",
        lambda training, source, order, *rest: epochs.append((source, order)) or 0.0,
    )
    train(BASE.replace(epochs=200, holdout=0.2), augmented=copies)
    assert all(source is copies for source, _ in epochs)
    images = [sorted(order // each) for _, order in epochs]
    assert len(images[0]) == len(set(images[0])) == 8  # the other two are held out
    assert all(i == images[0] for i in images)
    counts = np.bincount(np.concatenate([order % each for _, order in epochs]), minlength=each)
    assert len(counts) == each
    assert counts.min() > 250  # of 320 each; four deviations are 64


def test_draws_of_copies_follow_the_seed():
    copies = arrays(30, 2)
    (_, a), (_, b), (_, c) = (train(BASE, seed=s, augmented=copies) for s in (0, 0, 1))
    assert a.loss == b.loss != c.loss


def test_non_finite_loss_stops_with_epoch_and_last_good_loss():
    variant = BASE.replace(learning_rate=10.0, clamp="none", epochs=50)
    with pytest.raises(RunFailed, match=r"in epoch (\d+) of 50; last good epoch: \S+") as failed:
        train(variant)
    assert "; try a smaller learning_rate, gradient_clip" in str(failed.value)


def test_features_that_are_not_finite_are_named_as_the_reason():
    bad = arrays(10)
    bad[1][3] = np.nan
    with pytest.raises(RunFailed, match=r"features are not finite; try feature_dtype=float32"):
        fit(make_model(BASE, SHAPES, 0), bad, arrays(3, 1), variant=BASE, seed=0)


def test_a_loss_of_held_out_images_that_is_not_finite_stops_the_run():
    bad, variant = arrays(10), BASE.replace(holdout=0.2)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    bad[0][order[0]] = np.nan  # held out: the training does not see it
    with pytest.raises(RunFailed, match=r"held-out images' loss became nan at epoch 4; .*try a"):
        fit(make_model(variant, SHAPES, 0), bad, arrays(3, 1), variant=variant, seed=0)


def test_non_finite_energy_of_a_test_image_stops_the_run():
    bad = arrays(3, 1)
    bad[0][0, 0, 0, 0] = np.inf
    with pytest.raises(RunFailed, match=r"energy is not finite at epoch 4; .*try a smaller"):
        fit(make_model(BASE, SHAPES, 0), arrays(10), bad, variant=BASE, seed=0)


def test_schedule_and_warm_up(monkeypatch):
    rates = []
    variant = BASE.replace(schedule="cosine", warmup_epochs=1, epochs=3, batch_size=5)
    step = torch.optim.Adam.step

    def spy(self, *arguments, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train(variant)
    half = [0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(4)]
    assert rates == pytest.approx([0.01 * f for f in [0.5, 1.0, *half]])


def test_progress_tells_every_epoch():
    told = []
    _, history = train(BASE, progress=lambda epoch, loss: told.append((epoch, loss)))
    assert told == list(zip([1, 2, 3, 4], history.loss, strict=True))


def test_half_precision_features_are_trained_on_in_float32():
    half = [a.astype(np.float16) for a in arrays(10)]
    history = fit(make_model(BASE, SHAPES, 0), half, arrays(3, 1), variant=BASE, seed=0)
    assert history.loss == pytest.approx(train(BASE)[1].loss, rel=1e-3)


def test_drop_last_leaves_out_the_smaller_batch(monkeypatch):
    seen = []
    original = np.ascontiguousarray

    def spy(rows, kind):
        seen.append(len(rows))
        return original(rows, kind)

    monkeypatch.setattr("harness.methods.batches.np.ascontiguousarray", spy)
    _, history = train(BASE.replace(drop_last=True, batch_size=4, epochs=1, actnorm="none"))
    taps = len(SHAPES)
    first, *rest = seen[::taps]
    assert first == 4  # what ActNorm would be initialised from
    # 10 training images: two whole batches; then 3 test images; then all good ones are looked at
    assert rest == [4, 4, 3, 4, 4, 2]
    assert np.isfinite(history.loss[0])


def test_drop_last_without_a_whole_batch_is_a_failure():
    with pytest.raises(RunFailed, match="expected at least one whole batch of 32 images; got 10"):
        train(BASE.replace(drop_last=True, batch_size=32))


def test_enough_ends_the_training_at_an_evaluation():
    model = make_model(BASE, SHAPES, 0)
    variant = BASE.replace(eval_every=2, epochs=9)
    history = fit(
        model, arrays(10), arrays(3, 1), variant=variant, seed=0,
        enough=lambda h: len(h.loss) >= 3,
    )  # fmt: skip
    assert len(history.loss) == 4
    assert list(history.energies) == [2, 4]


@pytest.mark.parametrize(
    ("changes", "images", "epochs"),
    [
        ({}, 10, 4),
        ({"min_steps": 3}, 10, 4),  # 12 steps anyway
        ({"min_steps": 13}, 10, 5),
        ({"min_steps": 30}, 3, 30),  # one batch, not full
        ({"min_steps": 8, "drop_last": True}, 10, 4),
        ({"min_steps": 9, "drop_last": True}, 10, 5),
        ({"min_steps": 30, "holdout": 0.5}, 8, 30),
    ],
)
def test_few_images_are_passed_more_often(changes, images, epochs):
    variant = BASE.replace(**changes)
    assert epochs_of(variant, images) == epochs
    _, history = train(variant, images=images)
    assert len(history.loss) == epochs
    assert max(history.energies) == epochs


def test_a_falling_rate_ends_with_the_last_of_the_steps():
    variant = BASE.replace(min_steps=60, schedule="cosine", warmup_epochs=1)
    factor = factor_of(variant, 10)
    assert [round(factor(n), 3) for n in (0, 2, 3, 59)] == [0.333, 1.0, 1.0, 0.001]


@pytest.mark.parametrize("every", [1, 4, 5, 7, 100])
def test_evaluations_by_steps(every):
    """10 images in batches of 4: three steps an epoch."""
    variant = BASE.replace(eval_steps=every, epochs=6)
    _, history = train(variant)
    reached = [math.ceil(n * every / 3) for n in range(1, 18 // every + 1)]
    assert list(history.energies) == sorted({*reached, 6})
    assert evaluations_of(variant, 10) == len(history.energies)


def test_a_warm_up_in_steps_is_one_in_epochs():
    steps, epochs = BASE.replace(warmup_steps=6), BASE.replace(warmup_epochs=2)
    assert train(steps)[1].loss == train(epochs)[1].loss != train(BASE)[1].loss


def test_adams_epsilon_holds_steps_down():
    """Where it is above most gradients, Adam's steps are the rate by their ratio."""
    moved = []
    for epsilon in (1e-8, 1.0):
        variant = BASE.replace(adam_epsilon=epsilon, weight_decay=0.0)
        before = make_model(variant, SHAPES, 0).state_dict()
        after = train(variant)[0].state_dict()
        moved.append(sum((after[k] - before[k]).abs().sum() for k in before))
    assert 0 < moved[1] < 0.2 * moved[0]


def test_an_average_is_evaluated_and_the_training_goes_on_without_it():
    """The weights after every step are those of a run without it, averaged here by hand."""
    weights = []
    step = torch.optim.Adam.step

    def spy(self, *arguments, **named):
        held = [p.detach().double() for p in self.param_groups[0]["params"]]
        if not weights:
            weights.append(held)
        done = step(self, *arguments, **named)
        weights.append([p.detach().double() for p in self.param_groups[0]["params"]])
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        _, plain = train(BASE)
    model, history = train(BASE.replace(ema=0.2, eval_every=1))
    assert history.loss == plain.loss
    average = weights[0]
    for n, now in enumerate(weights[1:]):
        kept = min(0.2, (1 + n) / (10 + n))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, now, strict=True)]
    for got, wanted in zip(model.parameters(), average, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.equal(history.energies[4].taps[0][0], plain.energies[4].taps[0][0])
    features = [torch.from_numpy(a) for a in arrays(3, 1)]
    found = model.eval().energies(features).taps[0][0]
    torch.testing.assert_close(history.energies[4].taps[0][0], found)


def test_noise_is_a_share_of_the_taps_deviation_and_its_own_draw():
    generator = torch.Generator().manual_seed(1)
    taps = [scale * torch.randn(8, 6, 9, 9, dtype=torch.float64, generator=generator) + 5
            for scale in (1.0, 40.0)]  # fmt: skip
    state = torch.get_rng_state()
    noisy = FeatureNoise(0.1, seed=3)(taps)
    assert torch.equal(torch.get_rng_state(), state)
    for x, y in zip(taps, noisy, strict=True):
        assert (y - x).std().item() == pytest.approx(0.1 * x.std().item(), rel=0.05)
        assert abs((y - x).mean()) < 0.01 * x.std()
    assert all(torch.equal(a, b) for a, b in zip(noisy, FeatureNoise(0.1, 3)(taps), strict=True))
    loss = train(BASE.replace(feature_noise=0.1))[1].loss
    assert loss == train(BASE.replace(feature_noise=0.1))[1].loss != train(BASE)[1].loss


def test_a_learned_base_has_its_own_rate_under_the_one_schedule(monkeypatch):
    rates = []
    variant = BASE.replace(base="learned", base_learning_rate=0.2, warmup_steps=2, epochs=1)
    step = torch.optim.Adam.step

    def spy(self, *arguments, **named):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    model, _ = train(variant)
    assert rates == [[0.005, 0.1], [0.01, 0.2], [0.01, 0.2]]
    groups = [p for group in model.parameter_groups() for p in group["params"]]
    assert {id(p) for p in groups} == {id(p) for p in model.parameters()}
    assert len(groups) == len(list(model.parameters()))


@pytest.mark.parametrize("every", [2, 3])
def test_a_learned_base_is_updated_alone_in_every_so_many_steps(every, monkeypatch):
    """12 steps, the first two of them warm-up; two rates, of which the schedule is a factor."""
    variant = BASE.replace(
        base="learned", base_every=every, base_learning_rate=0.2, warmup_steps=2, ema=0.5
    )
    model = make_model(variant, SHAPES, 0)
    seen = []  # after every step: the base's rate in it, and which parts moved
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def spy(self, optimiser, *given, after=Turns._after):
        rate = optimiser.param_groups[1]["lr"]
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        before.update({n: p.detach().clone() for n, p in model.named_parameters()})
        seen.append((rate, {n.startswith("bases") for n in moved}))
        after(self, optimiser, *given)

    monkeypatch.setattr(Turns, "_after", spy)
    fit(model, arrays(10), arrays(3, 1), variant=variant, seed=0)
    for n, (rate, parts) in enumerate(seen, start=1):
        factor = min(1.0, n / 2)
        alone = n % every == 0
        assert rate == pytest.approx(factor * (0.2 if alone else 0.01))
        assert parts == ({True} if alone else {True, False})
    assert len(seen) == 12


def test_a_base_that_has_no_steps_of_its_own_leaves_the_optimiser_alone(monkeypatch):
    monkeypatch.setattr(Turns, "_before", lambda *given: pytest.fail("it counts steps"))
    train(BASE.replace(base="learned"))
    train(BASE.replace(base_every=2))  # no base to update

"""The compiled pass gives what the plain steps give: energies, losses and gradients."""

import pwd
import tempfile
from itertools import product

import pytest
import torch

from harness.methods import fastflow
from harness.methods.fastflow import FastFlow
from harness.methods.flow import compiled
from harness.methods.flow.affine import FixedAffine, GlobalAffine
from harness.methods.flow.step import CLAMPS, FlowStep, run_chain

pytestmark = pytest.mark.skipif(compiled.library() is None, reason="no C++ compiler here")
TABLE = list(
    product(
        ("one-sided", "two-sided"), ("none", "affine", "data"), CLAMPS,
        (("random", (3,), 5), ("reverse", (3, 1), 4), ("none", (1,), 3)),
    )
)  # fmt: skip


def make(coupling, actnorm, clamp, rest, dtype, **step):
    """A generic model of three steps, and features of odd size."""
    permutation, kernels, channels = rest
    torch.manual_seed(0)
    model = FastFlow(
        [(channels, 4, 3)], norm="layer-affine", flow_steps=3, kernels=kernels, coupling=coupling,
        permutation=permutation, actnorm=actnorm, clamp=clamp, **step,
    ).to(dtype)  # fmt: skip
    for parameter in model.parameters():
        wide = parameter.dim() == 4 and channels > 8  # else what wide sums give explodes
        parameter.data += (0.2 / channels if wide else 0.2) * torch.randn_like(parameter)
    return model, torch.randn(2, channels, 4, 3, dtype=dtype, requires_grad=True)


def results(model, x, monkeypatch, *, compiled):
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(fastflow, "can_run_compiled", lambda steps, x: False)
        z, log_det = model([x])[0]
        loss = 0.5 * z.square().sum() - log_det.sum()
        with torch.inference_mode():
            energies = model.energies([x]).taps[0]
        gradients = torch.autograd.grad(loss, [x, *model.parameters()])
    return [z, log_det, loss], list(energies), gradients


@pytest.mark.parametrize(("coupling", "actnorm", "clamp", "rest"), TABLE, ids=str)
def test_float64_equals_the_plain_steps(coupling, actnorm, clamp, rest, monkeypatch):
    model, x = make(coupling, actnorm, clamp, rest, torch.float64)
    plain = results(model, x, monkeypatch, compiled=False)
    compiled = results(model, x, monkeypatch, compiled=True)
    for i in (0, 2):  # not the energies, which are float32
        torch.testing.assert_close(compiled[i], plain[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("coupling", "actnorm", "clamp", "rest"), TABLE, ids=str)
def test_float32_energies_equal_the_plain_steps(coupling, actnorm, clamp, rest, monkeypatch):
    model, x = make(coupling, actnorm, clamp, rest, torch.float32)
    plain = results(model, x, monkeypatch, compiled=False)
    compiled = results(model, x, monkeypatch, compiled=True)
    torch.testing.assert_close(compiled[1], plain[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled[2], plain[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [32, 64, 96, 128, 160, 256, 40])
@pytest.mark.parametrize("coupling", ["one-sided", "two-sided"])
def test_whole_vectors_equal_the_plain_steps(channels, coupling, monkeypatch):
    """Widths of whole vectors, permuted in registers or one by one; 40 does not divide."""
    model, x = make(coupling, "affine", "tanh", ("random", (1,), channels), torch.float32)
    plain = results(model, x, monkeypatch, compiled=False)
    compiled = results(model, x, monkeypatch, compiled=True)
    torch.testing.assert_close(compiled[0], plain[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled[1], plain[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled[2], plain[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [5, 32, 40, 160])
@pytest.mark.parametrize("coupling", ["one-sided", "two-sided"])
def test_bfloat16_is_near_and_its_flow_stays_float32(channels, coupling, monkeypatch):
    model, x = make(coupling, "affine", "tanh", ("random", (3, 1), channels), torch.float32)
    (exact, *_), _, expected = results(model, x, monkeypatch, compiled=False)
    with torch.autocast("cpu", torch.bfloat16):
        (z, *_), _, gradients = results(model, x, monkeypatch, compiled=True)
    assert z.dtype == torch.float32
    assert (z - exact).norm() <= 0.01 * exact.norm()
    for got, wanted in zip(gradients, expected, strict=True):  # a ReLU near 0 may switch
        assert (got - wanted).norm() <= 0.15 * wanted.norm()


@pytest.mark.parametrize("coupling", ["one-sided", "two-sided"])
def test_a_condition_equals_the_plain_steps(coupling, monkeypatch):
    rest = ("random", (3, 1), 6)
    model, x = make(coupling, "data", "tanh", rest, torch.float64, position_channels=8)
    plain = results(model, x, monkeypatch, compiled=False)
    compiled = results(model, x, monkeypatch, compiled=True)
    for i in (0, 2):
        torch.testing.assert_close(compiled[i], plain[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_subnet_with_a_norm_equals_the_plain_steps(norm, monkeypatch):
    rest = ("random", (3, 1), 6)
    model, x = make("two-sided", "affine", "tanh", rest, torch.float64, subnet_norm=norm)
    plain = results(model, x, monkeypatch, compiled=False)
    compiled = results(model, x, monkeypatch, compiled=True)
    for i in (0, 2):
        torch.testing.assert_close(compiled[i], plain[i], rtol=1e-10, atol=1e-10)
    with torch.autocast("cpu", torch.bfloat16):  # its subnets' output has bfloat16's own pass
        (z, *_), _, _ = results(model.float(), x.detach().float().requires_grad_(), monkeypatch,
                                compiled=True)  # fmt: skip
    assert (z - plain[0][0]).norm() <= 0.05 * plain[0][0].norm()


@pytest.mark.parametrize("actnorm", ["affine", "data"])
def test_a_fixed_affine_equals_the_plain_steps(actnorm, monkeypatch):
    """The inference path has these; there the compiled pass was never taken."""
    model, x = make("two-sided", actnorm, "tanh", ("random", (3, 1), 6), torch.float32)
    learnt = results(model, x, monkeypatch, compiled=True)[0][0]
    for step in model.flows[0]:
        step.affine = FixedAffine(step.affine)
    assert compiled.can_run_compiled(model.flows[0], x)
    plain = results(model, x, monkeypatch, compiled=False)
    passed = results(model, x, monkeypatch, compiled=True)
    for i in (0, 1, 2):
        torch.testing.assert_close(passed[i], plain[i], rtol=1e-5, atol=1e-5)
    assert torch.equal(passed[0][0], learnt)


def test_every_clamp_has_its_number():
    """All of step.py's in the tests above are equal to the plain ones."""
    assert list(compiled.CODES) == list(CLAMPS)


class Other(FlowStep):
    def _coupling(self, x, c, *, rev):
        return x, x.new_zeros(len(x), *x.shape[2:])


@pytest.mark.parametrize("change", ["clamp", "subclass", "affine", "additive"])
def test_what_it_does_not_know_takes_the_plain_steps(change, monkeypatch):
    model, x = make("one-sided", "affine", "tanh", ("random", (3,), 6), torch.float64)
    steps = list(model.flows[0])
    if change == "clamp":
        monkeypatch.setitem(CLAMPS, "softsign", lambda a, c: c * torch.nn.functional.softsign(a))
        steps[1].clamp = "softsign"
    elif change == "subclass":
        steps[1].__class__ = Other
    elif change == "additive":
        settings = {"hidden_channels": 3, "coupling_function": "additive"}
        model.flows[0].module_list[1] = steps[1] = FlowStep([(6, 4, 3)], **settings).double()
    else:
        shifted = type("Shifted", (GlobalAffine,), {"coefficients": lambda self: (
            torch.ones(1, 6, 1, 1), torch.ones(1, 6, 1, 1), torch.zeros(1, 6, 1, 1)
        )})  # fmt: skip
        steps[1].affine.__class__ = shifted
    z, log_det = model([x])[0]
    wanted, wanted_log_det = run_chain(steps, model.norms[0](x))
    assert torch.equal(z, wanted)
    assert torch.equal(log_det, wanted_log_det)
    assert not compiled.can_run_compiled(steps, x)
    assert compiled.can_run_compiled(steps[:1] if change != "affine" else steps[2:], x)


@pytest.mark.parametrize("grad", [True, False])
def test_an_unknown_number_of_a_clamp_is_an_error_and_no_figure(grad, monkeypatch):
    model, x = make("one-sided", "affine", "tanh", ("random", (3,), 6), torch.float64)
    monkeypatch.setitem(compiled.CODES, "tanh", 99)
    with torch.set_grad_enabled(grad), pytest.raises(ValueError, match="clamp number 99"):
        compiled.run_chain_compiled(model.flows[0], x)


def test_features_are_left_as_they_were(monkeypatch):
    model = FastFlow([(4, 3, 3)], norm="none", flow_steps=2, kernels=(3,))
    x = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
    before = x.clone()
    model.energies([x])
    assert torch.equal(x, before)


def test_threads_change_nothing(monkeypatch):
    model, x = make("two-sided", "affine", "tanh", ("random", (1,), 6), torch.float64)
    one = results(model, x, monkeypatch, compiled=True)[2]
    torch.set_num_threads(2)
    two = results(model, x, monkeypatch, compiled=True)[2]
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_switched_off_it_is_the_plain_path(monkeypatch):
    monkeypatch.setenv("HARNESS_NATIVE", "0")
    assert isinstance(compiled._library.__wrapped__(), str)
    monkeypatch.delenv("HARNESS_NATIVE")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert isinstance(compiled._library.__wrapped__(), str)


def test_a_failing_compiler_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    assert isinstance(compiled._library.__wrapped__(), str)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.long
def test_a_user_without_a_home_has_a_folder_for_it(monkeypatch, tmp_path, capsys):
    def unknown(who):
        raise KeyError(who)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not isinstance(compiled._library.__wrapped__(), str)
    (made,) = tmp_path.iterdir()
    assert list(made.rglob("coupling-*.so"))
    assert capsys.readouterr().err.count(f"found none; caches go to {made}") == 1

"""The scale of a tap: quantiles and p-values against NumPy's, on values of any spread."""

import numpy as np
import pytest
import torch

from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.maps import SCALES, anomaly_maps
from harness.score.reference import ABOVE, POSITIONS, make_reference
from harness.score.rule import score

RULE = {"score_map": "nll", "scale_aggregation": "mean", "smoothing": 0.0, "size": 8}


def draw(images, side=8, *, spread=1.0, seed=0):
    """Values whose mean and spread differ from position to position."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.rand(side, side, generator=torch.Generator().manual_seed(99))
    values = torch.randn(images, side, side, generator=generator).exp()
    return spread * (levels * values + 5 * levels)


def read(scale, values, reference, position="global", floor=0.0):
    return SCALES[scale](values, reference, 0, position, floor)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_shares_and_p_values_are_numpys(spread):
    good, seen = draw(64, spread=spread), draw(64, spread=spread, seed=1)
    (reference,) = make_reference([Energies([(good, torch.zeros_like(good))])])
    ascending = np.sort(good.numpy().ravel())
    below = np.searchsorted(ascending, seen.numpy(), side="right") / len(ascending)
    np.testing.assert_allclose(
        read("quantile", seen, reference), below, atol=2.5e-3
    )  # half a step
    p = (len(ascending) * (1 - below) + 1) / (len(ascending) + 1)
    got = np.exp(-read("neg-log-p", seen, reference).numpy())
    # A twentieth, or one image's position: the steps of the table, in the tail and at its end.
    np.testing.assert_allclose(got, p, rtol=0.05, atol=1.01 / len(ascending))


def test_no_value_is_impossible_and_none_is_below_zero():
    good = draw(16)
    (reference,) = make_reference([Energies([(good, torch.zeros_like(good))])])
    far = torch.tensor([-1e6, 1e6]).view(2, 1, 1).expand(2, 8, 8)
    most = np.log(good.numel() + 1)
    assert read("neg-log-p", far, reference)[:, 0, 0].tolist() == pytest.approx([0, most])
    assert read("quantile", far, reference)[:, 0, 0].tolist() == [0.0, 1.0]
    floored = read("neg-log-p", far, reference, floor=0.01)[:, 0, 0].tolist()
    p = 0.01 + 0.99 / (good.numel() + 1)
    assert floored == pytest.approx([0, -np.log(p)], rel=1e-5)


@pytest.mark.parametrize("scale", ["standardised", "quantile", "neg-log-p"])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_scale_is_blind_to_units_and_keeps_the_order(scale, position):
    good, seen = draw(32), draw(3, seed=2)
    plain, moved = (
        make_reference([Energies([(v, torch.zeros_like(v))])])[0] for v in (good, 7 * good + 3)
    )
    got = read(scale, seen, plain, position)
    torch.testing.assert_close(
        got, read(scale, 7 * seen + 3, moved, position), rtol=2e-3, atol=2e-3
    )
    more = read(scale, seen + 0.5, plain, position)
    assert bool((more >= got).all())


def test_by_position_every_position_is_alike():
    good = draw(400)
    (reference,) = make_reference([Energies([(good, torch.zeros_like(good))])])
    by_position = read("standardised", good, reference, "position")
    overall = read("standardised", good, reference)
    assert by_position.mean(0).abs().max() < 1e-3 < overall.mean(0).abs().max()
    spread = by_position.std(0)  # 1, but where a position varies less than the floor
    assert float(spread.median()) == pytest.approx(1, abs=0.01)
    assert float(spread.max()) < 1.01
    torch.testing.assert_close(overall.std(), torch.tensor(1.0), rtol=0.01, atol=0.01)


def test_a_position_that_never_varies_stays_finite():
    good = draw(16)
    good[:, 0, 0] = 1.0
    (reference,) = make_reference([Energies([(good, torch.zeros_like(good))])])
    assert bool(read("standardised", good + 1, reference, "position").isfinite().all())
    still = torch.ones(4, 2, 2)
    (reference,) = make_reference([Energies([(still, torch.zeros_like(still))])])
    assert bool(read("neg-log-p", still, reference).isfinite().all())


def test_the_log_determinant_has_a_table_of_its_own():
    energy, log_det = draw(32), draw(32, seed=5)
    (reference,) = make_reference([Energies([(energy, log_det)])])
    standard = reference.standardise(energy - log_det, 1, "global")
    assert float(standard.mean()) == pytest.approx(0, abs=1e-3)
    assert float(standard.std()) == pytest.approx(1, abs=1e-2)


def test_the_levels_reach_a_millionth():
    assert ABOVE[0] == 1
    assert ABOVE[-1] == 0
    assert ABOVE[-2] == pytest.approx(1e-7)
    assert bool((ABOVE.diff() < 0).all())


def test_taps_of_any_size_join_on_one_scale():
    """Without a scale the larger tap decides alone; with one each counts the same."""
    good = [draw(64), 1000 * draw(64, seed=1)]
    reference = make_reference([Energies([(g, torch.zeros_like(g)) for g in good])])
    seen = [draw(2, seed=3), 1000 * draw(2, seed=4)]
    taps = [(s, torch.zeros_like(s)) for s in seen]
    joined = anomaly_maps(taps, **RULE, tap_scale="quantile", reference=reference)
    each = [read("quantile", s, r) for s, r in zip(seen, reference, strict=True)]
    torch.testing.assert_close(joined, (each[0] + each[1]) / 2)
    first = anomaly_maps(
        taps, **RULE, tap_scale="quantile", reference=reference, tap_weights=(2, 0)
    )
    torch.testing.assert_close(first, each[0])


def test_a_variant_reads_its_reference():
    good, seen = draw(16), draw(2, seed=1)
    energies = Energies([(seen, torch.zeros_like(seen))])
    reference = make_reference([Energies([(good, torch.zeros_like(good))])])
    variant = Variant(score_map="nll", tap_scale="neg-log-p", image_size=32)
    maps, _ = score(variant, energies, reference)
    assert maps.amin() >= 0
    assert maps.amax() <= np.log(good.numel() + 1) + 1e-6


def test_images_are_scored_on_a_map_of_their_own():
    """The pixels' map by p-values of both parts, the images' scores by the deviations of one."""
    good, seen = draw(16), draw(2, seed=1)
    log_det = draw(2, seed=2)
    energies = Energies([(seen, log_det)])
    reference = make_reference([Energies([(good, torch.zeros_like(good))])])
    both = Variant(score_map="nll-both", tap_scale="neg-log-p", image_size=32)
    own = both.replace(image_score_map="nll", image_tap_scale="standardised")
    plain = both.replace(score_map="nll", tap_scale="standardised")
    maps, scores = score(own, energies, reference)
    torch.testing.assert_close(maps, score(both, energies, reference)[0], rtol=0, atol=0)
    torch.testing.assert_close(scores, score(plain, energies, reference)[1], rtol=0, atol=0)

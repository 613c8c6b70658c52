"""Intervals by their coverage at the sizes used, and by pencil; DeLong against another's code."""

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy import stats

from harness.score.metrics import image_metrics
from harness.score.statistics import (
    Crossed,
    Estimate,
    clustered_influences,
    crossed_estimate,
    delong,
    holm,
    influences,
    needed,
    paired_estimate,
    paired_interval,
    placements,
)

SIZES = ((3, 3), (15, 3), (1, 3))  # categories × seeds: the embedded study, MVTec AD, one's own


def coverage(categories, seeds, spread, level=0.95, times=3000):
    rng = np.random.default_rng(categories)
    drawn = rng.normal(size=(times, categories, seeds)) * np.reshape(spread, (-1, 1))
    intervals = np.array([paired_interval(list(groups), level) for groups in drawn])
    return np.mean((intervals[:, 0] <= 0) & (0 <= intervals[:, 1]))


@pytest.mark.parametrize(("categories", "seeds"), SIZES)
def test_the_paired_interval_covers_what_it_says_at_the_sizes_used(categories, seeds):
    # 3,000 draws: a standard error of 0.4 points
    assert 0.935 <= coverage(categories, seeds, np.ones(categories)) <= 0.97


@pytest.mark.parametrize("spread", [[1, 1, 1e-9], [0.1, 1, 10], [1, 2, 3]])
def test_it_covers_where_one_category_is_noisier_than_the_others(spread):
    assert 0.92 <= coverage(3, 3, spread) <= 0.97


def test_another_level_is_another_interval():
    assert 0.77 <= coverage(3, 3, [1, 1, 1], level=0.8) <= 0.85


def test_paired_interval_by_pencil():
    # one category: 2 ± t(0.975; 2) · 1/√3
    half = 4.302652729911275 / np.sqrt(3)
    assert paired_interval([[1.0, 2.0, 3.0]]) == pytest.approx((2 - half, 2 + half))
    # two alike: each of variance 1, so the mean of six has 1/6
    made = paired_estimate([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert made.mean == 3.5
    assert made.error == pytest.approx(1 / np.sqrt(6))
    assert made.df == 4  # Σ(n−1): the variances are alike
    assert made.p == pytest.approx(2 * stats.t.sf(3.5 * np.sqrt(6), 4))


def test_a_category_of_one_value_counts_for_the_mean_alone():
    made = paired_estimate([[1.0, 3.0], [8.0]])
    assert made.mean == 4.0
    assert made.error == pytest.approx(np.sqrt(2 / 3))  # three values of variance 2
    assert made.df == 1


def test_without_a_second_seed_there_is_no_interval():
    assert np.isnan(paired_interval([[1.0], [2.0]])).all()
    assert paired_estimate([[1.0], [2.0]]).mean == 1.5
    assert np.isnan(paired_estimate([]).mean)
    assert np.isnan(Estimate(1.0).p)


def test_values_that_do_not_differ_are_a_point():
    assert paired_interval([[2.0, 2.0], [2.0, 2.0]]) == (2.0, 2.0)
    assert paired_estimate([[0.0, 0.0]]).p == 1.0
    assert paired_estimate([[1.0, 1.0]]).p == 0.0


def test_more_noise_never_makes_the_interval_smaller():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 3))
    widths = [np.ptp(paired_interval(list(s * noise))) for s in (0.5, 1.0, 2.0, 4.0)]
    assert widths == sorted(widths)
    assert widths[3] == pytest.approx(8 * widths[0])


@pytest.mark.parametrize("decimals", [1, 8])  # with many ties, and without
def test_placements_are_shares_of_the_other_class(decimals):
    rng = np.random.default_rng(decimals)
    scores, labels = rng.normal(size=60).round(decimals), rng.random(60) < 0.4
    shares = placements(scores, labels)
    for i in range(60):
        others = scores[labels != labels[i]]
        ahead = np.sign(scores[i] - others) * (1 if labels[i] else -1)
        assert shares[i] == pytest.approx((ahead + 1).mean() / 2)
    auroc = image_metrics(scores, labels)["image_auroc"]
    assert shares[labels].mean() == pytest.approx(auroc, abs=1e-12)
    assert shares[~labels].mean() == pytest.approx(auroc, abs=1e-12)


def test_placements_need_both_classes():
    assert np.isnan(placements([0.1, 0.2], [1, 1])).all()


@pytest.mark.parametrize(("good", "bad", "decimals"), [(12, 30, 8), (5, 5, 8), (40, 9, 1)])
def test_delong_equals_an_independent_implementation(good, bad, decimals):
    rng = np.random.default_rng(good)
    labels = np.r_[np.zeros(good, int), np.ones(bad, int)]
    common = rng.normal(size=good + bad) + labels
    one, other = (common + rng.normal(size=good + bad) for _ in range(2))
    one, other = one.round(decimals), other.round(decimals)
    ours = delong(one, other, labels)
    z, p, _, _, auc_one, auc_other, about = Delong_test(labels, one, other)
    assert ours.mean == pytest.approx(auc_one - auc_other, abs=1e-12)
    assert ours.error**2 == pytest.approx(about["var_diff"], rel=1e-9)
    assert abs(ours.mean / ours.error) == pytest.approx(abs(z), rel=1e-9)
    assert ours.p == pytest.approx(p, rel=1e-6)


def test_delong_needs_two_images_of_each_label():
    assert np.isnan(delong([1, 2, 3], [3, 2, 1], [0, 1, 1]).error)


def test_pixels_of_an_image_stand_or_fall_together():
    # a good image of 4 pixels, and two defective ones of 1 and 3 defective pixels
    found, clear = [np.nan, 1.0, 0.5], [0.9, 0.8, 1.0]
    moved = clustered_influences(
        found=found, found_weight=[0, 1, 3], clear=clear, clear_weight=[4, 3, 1]
    )
    theta_found, theta_clear = (1 + 1.5) / 4, (3.6 + 2.4 + 1) / 8
    assert moved == pytest.approx([
        4 * (0.9 - theta_clear) / 8,
        1 * (1.0 - theta_found) / 4 + 3 * (0.8 - theta_clear) / 8,
        3 * (0.5 - theta_found) / 4 + 1 * (1.0 - theta_clear) / 8,
    ])  # fmt: skip
    assert moved.sum() == pytest.approx(0, abs=1e-12)


def drawn(rng, *, good, bad, seeds, categories=1, image=0.5, seed=0.0, both=0.3):
    """Two variants alike in truth: what images, seeds and both together do to their scores."""
    made = []
    labels = np.r_[np.zeros(good, bool), np.ones(bad, bool)]
    for _ in range(categories):
        common = rng.normal(size=good + bad) + 1.2 * labels
        own = [common + image * rng.normal(size=good + bad) for _ in range(2)]
        differences, moved = [], []
        for _ in range(seeds):
            shares = [
                placements(
                    o + both * rng.normal(size=good + bad) + seed * rng.normal() * labels, labels
                )
                for o in own
            ]
            differences.append(shares[0][labels].mean() - shares[1][labels].mean())
            moved.append(influences(shares[0], labels) - influences(shares[1], labels))
        made.append(Crossed(np.array(differences), np.array(moved), labels))
    return made


@pytest.mark.parametrize(
    "case",
    [
        {"good": 12, "bad": 30, "seeds": 3},
        {"good": 12, "bad": 30, "seeds": 3, "seed": 0.3},
        {"good": 24, "bad": 36, "seeds": 3, "categories": 3},
        {"good": 24, "bad": 36, "seeds": 3, "categories": 3, "image": 0.0, "seed": 0.3},
        {"good": 12, "bad": 30, "seeds": 1},
    ],
)
def test_the_crossed_interval_covers_images_and_seeds(case):
    rng = np.random.default_rng(7)
    hits, seeds_alone, times = 0, 0, 500
    for _ in range(times):
        made = drawn(rng, **case)
        low, high = crossed_estimate(made).interval()
        hits += low <= 0 <= high
        low, high = paired_interval([c.differences for c in made])
        seeds_alone += low <= 0 <= high
    assert 0.92 <= hits / times <= 0.985
    if case.get("image") != 0.0 and "seed" not in case:  # the fault: photos taken as fixed
        assert seeds_alone / times < 0.8


def test_the_crossed_variance_by_pencil():
    labels = np.array([False, False, True, True])
    same = np.array([[0.1, -0.1, 0.2, -0.2]] * 2)
    made = crossed_estimate([Crossed(np.array([0.3, 0.5]), same, labels)])
    # seeds: variance 0.02 over 2; images: 2 · 0.02 and 2 · 0.08, the same under both seeds
    assert made.mean == pytest.approx(0.4)
    assert made.seeds == pytest.approx(0.01)
    assert made.images == pytest.approx(0.2)
    assert made.error == pytest.approx(np.sqrt(0.21))


def test_the_crossed_interval_of_one_seed_is_delongs():
    rng = np.random.default_rng(3)
    labels = rng.random(40) < 0.5
    one, other = rng.normal(size=40) + labels, rng.normal(size=40) + labels
    moved = influences(placements(one, labels), labels)
    moved -= influences(placements(other, labels), labels)
    theirs = delong(one, other, labels)
    made = crossed_estimate([Crossed(np.array([theirs.mean]), moved[None], labels)])
    assert made.error == pytest.approx(theirs.error)
    assert np.isnan(made.seeds)


def test_one_image_of_a_label_cannot_tell():
    labels = np.array([False, True, True])
    made = crossed_estimate([Crossed(np.array([0.1, 0.2]), np.zeros((2, 3)), labels)])
    assert made.mean == pytest.approx(0.15)
    assert np.isnan(made.error)
    assert np.isnan(crossed_estimate([]).mean)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, np.nan, 0.03], [0.04, np.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_pencil(given, expected):
    assert holm(given) == pytest.approx(expected, nan_ok=True)


def test_holm_claims_falsely_in_one_family_of_twenty():
    rng = np.random.default_rng(0)
    families = rng.random((4000, 8))
    assert np.mean([min(holm(list(f))) < 0.05 for f in families]) == pytest.approx(0.05, abs=0.01)


def test_as_many_images_as_needed_are_enough():
    """With the number of images that is asked for, four studies of five find the difference."""
    rng = np.random.default_rng(1)
    variance, difference = 0.02, 0.1
    factor, seeds = needed(
        Estimate(0.05, error=variance**0.5, df=30, seeds=0.0, images=variance), difference, 3
    )
    found = rng.normal(difference, np.sqrt(variance / factor), 20_000)
    assert np.mean(np.abs(found) > 1.96 * np.sqrt(variance / factor)) == pytest.approx(
        0.8, abs=0.01
    )
    assert seeds == 3
    # where the seeds alone are too noisy, more of them are asked for, and then they are enough
    factor, seeds = needed(
        Estimate(0.05, error=0.2, df=30, seeds=0.02, images=0.02), difference, 3
    )
    left = 0.02 * 3 / seeds + 0.02 / factor
    assert seeds > 3
    assert left <= (difference / 2.80) ** 2

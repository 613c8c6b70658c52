"""Thresholds promise what they say: pencil answers, and coverage over many calibrations."""

import numpy as np
import pytest

from harness.detect.threshold import drift, image_threshold, p_values, pixel_threshold
from harness.errors import InputError


@pytest.mark.parametrize(("n", "asked"), [(19, 0.05), (60, 0.05), (99, 0.01), (10, 0.3)])
def test_false_alarms_are_as_promised(n, asked):
    """Over 4000 calibrations, the mean rate on new images is the promised one, and no higher."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(4000):
        threshold = image_threshold(rng.exponential(size=n).astype(np.float32), asked)
        rates.append(np.exp(-threshold.value))  # the exact rate of this threshold
    assert threshold.reached
    assert np.mean(rates) == pytest.approx(threshold.promised, abs=4 * np.std(rates) / 4000**0.5)
    assert threshold.promised <= asked


def test_no_less_can_be_promised_than_the_images_allow():
    threshold = image_threshold(np.arange(10, dtype=np.float32), 0.01)
    assert (threshold.value, threshold.promised) == (9.0, pytest.approx(1 / 11))
    assert not threshold.reached
    assert str(threshold) == (
        "at most 9.09% of good images are flagged, by 10 good images (1.00% were asked for; "
        "10 images can promise no less than 9.09%)"
    )


def test_the_mean_share_of_pixels_is_bounded():
    rng = np.random.default_rng(1)
    shares = np.linspace(1, 0, 401)
    for n in (9, 99):
        flagged = []
        for _ in range(500):
            levels = rng.exponential(size=n)[:, None]  # images differ as a whole
            maps = levels * rng.exponential(size=(n, 200))
            values = np.quantile(maps, 1 - shares)
            threshold = pixel_threshold(shares, values, 0.2, n)
            new = rng.exponential() * rng.exponential(size=200)
            flagged.append(np.mean(new > threshold.value))
        assert np.mean(flagged) <= threshold.promised + 3 * np.std(flagged) / 500**0.5
        assert threshold.promised <= 0.2


def test_p_values_are_uniform_for_what_is_usual():
    rng = np.random.default_rng(2)
    below = [p_values(rng.random(1), rng.random(19))[0] <= 0.1 for _ in range(4000)]
    assert np.mean(below) == pytest.approx(0.1, abs=0.02)


def test_drift_is_told_and_seldom_where_there_is_none():
    rng = np.random.default_rng(3)
    same = [drift(rng.normal(size=40), rng.normal(size=60), 2.0) for _ in range(500)]
    assert sum(map(bool, same)) <= 3
    assert "score higher" in drift(rng.normal(1.2, size=40), rng.normal(size=60), 9.0)
    assert "score lower" in drift(rng.normal(-1.2, size=40), rng.normal(size=60), 9.0)
    assert drift(np.full(20, 9.0), rng.normal(size=60), 2.0) == "100% of the images are flagged"
    assert not drift(np.full(3, 9.0), rng.normal(size=60), 2.0)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, float("nan")])
def test_bad_rates(rate):
    with pytest.raises(InputError, match="expected a share between 0 and 1"):
        image_threshold(np.ones(3, np.float32), rate)
    with pytest.raises(InputError, match="expected good images"):
        image_threshold(np.ones(0, np.float32), 0.1)

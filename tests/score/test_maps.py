"""Score rules: pencil answers, and the Gaussian against SciPy's."""

from math import exp

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.images import image_scores
from harness.score.maps import JOINS, LEVELS, MAPS, anomaly_maps, centred
from harness.score.rule import CHUNK, score, score_in_chunks
from harness.score.smooth import gaussian

RULE = {"score_map": "nll", "scale_aggregation": "mean", "smoothing": 0.0}
NLL = ("nll", "nll-log-det", "nll-both")
every_map = pytest.mark.parametrize("score_map", MAPS)
every_join = pytest.mark.parametrize("join", JOINS)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def taps(images=2, sizes=(8, 4)):
    return [(draw(images, s, s, seed=s), draw(images, s, s, seed=s + 1)) for s in sizes]


@pytest.mark.parametrize(
    ("score_map", "expected"),
    [
        ("exp-mean", [-1.0, -0.5, -0.25, -exp(-3.0)]),
        ("nll", [0.0, np.log(2), np.log(4), 3.0]),
        ("nll-log-det", [-1.0, np.log(2), np.log(4) + 0.5, 1.0]),
        ("nll-both", [-0.5, np.log(2), np.log(4) + 0.25, 2.0]),
        ("likelihood", [-exp(1.0), -0.5, -0.25 * exp(-0.5), -exp(-1.0)]),
    ],
)
def test_maps_by_pencil(score_map, expected):
    energy = torch.tensor([0.0, np.log(2), np.log(4), 3.0]).view(1, 2, 2).float()
    log_det = torch.tensor([1.0, 0.0, -0.5, 2.0]).view(1, 2, 2)
    maps = anomaly_maps([(energy, log_det)], size=2, **RULE | {"score_map": score_map})
    assert maps.shape == (1, 2, 2)
    assert maps.dtype == torch.float32
    assert maps.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("join", "expected"), [("mean", 2.0), ("sum", 6.0), ("max", 4.0)])
def test_joins_by_pencil(join, expected):
    energies = [(torch.full((1, s, s), e), torch.zeros(1, s, s)) for s, e in ((4, 1.0), (2, 4.0))]
    energies.append((torch.full((1, 1, 1), 1.0), torch.zeros(1, 1, 1)))
    maps = anomaly_maps(energies, size=8, **RULE | {"scale_aggregation": join})
    torch.testing.assert_close(maps, torch.full((1, 8, 8), expected))


def test_taps_are_joined_after_the_map():
    """-exp(-energy) of each tap, then the mean: not the other way round."""
    energies = [(torch.full((1, 1, 1), e), torch.zeros(1, 1, 1)) for e in (0.0, np.log(4))]
    maps = anomaly_maps(energies, size=1, **RULE | {"score_map": "exp-mean"})
    assert maps.item() == pytest.approx(-(1 + 0.25) / 2)


def test_upsampling_by_pencil():
    """Bilinear between the centres of the positions (align_corners=False)."""
    energy = torch.tensor([[[0.0, 4.0], [0.0, 4.0]]])
    maps = anomaly_maps([(energy, energy)], size=4, **RULE)
    assert maps[0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 4


def test_upsampling_equals_torchs_on_each_tap():
    energies = taps()
    maps = anomaly_maps(energies, size=16, **RULE)
    up = [F.interpolate(e[:, None], size=16, mode="bilinear")[:, 0] for e, _ in energies]
    torch.testing.assert_close(maps, (up[0] + up[1]) / 2)


@every_map
@every_join
def test_larger_is_more_anomalous(score_map, join):
    """One position of one tap gets more energy: the map rises around it and nowhere falls."""
    energies = taps()
    more = [(e.clone(), j) for e, j in energies]
    more[0][0][1, 3, 5] += 5
    rule = RULE | {"score_map": score_map, "scale_aggregation": join}
    before, after = (anomaly_maps(e, size=16, **rule) for e in (energies, more))
    assert torch.equal(before[0], after[0])
    assert (after[1] >= before[1]).all()
    assert (after[1, 6:8, 10:12] > before[1, 6:8, 10:12]).all()
    for rule_ in ("max", "mean", "top-k"):
        a, b = (image_scores(m, image_score=rule_, top_k=0.01) for m in (after, before))
        assert a[1] > b[1]


@every_map
def test_a_lower_log_det_is_more_anomalous_where_it_counts(score_map):
    energy, log_det = taps()[0]
    rule = RULE | {"score_map": score_map}
    before, after = (anomaly_maps([(energy, j)], size=8, **rule) for j in (log_det, log_det - 1.0))
    rise = {"nll-log-det": torch.ones(2, 8, 8), "nll-both": torch.full((2, 8, 8), 0.5)}
    rise |= {"likelihood": before * (exp(-1.0) - 1)}
    torch.testing.assert_close(after - before, rise.get(score_map, torch.zeros(2, 8, 8)))


@pytest.mark.parametrize("own", [False, True])
def test_maps_of_many_images_are_those_of_each(own):
    images = 2 * CHUNK + 3
    method = {"method": "patchcore", "image_score": "own"} if own else {"image_score": "max"}
    variant = Variant().replace(image_size=32, smoothing=1.0, **method)
    energies = Energies(taps(images), draw(images) if own else None)
    maps, scores = score(variant, energies)
    assert (len(energies), len(maps), len(scores)) == (images, images, images)
    for i in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 2):
        alone = score(variant, energies.rows([i]))
        torch.testing.assert_close(maps[i], alone[0][0])
        assert scores[i] == (energies.images[i] if own else maps[i].max())
    parts = [energies.rows(slice(0, 24)), energies.rows(slice(24, None))]
    chunks = list(score_in_chunks(variant, parts))
    assert [len(s) for _, s in chunks] == [16, 8, 11]
    assert torch.equal(torch.cat([m for m, _ in chunks]), maps)


# --- the Gaussian -------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.9, 4.0])
@pytest.mark.parametrize("size", [(33, 33), (20, 31), (31, 20), (64, 64)])
def test_gaussian_equals_scipys(sigma, size):
    maps = 10 * draw(2, 1, *size)
    expected = gaussian_filter(
        maps.numpy(), sigma, mode="mirror", truncate=4.0, axes=(2, 3)
    )  # SciPy's "mirror" is torch's "reflect": the edge pixel is not repeated
    torch.testing.assert_close(
        gaussian(maps, sigma), torch.from_numpy(expected), rtol=0, atol=1e-5
    )


def test_gaussian_keeps_the_precision_of_float64():
    maps = draw(1, 1, 24, 24).double()
    expected = gaussian_filter(maps.numpy(), 2.0, mode="mirror", truncate=4.0, axes=(2, 3))
    torch.testing.assert_close(gaussian(maps, 2.0), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_gaussian_of_sigma_0_changes_nothing():
    maps = draw(2, 1, 8, 8)
    assert torch.equal(gaussian(maps, 0.0), maps)


def test_gaussian_wider_than_the_map_keeps_a_constant():
    maps = torch.full((1, 1, 4, 4), 3.0)
    torch.testing.assert_close(gaussian(maps, 9.0), maps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gaussian_on_a_gpu_is_the_cpus():
    maps = draw(2, 1, 16, 16)
    torch.testing.assert_close(gaussian(maps.cuda(), 2.0).cpu(), gaussian(maps, 2.0))


@every_join
def test_smoothing_follows_the_join(join):
    rule = RULE | {"scale_aggregation": join}
    sharp, smooth = (
        anomaly_maps(taps(), size=32, **rule | {"smoothing": sigma}) for sigma in (0.0, 2.0)
    )
    expected = gaussian_filter(sharp.numpy(), 2.0, mode="mirror", truncate=4.0, axes=(1, 2))
    torch.testing.assert_close(smooth, torch.from_numpy(expected), rtol=0, atol=1e-5)


# --- image scores -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_score", "top_k", "expected"),
    [
        ("max", 0.5, [10.0, 0.0]),
        ("mean", 0.5, [5.5, 0.0]),
        ("top-k", 0.2, [9.5, 0.0]),
        ("top-k", 0.3, [9.0, 0.0]),
        ("top-k", 0.01, [10.0, 0.0]),  # one pixel at the least
        ("top-k", 1.0, [5.5, 0.0]),
    ],
)
def test_image_scores_by_pencil(image_score, top_k, expected):
    pixels = torch.tensor([3.0, 1, 10, 2, 9, 4, 8, 5, 7, 6])
    maps = torch.stack([pixels, torch.zeros(10)]).view(2, 2, 5)
    scores = image_scores(maps, image_score=image_score, top_k=top_k)
    assert scores.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("level", LEVELS)
def test_a_centred_map_has_its_level_at_zero_whatever_was_added(level):
    maps = draw(3, 9, 9)
    offset = torch.tensor([0.0, 5.0, -2.0]).view(3, 1, 1)
    again = centred(centred(maps, level), level)
    torch.testing.assert_close(again, centred(maps, level), atol=1e-6, rtol=0)
    if level != "none":
        torch.testing.assert_close(
            centred(maps + offset, level), centred(maps, level), atol=2e-6, rtol=0
        )


@pytest.mark.parametrize(
    ("level", "value"), [("mean", 5.0), ("median", 5.0), ("tenth", 1.0), ("border", 4.0)]
)
def test_levels_by_pencil(level, value):
    maps = torch.arange(1.0, 10.0).view(1, 3, 3)
    torch.testing.assert_close(maps - centred(maps, level), torch.full((1, 3, 3), value))


def test_a_defect_inside_does_not_move_the_border():
    maps = draw(1, 9, 9)
    defect = maps.clone()
    defect[:, 2:7, 2:7] += 100
    assert LEVELS["border"](defect) == LEVELS["border"](maps)
    assert LEVELS["median"](defect) <= maps.max()
    assert LEVELS["mean"](defect) > maps.max()


def test_both_is_the_mean_of_with_and_without_the_log_determinant():
    each = [anomaly_maps(taps(), size=16, **RULE | {"score_map": m}) for m in NLL]
    torch.testing.assert_close(each[2], (each[0] + each[1]) / 2)


@pytest.mark.parametrize("weights", [(2, 2), (1, 0), (0, 3)])
def test_weights_are_proportions(weights):
    energies = taps()
    got = anomaly_maps(energies, size=16, **RULE, tap_weights=weights)
    each = [anomaly_maps([tap], size=16, **RULE) for tap in energies]
    total = sum(weights)
    expected = sum(w / total * m for w, m in zip(weights, each, strict=True))
    torch.testing.assert_close(got, expected)


def test_std_and_joined_by_pencil():
    maps = torch.tensor([[[0.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    std = image_scores(maps, image_score="std", top_k=0.25)
    assert std.tolist() == pytest.approx([3**0.5, 0.0])
    joined = image_scores(maps, image_score="joined", top_k=0.25)
    assert joined.tolist() == pytest.approx([(3 * 3 * 3**0.5) ** (1 / 3), 0.0])
    for rule in ("std", "joined"):
        torch.testing.assert_close(
            image_scores(maps + 7, image_score=rule, top_k=0.25),
            image_scores(maps, image_score=rule, top_k=0.25),
        )

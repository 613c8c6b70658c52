"""SPADE, PaDiM, PatchCore and their parts: by pencil, by invariance, and beside scikit-learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch.utils.flop_counter import FlopCounterMode

from harness.methods import batches as reading
from harness.methods import padim, patchcore, spade
from harness.methods.memory import coreset
from harness.methods.memory import nearest as neighbours
from harness.methods.memory.coreset import greedy_coreset
from harness.methods.memory.nearest import nearest
from harness.methods.padim import PaDiM
from harness.methods.patchcore import PatchCore, sparse_projection
from harness.methods.spade import SPADE

SHAPES = ((6, 8, 8), (10, 4, 4), (12, 2, 2))
METHODS = {
    "spade": lambda shapes=SHAPES: SPADE(shapes, neighbours=5),
    "padim": lambda shapes=SHAPES: PaDiM(shapes, channels=20, generator=generator()),
    "patchcore": lambda shapes=SHAPES: PatchCore(shapes, coreset=0.3, generator=generator()),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 1, (count, *shape)).astype(np.float32) for shape in shapes]


def tensors(arrays):
    return [torch.from_numpy(a) for a in arrays]


def naive_coreset(features, picks, start):
    """Algorithm 1 word for word; of equal distances the first."""
    x = features.double()
    distances = torch.full((len(x),), torch.inf, dtype=torch.float64)
    order = [start]
    for _ in range(picks - 1):
        distances = torch.minimum(distances, (x - x[order[-1]]).square().sum(1))
        left = distances.clone()
        left[order] = -1
        order.append(int((left == left.max()).nonzero()[0]))
    return order


@pytest.mark.parametrize("candidates", [1, 3, 64, 4096])
@pytest.mark.parametrize("distinct", [1, 60, 200])
@pytest.mark.parametrize("dimensions", [1, 2, 5, 40])
def test_the_coreset_is_the_naive_one(dimensions, distinct, candidates):
    x = 3 * torch.randn(distinct, dimensions, generator=generator(dimensions)) + 5
    x = x[torch.randint(distinct, (200,), generator=generator())] if distinct < 200 else x
    for picks in (1, 2, 70, 200):
        order = greedy_coreset(x, picks, start=7, candidates=candidates)
        assert order.tolist() == naive_coreset(x, picks, 7)


def test_the_coreset_takes_the_first_of_ties_on_a_grid():
    x = torch.cartesian_prod(torch.arange(7.0), torch.arange(7.0))
    for candidates in (1, 5, 4096):
        order = greedy_coreset(x, 49, start=24, candidates=candidates)
        assert order.tolist() == naive_coreset(x, 49, 24)


def test_the_coreset_by_pencil():
    x = torch.tensor([[0.0], [1.0], [9.0], [4.0]])
    assert greedy_coreset(x, 4).tolist() == [0, 2, 3, 1]


def test_blocks_do_not_change_the_coreset(monkeypatch):
    x = torch.randn(300, 8, generator=generator())
    whole = greedy_coreset(x, 150, candidates=50)
    monkeypatch.setattr(coreset, "BLOCK", 7)
    assert greedy_coreset(x, 150, candidates=50).equal(whole)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_neighbours_are_scikit_learns(count, chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    bank, queries = (100 + torch.randn(n, 12, generator=generator(n)) for n in (50, 30))
    queries[0] = bank[3]  # close to zero, far from the origin
    distances, indices = nearest(queries, bank, count)
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(bank.double().numpy())
    expected, where = found.kneighbors(queries.double().numpy())
    assert np.array_equal(indices, where)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_filled_stands_as_fitted(name, taps):
    shapes = SHAPES[:taps]
    fitted, filled = METHODS[name](shapes), METHODS[name](shapes)
    with torch.device("meta"):
        unreal = METHODS[name](shapes)
    fitted.fit(images(9, shapes))
    features = tensors(images(3, shapes, seed=1))
    macs = []
    for method in (fitted, filled, unreal):
        method.fill(9) if method is not fitted else None
        x = [f.to(next(method.buffers()).device) for f in features]
        with FlopCounterMode(display=False) as counter:
            scores = method.energies(x)
        macs.append(counter.get_total_flops())
        height, width = shapes[0 if name != "patchcore" else max(0, taps - 2)][1:]
        ((energy, log_det),) = scores.taps
        assert energy.shape == log_det.shape == (3, height, width)
        assert energy.dtype == torch.float32
        assert scores.images is None or scores.images.shape == (3,)
        assert method.bank_bytes == fitted.bank_bytes > 0
        assert not list(method.parameters())
    assert macs[0] == macs[1] == macs[2] > 0


@pytest.mark.parametrize("name", ["spade", "padim"])
def test_the_order_of_the_good_images_does_not_matter(name):
    train, test = images(9), tensors(images(3, seed=1))
    one, other = METHODS[name](), METHODS[name]()
    one.fit(train)
    other.fit([a[::-1] for a in train])
    same(one.energies(test), other.energies(test))


@pytest.mark.parametrize("name", METHODS)
def test_parts_do_not_change_the_scores(name, monkeypatch):
    train, test = images(9), tensors(images(3, seed=1))
    whole, parts = METHODS[name](), METHODS[name]()
    whole.fit(train)
    expected = whole.energies(test)
    monkeypatch.setattr(reading, "BATCH", 2)
    monkeypatch.setattr(neighbours, "CHUNK", 64)
    monkeypatch.setattr(padim, "CHUNK", 1)
    monkeypatch.setattr(spade, "GALLERY", 2)
    parts.fit(train)
    same(parts.energies(test), expected)
    singles = [parts.energies([x[i : i + 1] for x in test]) for i in range(3)]
    for i, single in enumerate(singles):
        torch.testing.assert_close(single.taps[0][0][0], expected.taps[0][0][i])


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_and_read_only_features(name):
    train = [a.astype(np.float16) for a in images(9)]
    for array in train:
        array.setflags(write=False)
    method = METHODS[name]()
    method.fit(train)
    scores = method.energies([x.half() for x in tensors(images(3, seed=1))])
    assert scores.taps[0][0].isfinite().all()


def same(one, other):
    torch.testing.assert_close(one.taps[0][0], other.taps[0][0], rtol=1e-4, atol=1e-4)
    if other.images is not None:
        torch.testing.assert_close(one.images, other.images, rtol=1e-4, atol=1e-4)


def test_spade_by_pencil():
    method = SPADE([(1, 1, 2), (1, 1, 1)], neighbours=2)
    method.fit([
        np.float32([0, 1, 10, 11, 5, 5]).reshape(3, 1, 1, 2),
        np.float32([0, 1, 100]).reshape(3, 1, 1, 1),
    ])  # fmt: skip
    scores = method.energies([torch.tensor([[[[3.0, 12.0]]]]), torch.tensor([[[[3.0]]]])])
    assert scores.images.tolist() == [(3**2 + 2**2) / 2]  # images 0 and 1 are the nearest
    assert scores.taps[0][0].tolist() == [[[2.0, 1.0]]]  # so the third one's 5 is out of reach


def test_spade_upsamples_and_joins():
    method, train, test = SPADE(SHAPES, neighbours=9), images(9), images(2, seed=1)
    method.fit(train)

    def positions(taps):
        up = F.interpolate(torch.from_numpy(taps[1]), (8, 8), mode="bilinear")
        return torch.cat([torch.from_numpy(taps[0]), up], 1).permute(0, 2, 3, 1).flatten(0, 2)

    expected = torch.cdist(positions(test).double(), positions(train).double()).amin(1)
    energy = method.energies(tensors(test)).taps[0][0]
    torch.testing.assert_close(energy.flatten().double(), expected, rtol=1e-5, atol=1e-5)


def test_padim_is_the_mahalanobis_distance():
    train, test = images(30), images(4, seed=1)
    method = PaDiM(SHAPES, channels=15, generator=generator())
    method.fit(train)

    def joined(taps):
        wide = [t.repeat(8 // t.shape[2], axis=2).repeat(8 // t.shape[3], axis=3) for t in taps]
        return np.concatenate([w[:, k] for w, k in zip(wide, method.kept, strict=True)], 1)

    energy = method.energies(tensors(test)).taps[0][0]
    good, x = joined(train).astype(float), joined(test).astype(float)
    assert good.shape[1] == 15
    for row, column in ((0, 0), (3, 5), (7, 7)):
        at = good[:, :, row, column]
        inverse = np.linalg.inv(np.cov(at.T) + 0.01 * np.eye(15))
        delta = x[:, :, row, column] - at.mean(0)
        expected = np.sqrt(np.einsum("bi,ij,bj->b", delta, inverse, delta))
        np.testing.assert_allclose(energy[:, row, column], expected, rtol=2e-5)


def test_padim_draws_its_channels_from_the_generator():
    kept = [PaDiM(SHAPES, channels=9, generator=generator(seed)).kept for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]
    assert PaDiM(SHAPES, channels=99).kept == [list(range(c)) for c, _, _ in SHAPES]


def test_patchcore_knows_its_good_images():
    train = images(6)
    method = PatchCore(SHAPES, coreset=1.0, generator=generator())
    method.fit(train)
    scores = method.energies(tensors(train))
    assert scores.taps[0][0].abs().max() == scores.images.abs().max() == 0
    assert len(method.bank) == 6 * 16
    assert len(method.bank.unique(dim=0)) == 6 * 16


def test_the_order_of_the_good_images_does_not_matter_to_a_whole_bank():
    train, test = images(6), tensors(images(2, seed=1))
    one, other = (PatchCore(SHAPES, coreset=1.0, generator=generator(s)) for s in (1, 2))
    one.fit(train)
    other.fit([a[::-1] for a in train])
    same(one.energies(test), other.energies(test))


def test_patchcore_by_pencil():
    method = PatchCore([(1, 1, 1)], coreset=1.0, neighbours=2)
    method.fit([np.float32([0, 9, 18, 90]).reshape(4, 1, 1, 1)])  # a lone patch's pool is a ninth
    scores = method.energies([torch.tensor([[[[27.0]]]])])
    assert scores.taps[0][0].item() == 1  # 3 to its nearest, 2
    weight = 1 - np.exp(1) / (np.exp(1) + np.exp(2))  # of b = 2: 2 itself and 1
    assert scores.images.item() == pytest.approx(weight)
    method.neighbours = 1
    assert method.energies([torch.tensor([[[[27.0]]]])]).images.item() == 1


def test_patchcore_repeats_with_its_generator():
    banks = []
    for seed in (1, 1, 2):
        method = PatchCore(SHAPES, coreset=0.2, generator=generator(seed))
        method.fit(images(9))
        banks.append(method.bank)
    assert banks[0].equal(banks[1])
    assert not banks[0].equal(banks[2])


def test_the_projection_keeps_distances():
    assert sparse_projection(1000, 20, np.random.RandomState(0)).equal(torch.eye(20))
    x = torch.randn(30, 2000, generator=generator())
    small = x @ sparse_projection(30, 2000, np.random.RandomState(0))
    assert small.shape[1] == 83
    ratio = torch.pdist(small) / torch.pdist(x)
    assert abs(ratio.mean() - 1) < 0.1
    assert patchcore.DISTORTION == 0.9


@pytest.mark.parametrize("name", ["spade", "patchcore"])
def test_a_bank_of_one_image_of_one_position(name):
    """One good image is enough, even one patch: it scores 0, and what is not it more."""
    made = METHODS[name]([(6, 1, 1)])
    good = images(1, [(6, 1, 1)])
    made.fit(good)
    found = made.energies([torch.cat([torch.from_numpy(good[0]), torch.zeros(1, 6, 1, 1)])])
    same, other = found.taps[0][0].flatten().tolist()
    assert same == 0
    assert 0 < other < np.inf

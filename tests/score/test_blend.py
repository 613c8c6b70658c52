"""Maps of tiles to maps of photos."""

import pytest
import torch

from harness.data.tiles import Photos, windows
from harness.experiment.variant import Variant
from harness.methods.contract import Energies
from harness.score.blend import Blend, joined
from harness.score.rule import score, score_in_chunks

SIZE = (61, 47)  # width, height


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("tile", [16, 30, 90])
def test_what_was_cut_is_whole_again(tile, overlap):
    given = torch.rand(SIZE[::-1], generator=torch.Generator().manual_seed(tile))
    blend = Blend(SIZE, SIZE[::-1])
    for w in windows(SIZE, tile, overlap):
        blend.add(w, given[w.top : w.bottom, w.left : w.right])
    torch.testing.assert_close(blend.whole(), given, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(47, 61), (20, 26), (94, 122), (1, 1)])
def test_a_constant_stays_constant_at_any_size(shape):
    blend = Blend(SIZE, shape)
    for w in windows(SIZE, 16, 0.25):
        blend.add(w, torch.full((8, 12), 2.5))
    torch.testing.assert_close(blend.whole(), torch.full(shape, 2.5), rtol=1e-5, atol=0)


def test_levels_of_neighbours_meet_without_a_step():
    blend = Blend((60, 20), (20, 60))
    for level, w in enumerate(windows((60, 20), 40, 0.5)):
        blend.add(w, torch.full((40, 40), float(level)))
    row = blend.whole()[10]
    assert (row[0], row[-1]) == (0, 1)
    assert row.diff().abs().max() < 0.12  # a seam would be 1
    assert row.diff().min() >= 0


def test_scores_are_of_photos_whatever_the_chunks():
    photos = Photos([(40, 40), (100, 40), (20, 10)], 40, 0.25, 40)
    assert [len(photos.windows(i)) for i in range(3)] == [1, 3, 1]
    energy = torch.rand(5, 10, 10, generator=torch.Generator().manual_seed(0))
    energy[2, 5, 5] = 50.0
    whole = Energies([(energy, torch.zeros_like(energy))])
    variant = Variant(image_size=40, taps=(1,), tile_size=40, score_map="nll", image_score="max")
    parts = [whole.rows(slice(0, 2)), whole.rows(slice(2, 5))]
    for given in ([whole], parts):
        chunks = list(score_in_chunks(variant, given, photos=photos))
        assert [tuple(m.shape) for m, _ in chunks] == [(1, 40, 40), (1, 40, 100), (1, 10, 20)]
        assert all(m.max() == s for m, s in chunks)
        assert int(torch.cat([s for _, s in chunks]).argmax()) == 1
    maps, _ = score(variant, whole, photos=photos)
    assert maps.shape == (3, 40, 100)
    assert maps.isfinite().sum((1, 2)).tolist() == [1600, 4000, 200]


def test_of_scores_of_its_own_the_largest_tile_counts():
    photos = Photos([(40, 40), (100, 40)], 40, 0.25, 40)
    pieces = [([], torch.tensor([3.0, 1.0, 9.0])), ([], torch.tensor([2.0]))]
    assert [s.tolist() for _, s in joined(pieces, photos)] == [[3.0], [9.0]]


@pytest.mark.parametrize("rule", ["max", "top-k", "mean", "std", "joined"])
def test_nothing_outside_a_region_changes_a_score(rule):
    variant = Variant(image_size=32, taps=(1,), score_map="nll", image_score=rule)
    energy = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[4:9, 10:30] = True
    loud = torch.where(region, energy, 1e4)
    quiet, noisy, all_of_it = (
        next(score_in_chunks(variant, [Energies([(e, e)])], regions=r))[1]
        for e, r in ((energy, [region] * 2), (loud, [region] * 2), (loud, None))
    )
    assert torch.equal(quiet, noisy)
    assert not torch.equal(quiet, all_of_it)

"""Defective copies in the cache: of the entry, when asked for, once, whole or not there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import SIZE

from harness.data import synthetic
from harness.data.contract import read_image
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.synthetic import with_defect
from harness.features import defective
from harness.features.cache import FeatureCache
from harness.features.defective import ensure_defective, open_defective
from harness.features.extractor import normalise
from harness.features.key import FeatureKey


@pytest.fixture
def there(tmp_path, loaded, data):
    """A cache with an entry, its key, and the images."""
    category = MvtecAd(data).load("left")
    cache, key = FeatureCache(tmp_path / "cache"), FeatureKey.of(loaded, category)
    cache.ensure(key, loaded, category)
    return cache, key, category


def test_the_copies_features_and_masks_are_theirs(there, loaded):
    cache, key, category = there
    before = {p.name: p.read_bytes() for p in (cache.folder / key.digest).iterdir()}
    assert open_defective(cache, key, "synthetic") is None
    ensure_defective(cache, key, "synthetic", loaded, category)
    got = open_defective(cache, key, "synthetic")
    drawn = [with_defect(read_image(s, SIZE)) for s in category.train]
    np.testing.assert_array_equal(got.masks, [np.packbits(mask) for _, mask in drawn])
    with torch.inference_mode():
        images = normalise(np.stack([image for image, _ in drawn]), loaded.backbone)
        expected = loaded.backbone(images)
    for found, wanted in zip(got.features, expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    after = {p.name: p.read_bytes() for p in (cache.folder / key.digest).iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"synthetic-0.npy", "synthetic-1.npy", "synthetic.npz"}
    assert [p.name for p in cache.folder.iterdir()] == [key.digest]
    assert len(cache.open(key).train[0]) == len(category.train)


def test_they_pass_once_and_anew_where_they_are_of_another_version(there, loaded, monkeypatch):
    cache, key, category = there
    passed = cache.passes
    for _ in range(2):
        ensure_defective(cache, key, "synthetic", loaded, category)
    assert (cache.passes - passed, cache.reused) == (8, 8)
    monkeypatch.setattr(defective, "VERSION", synthetic.VERSION + 1)
    assert open_defective(cache, key, "synthetic") is None
    ensure_defective(cache, key, "synthetic", loaded, category)
    assert cache.passes - passed == 16
    assert open_defective(cache, key, "synthetic") is not None


def test_what_is_half_written_is_not_taken(there, loaded, monkeypatch):
    cache, key, category = there
    monkeypatch.setattr(defective, "write_whole", lambda path, content: None)
    ensure_defective(cache, key, "synthetic", loaded, category)  # killed before the masks
    monkeypatch.undo()
    assert open_defective(cache, key, "synthetic") is None
    ensure_defective(cache, key, "synthetic", loaded, category)
    assert open_defective(cache, key, "synthetic") is not None


def test_a_fault_leaves_the_entry_as_it_was(there, loaded, monkeypatch):
    cache, key, category = there
    broken = replace(category, train=(*category.train[:-1], replace(category.train[0], path=key)))
    with pytest.raises(AttributeError):
        ensure_defective(cache, key, "synthetic", loaded, broken)
    assert [p.name for p in cache.folder.iterdir()] == [key.digest]
    assert not list((cache.folder / key.digest).glob("synthetic*"))

"""The feature cache: one pass per image, whole entries, least recently used out first."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import SIZE, SPEC

from harness import claims
from harness.claims import FEATURES, Claims, TakenOver
from harness.data.contract import read_image
from harness.data.layouts.mvtec_ad import MvtecAd
from harness.errors import InputError
from harness.experiment.feature_spec import FeatureSpec
from harness.features.augmentation import augmented, evenly_turned
from harness.features.cache import FeatureCache, entry_bytes, making
from harness.features.defective import all_there, ensure_all
from harness.features.extractor import Extractor, normalise
from harness.features.key import FeatureKey
from harness.features.passing import ahead
from harness.features.views import pooled
from harness.files import temporary
from harness.heartbeat import Heartbeats


@pytest.fixture
def category(data):
    return MvtecAd(data).load("left")


def key_of(extractor, images, **changes):
    return replace(FeatureKey.of(extractor, images), **changes)


def of(extractor, **changes):
    """The same network with another recipe."""
    return replace(extractor, spec=replace(extractor.spec, **changes))


def test_features_are_the_backbones_own(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    features = cache.ensure(key_of(loaded, category), loaded, category)
    assert [f.shape for f in features.train] == [(8, 24, 16, 16), (8, 40, 8, 8)]
    images = np.stack([read_image(s.path, SIZE) for s in category.test])
    with torch.inference_mode():
        expected = loaded.backbone(normalise(images, loaded.backbone))
    for found, wanted in zip(features.test, expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_every_image_passes_once(tmp_path, loaded, category):
    seen = []
    handle = loaded.backbone.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    cache = FeatureCache(tmp_path / "cache")
    key = key_of(loaded, category)
    for _ in range(3):
        cache.ensure(key, loaded, category)
    handle.remove()
    assert sum(seen) == cache.passes == 16
    assert cache.reused == 32


def test_any_change_is_another_entry(loaded, category):
    key = key_of(loaded, category)
    recipe = {
        "backbone": "x", "weights": "random", "taps": (1,), "image_size": 32, "dtype": "float16",
        "resize": "crop", "views": 4, "pooling": 3, "test_turns": 8, "tile_size": 64,
    }  # fmt: skip
    tiles = {"tile_overlap": 0.5}
    changes = {
        "weights_sha256": "x", "mean": (0.0,), "std": (1.0,), "dataset": "x", "category": "x",
        "data_digest": "x", "arithmetic": "cuda tf32",
    }  # fmt: skip
    copies = {
        "augmentation": "paper", "augmentation_degrees": 5.0, "augmentation_copies": 4,
    }  # fmt: skip
    assert {*recipe, *copies, *tiles} == set(FeatureSpec.__dataclass_fields__)
    assert {"spec", *changes} == set(FeatureKey.__dataclass_fields__)
    digests = {replace(key, **{k: v}).digest for k, v in changes.items()}
    digests |= {replace(key, spec=replace(SPEC, **{k: v})).digest for k, v in recipe.items()}
    flips = replace(SPEC, augmentation="flips")
    digests |= {replace(key, spec=replace(flips, **{k: v})).digest for k, v in copies.items()}
    cut = replace(SPEC, tile_size=64)
    digests |= {replace(key, spec=replace(cut, **{k: v})).digest for k, v in tiles.items()}
    digests |= {key.digest, replace(key, spec=flips).digest}
    assert len(digests) == len(changes) + len(recipe) + len(copies) + len(tiles) + 2


def test_features_of_another_arithmetic_are_not_taken_up(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    here = FeatureKey.of(loaded, category)
    cache.ensure(here, loaded, category)
    assert here.about()["arithmetic"] == "cpu float32"
    for name in ("cuda float32", "cuda tf32"):
        assert cache.open(FeatureKey.of(loaded, category, name)) is None
    with pytest.raises(AssertionError, match="cuda tf32"):  # a bug, and no entry of a wrong name
        cache.ensure(FeatureKey.of(loaded, category, "cuda tf32"), loaded, category)


def test_half_precision_is_stored(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    whole = cache.ensure(key_of(loaded, category), loaded, category)
    other = of(loaded, dtype="float16")
    half = cache.ensure(key_of(other, category), other, category)
    assert half.train[0].dtype == np.float16
    np.testing.assert_allclose(half.train[0], whole.train[0], rtol=1e-3, atol=1e-3)


def test_a_crash_leaves_no_entry(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    key = key_of(loaded, category)
    category.test[-1].path.write_bytes(b"no image")
    with pytest.raises(InputError, match="expected an image"):
        cache.ensure(key, loaded, category)
    assert list((tmp_path / "cache").iterdir()) == []


def test_least_recently_used_goes_first_and_kept_entries_stay(tmp_path, loaded, category):
    keys = [key_of(loaded, category, category=name) for name in "abc"]
    cache = FeatureCache(tmp_path / "cache")
    for age, key in enumerate(keys):
        cache.ensure(key, loaded, category)
        os.utime(tmp_path / "cache" / key.digest / "meta.json", (age, age))
    cache.open(keys[0])  # now the most recently used
    size = cache.entries()[0][2]
    cache.limit = 2 * size
    assert [p.name for p in cache.evict()] == [keys[1].digest]
    cache.limit = 0
    with cache.claims as claims, claims.using([keys[2].digest]):
        assert [p.name for p in cache.evict()] == [keys[0].digest]
    assert cache.open(keys[1]) is None
    assert cache.clear() == size
    assert cache.entries() == []


@pytest.fixture
def three(tmp_path, loaded, category):
    """A cache that has room for one of its three entries, and these in the order of their use."""
    cache = FeatureCache(tmp_path / "cache")
    keys = [key_of(loaded, category, category=name) for name in "abc"]
    for age, key in enumerate(keys):
        cache.ensure(key, loaded, category)
        os.utime(cache.folder / key.digest / "meta.json", (age, age))
    cache.limit = cache.entries()[0][2]
    return cache, [cache.folder / key.digest for key in keys]


@pytest.mark.parametrize("done", ["whole", "begun"])
def test_two_that_evict_at_once_remove_no_more_than_one(three, done):
    """The other comes when this one has looked what there is; it may be busy yet."""
    cache, entries = three
    other = FeatureCache(cache.folder, cache.limit)
    other.claims = Claims(cache.folder, FEATURES, token="b" * 16)
    take = cache.claims.take

    def later(work):
        cache.claims.take = take
        if done == "begun":
            other.claims.take(making(entries[0].name))
            entries[0].rename(temporary(entries[0]))
        else:
            assert len(other.evict()) == 2
        return take(work)

    with other.claims:
        cache.claims.take = later
        cache.evict()
    assert [e.exists() for e in entries] == [False, False, True]


def dead_to_all_others(monkeypatch, start):
    """As one that stood still for longer than the limit, and wakes."""
    dead = lambda self, token: token == start != self.token
    monkeypatch.setattr(Heartbeats, "is_dead", dead)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_who_stood_still_shows_no_entry_of_which_others_removed_files(
    tmp_path, loaded, category, monkeypatch, capsys, split
):
    """It wakes in one split or the other; its folder was removed meanwhile, and its claim."""
    monkeypatch.setattr(claims, "PAUSE", 0.001)
    cache, key, calls = FeatureCache(tmp_path / "cache"), key_of(loaded, category), []
    other = Claims(cache.folder, FEATURES, token="c" * 16)
    dead_to_all_others(monkeypatch, cache.claims.token)

    def stand_still(images):
        calls.append(images)
        if len(calls) == split:
            other.clean()

    with cache.claims:
        works = []
        for work in cache.claims.each([making(key.digest)], lambda *_: None):
            works.append(work)
            ensure_all(cache, key, ["synthetic"], loaded, category, progress=stand_still)
    assert len(works) == 2
    assert all_there(cache, key, ["synthetic"])
    assert "another start took this work over" in capsys.readouterr().err
    assert {p.name for p in cache.folder.iterdir()} == {key.digest, "claims"}


def test_who_stood_still_over_a_damaged_entry_removes_no_whole_one(
    tmp_path, loaded, category, monkeypatch
):
    cache, key = FeatureCache(tmp_path / "cache"), key_of(loaded, category)
    cache.ensure(key, loaded, category)
    array = cache.folder / key.digest / "train-0.npy"
    whole = array.read_bytes()
    array.write_bytes(b"")
    other = Claims(cache.folder, FEATURES, token="c" * 16)
    dead_to_all_others(monkeypatch, cache.claims.token)
    look = cache.open

    def stand_still(key):
        try:
            look(key)
        finally:  # damaged; and another start has made it anew since
            other.clean()
            array.write_bytes(whole)

    monkeypatch.setattr(cache, "open", stand_still)
    with cache.claims:
        assert cache.claims.take(making(key.digest))
        with pytest.raises(TakenOver):
            cache.ensure(key, loaded, category)
    assert array.read_bytes() == whole


def test_an_entry_without_its_arrays_does_not_hinder_a_whole_one(
    tmp_path, loaded, category, monkeypatch, capsys
):
    cache, key = FeatureCache(tmp_path / "cache"), key_of(loaded, category)
    cache.ensure(key, loaded, category)
    meta = (cache.folder / key.digest / "meta.json").read_bytes()
    shutil.rmtree(cache.folder / key.digest)

    def show_hollow(images):
        (cache.folder / key.digest).mkdir(exist_ok=True)
        (cache.folder / key.digest / "meta.json").write_bytes(meta)

    cache.ensure(key, loaded, category, progress=show_hollow)
    assert "train-0.npy: expected" in capsys.readouterr().err
    assert cache.open(key) is not None


def test_entry_bytes(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    cache.ensure(key_of(loaded, category), loaded, category)
    counted = sum(
        np.load(f, mmap_mode="r").nbytes for f in tmp_path.rglob("t*.npy") if f.stem[-1].isdigit()
    )
    assert entry_bytes(loaded.shapes, 16, "float32") == counted


# --- turned views -------------------------------------------------------------------------------


@pytest.fixture
def views(tmp_path, loaded, category):
    cache = FeatureCache(tmp_path / "cache")
    eight = of(loaded, views=8)
    return cache.ensure(key_of(eight, category), eight, category)


def test_views_are_pooled_features_of_three_sizes(loaded, category, views):
    backbone = loaded.backbone
    assert [f.shape for f in views.train] == [(8, 72, 8, 1), (8, 120, 8, 1)]
    assert of(loaded, views=8).shapes == ((72, 8, 1), (120, 8, 1))
    assert loaded.shapes == ((24, 16, 16), (40, 8, 8))
    image = read_image(category.test[2].path, SIZE).copy()
    x = normalise(image[None], backbone)
    half = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
    with torch.inference_mode():
        for entry, whole, small in zip(views.test, backbone(x), backbone(half), strict=True):
            channels = whole.shape[1]
            expected = torch.cat((whole, small.repeat(1, 1, 2, 2)), 1).mean((2, 3))[0]
            np.testing.assert_allclose(entry[2, : 2 * channels, 0, 0], expected, atol=1e-5)


def test_views_are_of_turned_images(tmp_path, loaded, category, views):
    """The views of an image turned by 90 degrees are its own from the third on."""
    for sample in (*category.train, *category.test):
        image = Image.fromarray(read_image(sample.path, SIZE))
        image.transpose(Image.Transpose.ROTATE_90).save(sample.path)
    four = of(loaded, views=4)
    turned = FeatureCache(tmp_path / "turned").ensure(key_of(four, category), four, category)
    for ours, theirs in zip(turned.test, views.test, strict=True):
        np.testing.assert_allclose(ours, np.roll(theirs[:, :, ::2], -1, axis=2), atol=1e-5)


def test_what_turns_in_is_black(loaded, category, monkeypatch):
    """A white image turned by 45 degrees: the four corners show nothing."""
    seen, eight = [], of(loaded, views=8)
    backbone = eight.backbone
    monkeypatch.setattr(
        eight.recipe, "take", lambda network, x: seen.append(x) or [x.mean((2, 3))]
    )
    eight.extract(np.full((1, SIZE, SIZE, 3), 255, np.uint8))
    black, white = (
        normalise(np.full((1, SIZE, SIZE, 3), v, np.uint8), backbone) for v in (0, 255)
    )
    assert torch.equal(seen[0], white)
    corners = seen[1][..., [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.equal(corners, black[..., [0, 0, -1, -1], [0, -1, 0, -1]])
    assert torch.equal(seen[1][..., 32, 32], white[..., 32, 32])
    assert torch.equal(seen[2], white)


@pytest.mark.parametrize("change", [{"views": 4}, {"pooling": 3}, {"test_turns": 4}])
def test_what_is_at_rest_is_no_part_of_a_key(loaded, category, change):
    key, other = key_of(loaded, category), key_of(of(loaded, **change), category)
    assert set(key.about()) == {
        "backbone", "weights", "image_size", "taps", "dtype", "weights_sha256", "mean", "std",
        "dataset", "category", "data_digest", "arithmetic", "transform",
    }  # fmt: skip
    assert other.about() == {**key.about(), **change}


def test_how_copies_would_be_drawn_is_no_part_of_the_key_of_an_entry_without(loaded, category):
    other = of(loaded, augmentation_degrees=5.0, augmentation_copies=3)
    assert key_of(other, category) != key_of(loaded, category)
    assert key_of(other, category).digest == key_of(loaded, category).digest


def test_an_entrys_name_is_what_it_was():
    """Written before there was any pooling or augmentation: such entries are still found."""
    key = FeatureKey(
        spec=FeatureSpec(backbone="resnet18.tv_in1k"), weights_sha256="w", mean=(0.5,), std=(0.5,),
        dataset="surfaces", category="grass", data_digest="d",
    )  # fmt: skip
    assert key.digest == "49a4503d96553f11"


# --- augmented copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [3, 20])  # fewer than a batch, and more
def test_copies_are_cached_beside_the_images(tmp_path, loaded, category, copies):
    changes = {"augmentation": "paper", "augmentation_copies": copies, "dtype": "float16"}
    cache, other = FeatureCache(tmp_path / "cache"), of(loaded, **changes)
    half, told = of(loaded, dtype="float16"), []
    plain = cache.ensure(key_of(half, category), half, category)
    assert plain.augmented == []
    before = cache.passes
    found = cache.ensure(key_of(other, category), other, category, progress=told.append)
    images = other.spec.images(8, 8)
    assert cache.passes - before == sum(told) == images == 8 * (1 + copies) + 8
    for split in ("train", "test"):
        for ours, theirs in zip(getattr(found, split), getattr(plain, split), strict=True):
            assert np.array_equal(ours, theirs)
    assert [f.shape for f in found.augmented] == [(8 * copies, 24, 16, 16), (8 * copies, 40, 8, 8)]
    assert {f.dtype for f in found.augmented} == {np.dtype("float16")}
    each = [augmented(read_image(s, SIZE), other.spec) for s in category.train[:2]]
    with torch.inference_mode():
        wanted = other.extract(np.concatenate(each))
    for ours, theirs in zip(found.augmented, wanted, strict=True):
        np.testing.assert_allclose(ours[: 2 * copies], theirs, rtol=1e-3, atol=1e-3)
    entry = tmp_path / "cache" / key_of(other, category).digest
    counted = sum(np.load(f, mmap_mode="r").nbytes for f in entry.glob("*.npy"))
    assert entry_bytes(other.shapes, images, "float16") == counted


def test_turned_test_images_are_cached_beside_them(tmp_path, loaded, category):
    cache, four = FeatureCache(tmp_path / "cache"), of(loaded, test_turns=4)
    found = cache.ensure(key_of(four, category), four, category)
    assert cache.passes == four.spec.images(8, 8) == 8 + 4 * 8
    assert [f.shape for f in found.turned] == [(24, 24, 16, 16), (24, 40, 8, 8)]
    image = read_image(category.test[3], SIZE)
    with torch.inference_mode():
        wanted = four.extract(evenly_turned(image, 4))
    for ours, theirs in zip(found.turned, wanted, strict=True):
        np.testing.assert_allclose(ours[9:12], theirs, atol=1e-4)


# --- pooling ------------------------------------------------------------------------------------


def test_pooling_by_pencil():
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 18]], dtype=torch.float64)
    wanted = [[3, 3.5, 4], [4.5, 6, 7], [6, 8, 37 / 4]]  # corners of 4, sides of 6, middle of 9
    found = pooled(x[None, None], 3)[0, 0]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert pooled(x, 0) is x


@pytest.mark.parametrize("window", [3, 5])
def test_pooling_is_a_sum_over_a_count(window):
    generator = torch.Generator().manual_seed(window)
    x = torch.randn(2, 3, 7, 4, dtype=torch.float64, generator=generator)
    sums, counts = (
        F.avg_pool2d(v, window, 1, window // 2, divisor_override=1)
        for v in (x, torch.ones_like(x))
    )
    torch.testing.assert_close(pooled(x, window), sums / counts)


def test_pooled_features_are_cached_and_timed(tmp_path, loaded, category):
    cache, other = FeatureCache(tmp_path / "cache"), of(loaded, pooling=3)
    plain = cache.ensure(key_of(loaded, category), loaded, category)
    found = cache.ensure(key_of(other, category), other, category)
    assert other.shapes == loaded.shapes
    for ours, whole in zip(found.test, plain.test, strict=True):
        wanted = F.avg_pool2d(torch.tensor(whole), 3, 1, 1, count_include_pad=False)
        torch.testing.assert_close(torch.tensor(ours), wanted, atol=1e-5, rtol=1e-5)
    images = np.stack([read_image(s.path, SIZE) for s in category.test])
    with torch.inference_mode():
        looked = other.look(normalise(images, other.backbone))
    for ours, timed in zip(found.test, looked, strict=True):
        np.testing.assert_allclose(ours, timed, atol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_views_need_a_convolutional_backbone(name):
    spec = FeatureSpec(backbone=f"{name}.x", taps=(7,), image_size=224, views=4)
    with pytest.raises(InputError, match=f"views: expected a convolutional backbone.*{name}"):
        _ = Extractor.on_meta(spec).shapes


def test_ahead_keeps_the_order_and_reads_one_further():
    started, seen = [], []
    for result in ahead(lambda n: started.append(n) or 10 * n, range(4)):
        deadline = time.monotonic() + 5
        while len(started) < min(len(seen) + 2, 4) and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append((result, len(started)))
    assert seen == [(0, 2), (10, 3), (20, 4), (30, 4)]


def test_ahead_raises_what_the_function_raises():
    def half(n):
        if n == 2:
            raise OSError("gone")
        return n

    results = ahead(half, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(results)

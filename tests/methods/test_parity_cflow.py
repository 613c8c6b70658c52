"""CFLOW-AD beside anomalib's: their training step and their model, fed our features.

The same initial weights and the same order of vectors; then the figures differ by what is meant
to differ alone (see harness/methods/cflow.py).
"""

import os
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from tiny import SHARED
from torch import nn

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.experiment.choices import METHODS
from harness.experiment.feature_spec import FeatureSpec
from harness.features.cache import FeatureCache
from harness.features.extractor import Extractor
from harness.features.key import FeatureKey
from harness.methods.cflow import CFLOW
from harness.score.images import image_scores
from harness.score.maps import anomaly_maps
from harness.score.metrics import image_metrics

pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip(
        "anomalib.models.image.cflow.lightning_model", reason="the peer anomalib is not installed"
    )

SIZE, TAPS, SEED = 256, (1, 2, 3), 0
SHAPES = ((64, 64, 64), (128, 32, 32), (256, 16, 16))
RECIPE = METHODS["cflow"].recipe
SCORE = {k: RECIPE[k] for k in ("score_map", "scale_aggregation", "align_corners")}
SCORE |= {"size": SIZE, "smoothing": 0.0}
# What one test run can afford; more of it by hand.
IMAGES, EPOCHS, BATCH, TESTED = (
    int(n) for n in os.environ.get("CFLOW_PARITY", "16,1,8,40").split(",")
)


class Cached(nn.Module):
    """In the place of anomalib's encoder: the features it is handed."""

    def forward(self, images):
        return {f"layer{i + 1}": f for i, f in enumerate(self.features)}


def make_peer(ours):
    """Anomalib's Cflow with our weights and permutations, its optimiser beside it."""
    theirs = peer.Cflow(
        "resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False, fiber_batch_size=256
    )
    for flow, decoder in zip(ours.flows, theirs.model.decoders, strict=True):
        for step, block in zip(flow, decoder, strict=True):
            hard = torch.eye(len(step.perm))[step.perm]
            state = {"w_perm": hard, "w_perm_inv": hard.T}
            for name, p in step.named_parameters():
                flat = p.detach().flatten(2).squeeze(-1) if p.ndim > 1 else p.detach()
                state[name.removeprefix("affine.")] = flat
            block.load_state_dict(state)
    theirs.model.encoder = Cached()
    optimiser = theirs.configure_optimizers()
    theirs.optimizers = lambda: optimiser
    theirs.manual_backward = torch.Tensor.backward
    theirs.log = lambda *a, **k: None
    return theirs


def tensors(arrays, rows):
    return [torch.from_numpy(np.ascontiguousarray(a[rows])) for a in arrays]


def train(ours, theirs, arrays):
    """Both models through the same batches; the CPU seconds of each."""
    optimiser = torch.optim.Adam(ours.parameters(), lr=theirs.learning_rate)
    seconds = np.zeros(2)
    torch.manual_seed(SEED)  # anomalib draws from torch's default generator
    for _ in range(EPOCHS):
        for start in range(0, IMAGES, BATCH):
            batch = tensors(arrays, slice(start, start + BATCH))
            begun = time.process_time()
            for loss in ours.losses(batch):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            seconds[0] += time.process_time() - begun
            theirs.model.encoder.features = batch
            begun = time.process_time()
            theirs.training_step(SimpleNamespace(image=torch.empty(BATCH, 3, SIZE, SIZE)))
            seconds[1] += time.process_time() - begun
    return seconds


def their_maps(theirs, test):
    """Their anomaly maps, all test images being one batch: the maximum is over the test set."""
    theirs.model.encoder.features = test
    theirs.model.fiber_batch_size = 16384
    return theirs.model(torch.empty(len(test[0]), 3, SIZE, SIZE)).anomaly_map


def auroc(labels, maps):
    scores = image_scores(maps, image_score="max", top_k=0.01)
    return image_metrics(scores.numpy(), labels)["image_auroc"]


def rank_correlation(a, b):
    """Spearman's, of every fourth pixel."""
    return float(spearmanr(a[:, ::4, ::4].flatten(), b[:, ::4, ::4].flatten()).statistic)


def our_taps(ours, test):
    parts = [ours.energies([f[i : i + 8] for f in test]).taps for i in range(0, len(test[0]), 8)]
    return [tuple(map(torch.cat, zip(*tap, strict=True))) for tap in zip(*parts, strict=True)]


def build():
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    ours = CFLOW(SHAPES, generator=generator)
    ours.to(memory_format=torch.channels_last)
    generator.manual_seed(SEED)  # the vectors' order from here on, as theirs
    return ours


@torch.inference_mode()
def test_the_decoders_and_the_map_equal_anomalibs():
    ours = build()
    for p in ours.parameters():
        p.add_(0.02 * torch.randn(p.shape))
    theirs = make_peer(ours)
    test = [torch.randn(2, *shape) for shape in SHAPES]
    from anomalib.models.image.cflow.utils import get_logp, positional_encoding_2d

    likelihoods = []
    for (energy, log_det), decoder, x in zip(
        ours.energies(test).taps, theirs.model.decoders, test, strict=True
    ):
        channels, height, width = x.shape[1:]
        code = positional_encoding_2d(128, height, width).flatten(1).T.repeat(2, 1)
        z, jacobian = decoder(x.permute(0, 2, 3, 1).flatten(0, 2), [code])
        expected = get_logp(channels, z, jacobian) / channels
        log_p = log_det - energy - 0.5 * np.log(2 * np.pi)
        torch.testing.assert_close(log_p.flatten(), expected, rtol=1e-4, atol=1e-4)
        likelihoods.append(torch.exp(log_det - energy - (log_det - energy).max())[:, None])
    up = [F.interpolate(p, SIZE, mode="bilinear", align_corners=True) for p in likelihoods]
    summed = sum(up)
    expected = their_maps(theirs, test).view_as(summed)
    torch.testing.assert_close(summed.max() - summed, expected, rtol=1e-3, atol=1e-4)


def features_of(category, folder):
    spec = FeatureSpec(backbone="resnet18.tv_in1k", taps=TAPS, image_size=SIZE)
    extractor = Extractor.load(spec, SHARED / "weights")
    images = MvtecAd(SHARED / "data" / "mvtec").load(category)
    some = images.test[:: max(1, len(images.test) // TESTED)]
    images = replace(images, train=images.train[:IMAGES], test=some)
    key = FeatureKey.of(extractor, images)
    labels = np.array([s.label for s in images.test])
    return FeatureCache(folder).ensure(key, extractor, images), labels


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no folder of real data beside this")
@pytest.mark.parametrize("category", ["bottle", "screw"])
def test_trained_side_by_side_the_maps_rank_as_anomalibs(category, tmp_path):
    features, labels = features_of(category, tmp_path)
    ours = build()
    theirs = make_peer(ours)
    seconds = train(ours, theirs, features.train)
    ours.fit(features.train)
    test = tensors(features.test, slice(None))
    expected = their_maps(theirs, test).view(-1, SIZE, SIZE)
    taps = our_taps(ours, test)
    tops = [(log_det - energy).max() for energy, log_det in taps]
    on_test = [(e, j - top) for (e, j), top in zip(taps, tops, strict=True)]
    expected_auroc = auroc(labels, expected)
    maps = {
        "ours": anomaly_maps(taps, **SCORE),
        "test maximum": anomaly_maps(on_test, **SCORE),
        "corners not aligned": anomaly_maps(taps, **SCORE | {"align_corners": False}),
        "smoothed": anomaly_maps(taps, **SCORE | {"smoothing": 4.0}),
    }
    figures = {n: (rank_correlation(m, expected), auroc(labels, m)) for n, m in maps.items()}
    print(f"\n{category}: AUROC of theirs {expected_auroc:.4f}")
    for name, (rank, image) in figures.items():
        print(f"  {name}: rank correlation {rank:.5f}, AUROC {image:.4f}")
    print(f"  test above training maximum: {[round(float(top), 4) for top in tops]}")
    rates = [round(IMAGES * EPOCHS / s, 2) for s in seconds]
    print(f"  training, images per CPU second: ours {rates[0]}, anomalib's {rates[1]}")
    rank, image = figures["ours"]
    assert rank >= 0.99
    assert image == pytest.approx(expected_auroc, abs=0.005)
    assert figures["ours"][0] >= 0.95  # half a position of the coarsest tap is 8 pixels
    assert rank_correlation(maps["ours"], maps["test maximum"]) >= 0.999

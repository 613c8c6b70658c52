"""PatchCore and PaDiM beside anomalib's models, fed the same real features.

What is drawn at random is the same for both, because PatchCore's map varies with it: with 1 % of
bottle's patches, two draws of anomalib's own projection correlate to 0.90. Left as they are:
anomalib adds 1e-5 more to PaDiM's covariances, and enlarges PatchCore's map without interpolation
before the blur (ours: bilinear). Run with ``-s`` to see the figures.
"""

import numpy as np
import pytest
import torch
from parity_data import SIZE, batches, real_features
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from harness.methods import patchcore
from harness.methods.memory.coreset import greedy_coreset
from harness.methods.padim import PaDiM
from harness.methods.patchcore import PatchCore
from harness.score.maps import anomaly_maps

pytestmark = pytest.mark.filterwarnings("ignore")
LAYERS = ["layer1", "layer2", "layer3"]
PICKS = 50  # of the coreset, which anomalib takes a quarter of a second each for
SHARE = 0.01


@pytest.fixture(params=["bottle", "screw"])
def data(request, tmp_path_factory):
    pytest.importorskip("anomalib", reason="anomalib is not installed")
    folder = tmp_path_factory.getbasetemp() / "features"
    return request.param, *real_features(request.param, folder)[:3]


def shapes(arrays):
    return [a.shape[1:] for a in arrays]


def ours(method, test):
    """Anomaly maps as a run makes them, and image scores."""
    maps, images = [], []
    for batch in batches(test):
        scores = method.energies(batch)
        maps.append(
            anomaly_maps(
                scores.taps, size=SIZE, score_map="nll", scale_aggregation="mean", smoothing=4.0
            )
        )
        images.append(maps[-1].flatten(1).amax(1) if scores.images is None else scores.images)
    return torch.cat(maps), torch.cat(images)


def judge(what, mine, theirs, labels):
    """Rank correlation of all pixels (every third, both ways), and image AUROC in points."""
    ranks = [rankdata(maps[:, ::3, ::3].flatten().numpy()) for maps, _ in (mine, theirs)]
    correlation = np.corrcoef(*ranks)[0, 1]
    auroc = [100 * roc_auc_score(labels, scores.numpy()) for _, scores in (mine, theirs)]
    print(f"\n{what}: rank correlation {correlation:.5f}, image AUROC {auroc[0]:.2f} beside "
          f"{auroc[1]:.2f}")  # fmt: skip
    assert correlation >= 0.99
    assert abs(auroc[0] - auroc[1]) <= 0.5


def test_padim(data):
    from anomalib.models.image.padim.torch_model import PadimModel

    name, train, test, labels = data
    method = PaDiM(shapes(train), generator=torch.Generator().manual_seed(0))
    method.fit(train)
    peer = PadimModel(backbone="resnet18", layers=LAYERS, pre_trained=False)
    starts = np.cumsum([0, *(a.shape[1] for a in train)])
    peer.idx = torch.tensor([s + i for s, k in zip(starts, method.kept, strict=False) for i in k])
    embed = lambda batch: peer.generate_embedding(dict(zip(LAYERS, batch, strict=True)))
    peer.memory_bank = [embed(batch) for batch in batches(train)]
    peer.fit()
    gaussian = {"mean": peer.gaussian.mean, "inv_covariance": peer.gaussian.inv_covariance}
    generate = peer.anomaly_map_generator
    maps = torch.cat(
        [
            generate(embedding=embed(batch), image_size=(SIZE, SIZE), **gaussian)[:, 0]
            for batch in batches(test)
        ]
    )
    judge(f"PaDiM, {name}", ours(method, test), (maps, maps.flatten(1).amax(1)), labels)


def test_patchcore(data, monkeypatch):
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    name, train, test, labels = data
    torch.manual_seed(0)
    peer = PatchcoreModel(layers=LAYERS[1:], backbone="resnet18", pre_trained=False).eval()

    def embed(batch):
        pooled = [peer.feature_pooler(x) for x in batch[1:]]
        features = peer.generate_embedding(dict(zip(LAYERS[1:], pooled, strict=True)))
        return peer.reshape_embedding(features)

    everything = torch.cat([embed(batch) for batch in batches(train)])
    sampler = KCenterGreedy(everything, (PICKS + 0.5) / len(everything))
    order = sampler.select_coreset_idxs()
    chosen = []

    def select(features, picks, **_):
        chosen.extend(greedy_coreset(features, picks, start=order[0]).tolist())
        return torch.tensor(chosen)

    projection = sampler.model.sparse_random_matrix.T
    monkeypatch.setattr(patchcore, "sparse_projection", lambda *_: projection)
    monkeypatch.setattr(patchcore, "greedy_coreset", select)
    method = PatchCore(shapes(train), coreset=SHARE)
    method.fit(train)
    assert chosen[:PICKS] == order
    peer.memory_bank = everything[chosen]
    torch.testing.assert_close(method.bank.sort(0).values, peer.memory_bank.sort(0).values)

    def score(batch):
        found, where = (t.view(len(batch[0]), -1) for t in peer.nearest_neighbors(embed(batch), 1))
        images = peer.compute_anomaly_score(found, where, embed(batch))
        found = found.view(-1, 1, 32, 32)
        return peer.anomaly_map_generator(found, (SIZE, SIZE))[:, 0], images, found[:, 0]

    maps, images, found = (
        torch.cat(t) for t in zip(*(score(b) for b in batches(test)), strict=True)
    )
    mine = [method.energies(batch) for batch in batches(test)]
    torch.testing.assert_close(
        torch.cat([s.taps[0][0] for s in mine]), found, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(torch.cat([s.images for s in mine]), images, rtol=1e-3, atol=1e-3)
    judge(f"PatchCore, {name}", ours(method, test), (maps, images), labels)

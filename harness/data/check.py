"""Every file of a category, looked at once, before anything runs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness.data.contract import Category, all_facts
from harness.data.remarks import Remark
from harness.errors import InputError


def check(category: Category, *, leaks: str = "refuse") -> list[Remark]:
    """Look at every image and mask of a category.

    Args:
        category: its files are read and decoded, each once.
        leaks: ``refuse``, or ``allow``: whether a training image may be a test image too.

    Returns:
        What should be known of files that are used as they are.

    Raises:
        InputError: an image or mask is damaged, a mask is not of its image's size, all masks are
            black, or a training image is among the test images.
    """
    _check_masks(category)
    if leaks == "refuse":
        _refuse_leaks(category)
    return []


def _check_masks(category: Category) -> None:
    all_facts(category.train)
    facts = all_facts(category.test)
    masked = [(s, f) for s, f in zip(category.test, facts, strict=True) if s.masks]
    for sample, image in masked:
        for path, mask in zip(sample.masks, sample.mask_facts(), strict=True):
            if mask.size != image.size:
                raise InputError(
                    f"{path}: expected the size of its image {sample.path.name}, "
                    f"{'x'.join(map(str, image.size))}; got {'x'.join(map(str, mask.size))}; "
                    "draw it on the image as it is shown (EXIF may turn it)"
                )
    still = [replace(s, motion=None) for s, _ in masked]
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda s: bool(s.defective().any()), still))
    if still and not any(drawn):
        raise InputError(
            f"{still[0].masks[0]}: expected a defect, pixels that are not zero, in some mask of "
            f"{category.name}; all {len(still)} are black; draw them or remove them"
        )


def _refuse_leaks(category: Category) -> None:
    train, test = all_facts(category.train), all_facts(category.test)
    seen = {f.sha256: s for f, s in zip(train, category.train, strict=True)}
    same = zip(test, category.test, strict=True)
    pairs = [(seen[f.sha256], s) for f, s in same if f.sha256 in seen]
    if pairs:
        one, other = pairs[0]
        raise InputError(
            f"{other.path}: expected a test image that is not trained on; it is the same as "
            f"{one.path} ({len(pairs)} such in {category.name}); remove one of each, or "
            "--set leaks=allow"
        )

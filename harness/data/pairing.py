"""Which mask is of which image, by their names and folders.

A mask lies below a folder of masks as its image lies below its own, or flat, or in a folder of
its image's name; its own name is the image's, or that with ``_mask``, ``_gt``, ``_label`` … after
it. Or it lies beside its image. Names as in :mod:`harness.data.roles`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from harness.data import images
from harness.data.roles import IMAGES, MASKS, TEST, TRAIN, is_good, key, masked_stems, spelled
from harness.errors import InputError

Places = Mapping[Path, tuple[str, ...]]  # file → the folders it lies in, below its role's
Pairs = dict[Path, tuple[Path, ...]]  # image → its masks
TWO_VALUED = 0.98  # the share of a mask's pixels that are black or white, at least
BLACK = 0.3  # the share of black pixels of what is called a mask, at least
KINDS = 8  # grey values that a mask of numbered kinds of defect has, at most


def pair(pictures: Places, masks: Places, others: Places | None = None) -> Pairs:
    """Find every mask's image.

    Args:
        pictures: the images with a defect.
        masks: the files below folders of masks.
        others: good images, whose masks show nothing; asked where no defective one is found.

    Raises:
        InputError: a mask has no image or could be of several, or two are of one image.

    >>> image, mask = Path("test/scratch/7.png"), Path("ground_truth/scratch/7_mask.png")
    >>> pair({image: ("scratch",)}, {mask: ("scratch",)}) == {image: (mask,)}
    True
    """
    groups = [_Group.of(pictures), _Group.of(others or {})]
    orders: tuple[Callable[[Path], list[tuple[str, bool]]], ...]
    orders = masked_stems, lambda mask: masked_stems(mask)[::-1]
    faults: list[InputError] = []
    for order in orders:  # photos may be called x_mask: either reading, if it leaves none over
        try:
            return _assigned({m: _image(m, f, order(m), groups) for m, f in masks.items()})
        except InputError as error:
            faults.append(error)
    raise faults[0]


def beside(
    pictures: Sequence[Path], others: Sequence[Path], masked: Collection[str] = ()
) -> Pairs:
    """Find the masks that lie beside their images.

    Args:
        pictures: the images of some folders, masks among them.
        others: labelme's files there.
        masked: stems of masks elsewhere: a picture of such a stem may be a photo, whatever it is
            called.

    Returns:
        Image → masks; what is a mask here is no photo.

    Raises:
        InputError: a picture is called a mask and shows none, or two of one image differ.
    """
    stems: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in pictures:
        stems[path.parent, spelled(path.stem).casefold()].append(path)
    pairs: dict[Path, list[Path]] = defaultdict(list)
    taken: set[Path] = set()
    labelme = set(others)
    for mask in sorted((*pictures, *others)):
        own = spelled(mask.stem).casefold()
        for stem, _ in masked_stems(mask):
            found = [p for p in stems.get((mask.parent, stem), ()) if p != mask and p not in taken]
            if len(found) != 1:
                continue
            if mask in labelme or _shows_a_mask(mask, found[0], called=stem != own):
                pairs[found[0]].append(mask)
                taken.add(mask)
                break
            if stem != own and own not in masked:
                raise InputError(
                    f"{mask}: expected the mask of {found[0].name}, as it is called so; its size "
                    "or its colours are no mask's; mend it, or rename one of the two"
                )
    for masks in pairs.values():
        whole = [m for m in masks if not masked_stems(m)[-1][1]]
        for one, other in pairwise(whole):
            require_same([one], [other])
    return {image: tuple(masks) for image, masks in pairs.items() if image not in taken}


def require_same(masks: Sequence[Path], others: Sequence[Path]) -> None:
    """Refuse, by an InputError, masks of one image that do not show the same."""
    one, other = (
        np.logical_or.reduce([images.read_defects(p) for p in m]) for m in (masks, others)
    )
    if not np.array_equal(one, other):
        raise InputError(
            f"{masks[0]}: expected the same defect as {others[0]}, another mask of its image; "
            "remove one"
        )


class _Group(NamedTuple):
    """Images by their stem, and the folders of each that say something."""

    stems: dict[str, list[Path]]
    where: dict[Path, tuple[str, ...]]

    @classmethod
    def of(cls, pictures: Places) -> "_Group":
        stems: dict[str, list[Path]] = defaultdict(list)
        for path in pictures:
            stems[spelled(path.stem).casefold()].append(path)
        return cls(stems, {path: _plain(folders) for path, folders in pictures.items()})


def _is_grey(picture: Image.Image) -> bool:
    colours = np.asarray(picture.convert("RGB"))
    return bool((colours == colours[..., :1]).all())


def _plain(folders: Sequence[str]) -> tuple[str, ...]:
    """Folders without those that name a role, good ones under one name."""
    kept = [key(name) for name in folders]
    return tuple(
        "good" if is_good(Path(name)) else name
        for name in kept
        if name not in MASKS | TEST | TRAIN | IMAGES
    )


def _image(
    mask: Path,
    folders: Sequence[str],
    names: Sequence[tuple[str, bool]],
    groups: Sequence["_Group"],
) -> tuple[Path, bool]:
    """The image of a mask, and whether it may have several."""
    plain = _plain(folders)
    tries = [(stem, part, plain) for stem, part in names]
    if folders:  # a folder for every image, as in MVTec LOCO AD
        tries.append((spelled(folders[-1]).casefold(), True, _plain(folders[:-1])))
    for group, (stem, part, inside) in product(groups, tries):
        found = [p for p in group.stems.get(stem, ()) if _below(inside, group.where[p])]
        found = [p for p in found if group.where[p] == inside] or found
        if len(found) == 1:
            return found[0], part
        if found:
            _refuse_several(mask, sorted(found))
    raise InputError(
        f"{mask}: expected its image {names[-1][0]}.* among the test images"
        f"{' of ' * bool(plain)}{'/'.join(plain)}; found none; add the image or remove the mask"
    )


def _below(inside: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether the one's names are among the other's, in their order."""
    left = iter(folders)
    return all(name in left for name in inside)


def _refuse_several(mask: Path, found: Sequence[Path]) -> None:
    one, other = found[:2]
    if one.parent == other.parent:
        raise InputError(
            f"{other}: expected another name than {one.name}'s, as both would have the mask "
            f"{mask.name}; rename one and its mask"
        )
    raise InputError(
        f"{mask}: expected to tell which image it is of; {one.parent.name}/{one.name} and "
        f"{other.parent.name}/{other.name} have its name; put it into a folder of that name"
    )


def _assigned(found: Mapping[Path, tuple[Path, bool]]) -> Pairs:
    pairs: dict[Path, list[Path]] = defaultdict(list)
    for mask in sorted(found):
        pairs[found[mask][0]].append(mask)
    for masks in pairs.values():
        whole = [m for m in masks if not found[m][1]]
        for one, other in pairwise(whole):
            if one.parent == other.parent:
                raise InputError(
                    f"{other}: expected one mask an image; {one.name} is of the same; remove one"
                )
            require_same([one], [other])
    return {image: tuple(masks) for image, masks in pairs.items()}


def _shows_a_mask(path: Path, image: Path, *, called: bool) -> bool:
    """Whether a picture beside another of its name is a mask by what it shows.

    Of one that is called a mask, grey that is black in parts is enough, as of smoothed edges.
    """
    try:
        picture = images.open_image(path)
        deep = picture.mode.startswith(("I", "F"))
        grey = np.asarray(picture if deep else picture.convert("L"))
        of_its_size = picture.size == images.open_image(image).size
    except (InputError, ValueError):  # damaged: said when every image is looked at
        return False
    if deep:  # no grey of 256 levels: a mask has few values
        return bool(of_its_size and len(np.unique(grey)) <= KINDS)
    if called and of_its_size and _is_grey(picture) and (grey == 0).mean() >= BLACK:
        return True
    counts = np.bincount(grey.ravel(), minlength=256)
    white = int(np.flatnonzero(counts)[-1])
    extreme = counts[: white // 10 + 1].sum() + counts[white - white // 10 :].sum()
    return bool(
        of_its_size and (np.count_nonzero(counts) <= KINDS or extreme >= TWO_VALUED * counts.sum())
    )

"""One category's folder: which of its photos are good, which show a defect, which files are masks.

Folders count by their names (:mod:`harness.data.roles`), or by what a person says of them
(:class:`harness.experiment.settings.Folders`). Photos may lie in folders below these: by day, by
camera, by batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.data import images
from harness.data.contract import Sample
from harness.data.folders import files_below, images_in, printable, subfolders
from harness.data.labelme import is_labelme
from harness.data.pairing import Pairs, Places, beside, pair, require_same
from harness.data.roles import MASKS, TEST, TRAIN, VALIDATION, is_bad, is_good, key, means, spelled
from harness.data.roles import says_nothing as neutral
from harness.errors import InputError
from harness.experiment.settings import Folders

LABEL = "good"  # of an image without a defect
BY_NAME = Folders()


class Found(NamedTuple):
    """Hold a category's samples: good ones that no test split takes, and those of a test split."""

    good: list[Sample]
    test: list[Sample]


@dataclass
class _Roles:
    """Hold the folders of good photos, of test photos with their label, and of masks."""

    good: list[Path] = field(default_factory=list)
    test: dict[Path, str] = field(default_factory=dict)
    masks: list[Path] = field(default_factory=list)


def read_folder(root: Path, said: Folders = BY_NAME) -> Found:
    """Find the samples below a category's folder; nothing but what may be a mask is decoded.

    Args:
        root: the folder.
        said: folders whose role a person names; the others count by their own names.

    Raises:
        InputError: a test image without a label, a label without images, or masks that do not
            match their images.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("Good/1.png", "Good/monday/2.png", "crack/3.png"):
    ...         Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(folder, name).touch()
    ...     found = read_folder(Path(folder))
    >>> len(found.good), [s.defect for s in found.test]
    (2, ['crack'])
    """
    roles = _roles(root, said)
    good = [p for folder in roles.good for p in _files(root, folder, roles)]
    test = [(p, n) for folder, n in sorted(roles.test.items()) for p in _test(root, folder, roles)]
    pictures = [p for p in (*good, *(p for p, _ in test)) if _is_image(p)]
    others = [p for p in (*good, *(p for p, _ in test)) if is_labelme(p)]
    drawn = _masks(root, roles, said)
    near = beside(pictures, others, {spelled(p.stem).casefold() for p in drawn})
    photos = set(pictures).difference(*near.values())
    defective = {p: _folders(root, p) for p, label in test if label != LABEL and p in photos}
    held = [p for p, label in test if label == LABEL] or good
    clean = {p: (LABEL, *_folders(root, p)) for p in held if p in photos}
    taught = {p: (LABEL, *_folders(root, p)) for p in good if p in photos}
    of_train = {m: f for m, f in drawn.items() if any(key(name) in TRAIN for name in f)}
    of_test = {m: f for m, f in drawn.items() if m not in of_train}
    masks = _joined(near, pair(defective, of_test, clean) | pair({}, of_train, taught))
    return Found(
        [Sample(p, LABEL, masks.get(p, ())) for p in sorted(set(good) & photos)],
        [Sample(p, label, masks.get(p, ())) for p, label in test if p in photos],
    )


def has_good_images(root: Path, said: Folders = BY_NAME) -> bool:
    """Tell whether there are good images where a category's folder has them."""
    return any(_is_image(p) for folder in _roles(root, said).good for p in files_below(folder))


def unknown_folders(root: Path) -> list[str]:
    """List the folders of a folder that hold images, of no role that their names say."""
    known = TRAIN | TEST | VALIDATION | MASKS
    folders = [c for c in subfolders(root) if not (means(c, known) or is_good(c) or is_bad(c))]
    return [c.name for c in folders if any(map(_is_image, files_below(c)))]


def _roles(root: Path, said: Folders) -> _Roles:
    """What each folder is, as said or by its name."""
    children = list(_children(root))
    train = [c for c in children if means(c, TRAIN)]
    tests = [c for c in children if means(c, TEST)]
    masks = [c for p in (root, *train, *tests) for c in subfolders(p) if means(c, MASKS)]
    masks = [m for m in masks if not any((other / m.name).is_dir() for other in masks)]
    roles = _Roles(masks=_named(root, said.masks) or masks)
    roles.good = _named(root, said.good) or _good(root, train, children, roles)
    taught = {key(c.name) for f in train if f in roles.good for c in subfolders(f)}
    labelled = not (said.good_test or said.defective)
    for folder in tests:
        if labelled and (loose := images_in(folder)):
            raise InputError(
                f"{loose[0]}: expected test images in {folder.name}/{LABEL}/ or "
                f"{folder.name}/<defect>/; move it to where it belongs"
            )
        for child in _children(folder):
            if is_good(child) or key(child.name) in taught:
                roles.test |= {} if said.good_test else {child: LABEL}
            elif child not in roles.masks and not said.defective:
                roles.test[child] = printable(spelled(child.name))
    roles.test |= dict.fromkeys(_named(root, said.good_test), LABEL)
    defective = _named(root, said.defective)
    if not tests and not said.defective:
        defective = _side_by_side(children, roles)
    for folder in defective:
        if (name := printable(spelled(folder.name))) == LABEL:
            raise InputError(f"--defective: expected a defect's folder; got {folder}; rename it")
        roles.test[folder] = name
    return roles


def _children(folder: Path) -> Iterator[Path]:
    """Folders in a folder; in place of one whose name says nothing, those in it, if there are any.

    So is a line's or a camera's folder with good and bad ones in it.
    """
    for child in subfolders(folder):
        below = [] if is_good(child) or is_bad(child) else subfolders(child)
        if below and (
            neutral(child) or (not means(child, TRAIN | TEST) and any(map(is_good, below)))
        ):
            yield from _children(child)
        else:
            yield child


def _good(root: Path, train: list[Path], children: list[Path], roles: _Roles) -> list[Path]:
    """The folders of good photos: the first kind of place that has any."""
    inner = [c for folder in train for c in subfolders(folder) if is_good(c)]
    for places in (inner, train, [c for c in children if is_good(c)], [root]):
        if any(_is_image(p) for folder in places for p in _files(root, folder, roles)):
            return places
    return []


def _side_by_side(children: list[Path], roles: _Roles) -> list[Path]:
    """Folders of defects beside ``good``, or whose name says so."""
    rest = [
        c
        for c in children
        if c not in (*roles.good, *roles.masks)
        and any(_is_image(p) for p in files_below(c))
        and not (means(c, TRAIN | VALIDATION) or is_good(c) or neutral(c))
    ]
    bad = [c for c in rest if is_bad(c)]
    beside_good = any(is_good(c) for c in roles.good if c in children)
    return bad or (rest if beside_good else [])


def _named(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders that a person names, below the category's own."""
    found = [root / name for name in names]
    for folder, name in zip(found, names, strict=True):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{name}: expected a folder below --data, named from there on")
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder, named below --data; found none")
    return found


def _files(root: Path, folder: Path, roles: _Roles) -> list[Path]:
    """Files that may be good photos; of the category's own folder only those of no other role."""
    closed = {*roles.masks, *roles.test}

    def enter(child: Path) -> bool:
        if child in closed or is_bad(child) or means(child, MASKS | TEST | VALIDATION):
            roles.masks += [child] if means(child, MASKS) and child not in roles.masks else []
            return False
        return folder != root or neutral(child)

    return files_below(folder, enter)


def _test(root: Path, folder: Path, roles: _Roles) -> list[Path]:
    """Files that may be photos of one label."""

    def enter(child: Path) -> bool:
        if masks := means(child, MASKS):
            roles.masks += [child] if child not in roles.masks else []
        return not masks

    found = files_below(folder, enter)
    if not any(_is_image(p) for p in found):
        raise InputError(f"{folder}: expected images; found none; add some or remove it")
    return found


def _masks(root: Path, roles: _Roles, said: Folders) -> Places:
    """The masks, each with the folders that say whose it is."""
    named = set(_named(root, said.masks))
    return {
        path: _folders(folder if folder in named else root, path)
        for folder in roles.masks
        for path in files_below(folder)
        if (_is_image(path) or is_labelme(path)) and path not in roles.test
    }


def _folders(root: Path, path: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts[:-1]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES


def _joined(near: Pairs, far: Pairs) -> Pairs:
    """Masks beside their images and elsewhere; of one image both must say the same."""
    for image in near.keys() & far.keys():
        require_same(near[image], far[image])
    return {image: near.get(image, ()) + far.get(image, ()) for image in (*near, *far)}

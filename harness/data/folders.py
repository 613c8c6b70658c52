"""Folders of images: what is in them, and what is wrong with them."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from harness.data.images import SUFFIXES
from harness.data.roles import TRAIN, is_good, means, spelled
from harness.errors import InputError

EVERY = 5


def expanded(root: Path) -> Path:
    """Expand what ``--data`` names, there or not, with the user's folder for ``~``."""
    try:
        root = root.expanduser()
        root.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a user who is not there
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--data: expected a folder; got {brief(root)} ({reason})") from None
    return root


def existing(root: Path) -> Path:
    """Find the folder or file that ``--data`` names; near matches where there is none."""
    root = expanded(root)
    if root.exists():
        return root
    beside = [p.name for p in entries(root.parent)] if root.parent.is_dir() else []
    near = get_close_matches(root.name, beside, n=1)
    hint = f"; did you mean '{root.parent / near[0]}'?" if near else ""
    raise InputError(f"--data: expected a folder; got {root}, which does not exist{hint}")


def brief(text: object) -> str:
    """Cut a text to the 60 characters that a message can hold."""
    said = str(text)
    return said if len(said) <= 60 else f"{said[:60]}…"


def own_name(folder: Path) -> str:
    """Give a folder's name as a person wrote it: a link's own, not that of what it leads to.

    >>> own_name(Path("/photos/plates/../bolts"))
    'bolts'
    """
    return spelled(Path(os.path.abspath(folder)).name)  # noqa: PTH100 -- resolve() follows links


def existing_folder(root: Path) -> Path:
    """Find the folder that ``--data`` names; see :func:`existing`."""
    root = existing(root)
    if not root.is_dir():
        raise InputError(f"--data: expected a folder; got {root}, which is a file")
    return root


def entries(folder: Path, *, hidden: bool = False) -> list[Path]:
    """List what is in a folder, by name, without hidden files; it must be readable."""
    try:
        return sorted(p for p in folder.iterdir() if hidden or not _is_hidden(p))
    except OSError as error:
        raise InputError(
            f"{folder}: expected a readable folder; got: {error.strerror}; mend its permissions"
        ) from None


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, if there is one.

    Raises:
        InputError: it, or something in it, is a link that leads nowhere or in a circle.
    """
    found = entries(folder) if folder.is_dir() else []
    for path in (folder, *found):
        if path.is_symlink() and not path.exists() and not path.suffix:
            raise InputError(
                f"{path}: expected a folder; got a link that leads nowhere; mend or remove it"
            )
    return [p for p in found if p.is_dir() and p.suffix.lower() not in SUFFIXES]


def images_in(folder: Path) -> list[Path]:
    """List the image files in a folder, by name; none if there is no folder.

    Raises:
        InputError: something is named like an image and is a folder, or a link to nothing.
    """
    found = [p for p in entries(folder) if p.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    for path in found:
        if not path.is_file():
            got = "a folder" if path.is_dir() else "a link that leads nowhere"
            raise InputError(f"{path}: expected an image file; got {got}; rename or remove it")
    return found


def files_below(
    folder: Path, enter: Callable[[Path], bool] = bool, *, broken: bool = False
) -> list[Path]:
    """List the files in a folder and in the folders below it, sorted, without hidden ones.

    Args:
        folder: where to look; a link that leads in a circle is not followed.
        enter: whether to look into a folder too.
        broken: list links to nothing too, and what else is no file, for whoever reads them to say.

    Raises:
        InputError: something is named like an image and is a folder, or a link to nothing.
    """

    def looked_into(path: Path) -> bool:
        if _is_hidden(path) or not enter(path):
            return False
        if not broken:
            images_in(path)  # says what is wrong
        return True

    def is_listed(path: Path) -> bool:
        return not _is_hidden(path) and (path.is_file() or (broken and not path.is_dir()))

    if not broken:
        images_in(folder)
    return sorted(filter(is_listed, walk(folder, looked_into)))


def walk(
    folder: Path, enter: Callable[[Path], bool], above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Yield all below a folder, hidden or not: files, and as one each folder not looked into.

    Args:
        folder: where to look.
        enter: whether to look into a folder too; into a link that leads in a circle, never.
        above: where the folder lies, without links.

    Raises:
        InputError: a folder that is looked into cannot be read.
    """
    here = above | {folder.resolve()}
    for path in entries(folder, hidden=True):
        if path.is_dir() and path.resolve() not in here and enter(path):
            yield from walk(path, enter, here)
        else:
            yield path


def safe_name(text: str) -> str:
    """Make a name that can be a folder's: letters and their marks, digits, ``_``, ``.``, ``-``.

    >>> safe_name("Bähn 3/left side"), safe_name("हिन्दी")
    ('Bähn-3-left-side', 'हिन्दी')
    """
    kept = (c if _may_be_in_a_name(c) else "\0" for c in unicodedata.normalize("NFC", text))
    return re.sub("\0+", "-", "".join(kept)).strip("-.") or "data"


def _may_be_in_a_name(character: str) -> bool:
    return bool(re.match(r"[\w.-]", character)) or unicodedata.category(character)[0] == "M"


def printable(name: str) -> str:
    """Write a file's name as text; bytes that are no UTF-8 become ``�``."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def every_fifth(good: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split good images without a split: every fifth by name is a test image, at least the last.

    Positions 5, 10, …: the same files are always split alike, and both parts span the whole
    order of names, which often is the order in which the pictures were taken.

    >>> train, test = every_fifth([Path(f"{i}.png") for i in range(7)])
    >>> [p.stem for p in train], [p.stem for p in test]
    (['0', '1', '2', '3', '5', '6'], ['4'])
    """
    test = list(good[EVERY - 1 :: EVERY]) or list(good[-1:])
    held = set(test)
    return [p for p in good if p not in held], test


def held_out(good: Sequence[Path], root: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Split a person's good images: about every fifth is a test image, by a hash of its path.

    The path counts from ``root``, without the folders that say what it holds (``train/good``).

    So a photo stays on its side whatever other photos are added, and every order of taking them
    is spread over both sides. At least one image is on either side, of two or more, and no more
    than a quarter in the test: only there, with few photos, can one that is added take a place.

    >>> train, test = held_out([Path(f"{i}.png") for i in range(10)])
    >>> more = held_out([Path(f"{i}.png") for i in range(40)])
    >>> len(train), len(test), len(more[1]), set(test) <= set(more[1])
    (8, 2, 9, True)
    """
    hashes = {p: _hash(p if root is None else p.relative_to(root)) for p in good}
    below = sum(h < 1 / EVERY for h in hashes.values())
    held = set(sorted(good, key=hashes.__getitem__)[: max(1, min(below, len(good) // 4))])
    test = [p for p in good if p in held]
    return [p for p in good if p not in held], test


def _hash(path: Path) -> float:
    """A number in [0, 1) that a file's name and its folders decide."""
    parts = list(path.parts) if not path.is_absolute() else [path.name]
    while len(parts) > 1 and (means(Path(parts[0]), TRAIN) or is_good(Path(parts[0]))):
        parts.pop(0)
    name = unicodedata.normalize("NFC", "/".join(parts)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") / 2**48

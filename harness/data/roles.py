"""What the names of folders and files say: which photos are good, which files are masks.

Names are compared without regard to case, to the two Unicode spellings of an accent, and to
whether words are joined by a space, ``-`` or ``_``.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

# In the languages that people of this field name folders in.
GOOD = frozenset(
    "good ok okay normal nominal pass passed healthy intact fine io i.o. no_defect no_defects "
    "non_defective nondefective defect_free defectfree without_defect without_defects "
    "anomaly_free gut bon bonne bueno buena buono buona bom boa 正常 良品 合格 好 정상 양품 "
    "хорошие годные норма".split()
)
BAD = frozenset(
    "bad ng ko nok nio def defect defects defective anomaly anomalies anomalous abnormal not "
    "fail failed faulty reject rejected broken damaged schlecht defekt mauvais malo mala "
    "difettoso ruim 异常 異常 不良 不良品 缺陷 欠陥 불량 брак".split()
)
# What may stand beside such a word without changing what it says: ok_front, good_parts_2.
_BESIDE = frozenset(
    "images image img imgs photos photo pictures parts part samples sample front back top bottom "
    "left right side view set data products product items units".split()
)
TRAIN = frozenset(("train", "training"))
TEST = frozenset(("test", "testing", "test_public"))
VALIDATION = frozenset(("validation", "valid", "val"))
MASKS = frozenset(
    "ground_truth groundtruth gt mask masks label labels annotation annotations "
    "segmentation segmentations segmentationclass segmentationobject anomaly_mask "
    "anomaly_masks".split()
)
IMAGES = frozenset("images image imgs img photos photo pictures dcim camera camera_roll".split())
# A camera's folder (100CANON), or a day or month (2026-11-29, 20261129, 2026_11).
_TIMES = re.compile(r"\d{3}[a-z0-9_]{5}|(19|20)\d\d[-_.]?[01]\d([-_.]?[0-3]\d)?")
_WORDS = "mask|masks|gt|label|labels|seg|segmentation|annotation|ground_truth"
_AFTER = re.compile(rf"(?P<stem>.+?)[_.-](?:{_WORDS})(?P<part>[_.-]?\d+)?")
_BEFORE = re.compile(rf"(?:{_WORDS})[_.-](?P<stem>.+)")


def key(name: str) -> str:
    """Give what two names share that are meant to be one.

    >>> key("Ground Truth") == key("ground_truth"), key("e\u0301.png") == key("\u00e9.PNG")
    (True, True)
    """
    return re.sub(r"[\s_-]+", "_", spelled(name).casefold())


def spelled(name: str) -> str:
    """Give a name in the one Unicode spelling of its accents (NFC).

    >>> spelled("e\u0301") == "\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def means(path: Path, words: Iterable[str]) -> bool:
    """Tell whether a folder's name is one of some words.

    >>> means(Path("Ground truth"), MASKS), means(Path("test/scratch"), MASKS)
    (True, False)
    """
    return key(path.name) in words


def is_good(path: Path) -> bool:
    """Tell whether a folder's name says that what is in it is good.

    >>> [is_good(Path(name)) for name in ("OK", "good_2", "ok front", "no_defect", "good scratch")]
    [True, True, True, True, False]
    """
    name = key(path.name).strip("_")
    parts = {part for part in name.split("_") if not part.isdigit()}
    return name in GOOD or bool(parts & GOOD and parts <= GOOD | _BESIDE)


def is_bad(path: Path) -> bool:
    """Tell whether a folder's name says that what is in it is not good, whatever is wrong.

    >>> [is_bad(Path(name)) for name in ("NG", "def_front", "not ok", "no_defect", "scratch")]
    [True, True, True, False, False]
    """
    name = key(path.name).strip("_")
    return name not in GOOD and bool(set(name.split("_")) & BAD)


def says_nothing(path: Path) -> bool:
    """Tell whether a folder's name is a camera's, a day's, or a word for pictures.

    >>> [says_nothing(Path(name)) for name in ("100CANON", "2026-11-29", "images", "crack")]
    [True, True, True, False]
    """
    return means(path, IMAGES) or bool(_TIMES.fullmatch(path.name.casefold()))


def masked_stems(mask: Path) -> list[tuple[str, bool]]:
    """List the stems that a mask's image can have, and whether the mask is one of several.

    >>> masked_stems(Path("7_mask.png")), masked_stems(Path("7_mask_2.png"))
    ([('7_mask', False), ('7', False)], [('7_mask_2', False), ('7', True)])
    """
    stem = spelled(mask.stem).casefold()
    found = [(stem, False)]
    if after := _AFTER.fullmatch(stem):
        found.append((after["stem"], bool(after["part"])))
    elif before := _BEFORE.fullmatch(stem):
        found.append((before["stem"], False))
    return found


def match(name: str, names: Sequence[str]) -> str | None:
    """Find a name among others: as it is, or else the only one that is meant to be it.

    >>> match("Bolt", ["bolt", "nut"]), match("bolt", ["Bolt", "BOLT"]), match("x", ["bolt"])
    ('bolt', None, None)
    """
    if name in names:
        return name
    meant = [other for other in names if key(other) == key(name)]
    return meant[0] if len(meant) == 1 else None

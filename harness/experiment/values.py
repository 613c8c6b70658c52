"""Values as a person writes them: typed, checked against a rule, and shown."""

import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from harness.errors import InputError

LONGEST = 60  # characters of a value that an error shows
NUMERAL = re.compile(
    r"[+-]?(?P<whole>[0-9]{1,99})|[+-]?([0-9]{1,18}\.?[0-9]{0,30}|\.[0-9]{1,30})(e[+-]?[0-9]{1,4})?",
    re.IGNORECASE,
)  # longer ones are no choice of a person, and cost time
WORDS = {"none": None, "true": True, "false": False}

TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


class Rule(NamedTuple):
    """Say what a value of the right type must be besides, in words and as a test.

    >>> even = Rule("an even number", lambda n: n % 2 == 0)
    >>> checked("batch", 3, Annotated[int, even])
    Traceback (most recent call last):
    harness.errors.InputError: batch: expected an even number; got 3
    """

    expects: str
    holds: Callable[[Any], bool]


def between(low: float, high: float) -> Rule:
    """Ask for a number of these bounds, both allowed.

    >>> between(1, 1000).holds(0)
    False
    """
    return Rule(f"a number from {low} to {high}", lambda v: low <= v <= high)


def checked(name: str, value: Any, hint: Any, *, given: object = None) -> Any:  # noqa: ANN401
    """Return ``value`` in the type of ``hint``, without a silent change of meaning.

    A whole number stands for a fraction and for a tuple of one; ``True`` is no whole number.

    Args:
        name: of what is checked, for the error.
        value: as it was given.
        hint: a type, perhaps ``Annotated`` with a :class:`Rule`.
        given: what the error shows, where ``value`` was made of something else.

    Raises:
        InputError: the type or the rule does not fit.

    >>> checked("kernels", 3, tuple[int, ...]), checked("rate", 1, float)
    ((3,), 1.0)
    """
    plain, rules, is_tuple = _split(hint)
    shown = value if given is None else given
    if is_tuple and type(value) is int:
        value = (value,)
    if isinstance(value, set | frozenset):  # msgspec would take it, in no order
        raise InputError(f"{name}: expected {_type_in_words(plain)}; got {_brief(shown)}")
    if isinstance(value, float):
        value = float(value)  # numpy's, as of np.geomspace, is one too; msgspec wants the plain
    try:
        value = msgspec.convert(value, plain)
    except (msgspec.ValidationError, OverflowError, RecursionError):  # 10**400 is no float
        words = _type_in_words(plain)
        raise InputError(f"{name}: expected {words}; got {_brief(shown)}") from None
    for rule in rules:
        if not rule.holds(value):
            raise InputError(f"{name}: expected {rule.expects}; got {_brief(shown)}")
    return value


def parsed(name: str, text: str, hint: Any) -> Any:  # noqa: ANN401
    """Return the value that ``text`` stands for on a command line or in a table.

    >>> parsed("kernels", "3,1", tuple[int, ...]), parsed("hidden", "none", int | None)
    ((3, 1), None)
    """
    plain, _, _ = _split(hint)
    if plain is str or get_origin(plain) is Literal:
        return checked(name, text, hint)
    return checked(name, _read(text), hint, given=text)


def _read(text: str) -> Any:  # noqa: ANN401
    """What a text says: a word of WORDS, a number, or several; else itself, for the check's error.

    >>> _read("none"), _read("3"), _read("(3, 1)"), _read("3,"), _read("1e-3"), _read("----1")
    (None, 3, (3, 1), (3,), 0.001, '----1')
    """
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    parts = [part.strip() for part in inner.removesuffix(",").split(",")]
    found = [NUMERAL.fullmatch(part) for part in parts]
    if len(parts) > 10_000 or not all(found):
        return () if text in ("()", "[]") else text
    numbers = [int(m[0]) if m["whole"] else float(m[0]) for m in found if m]
    return numbers[0] if inner == text and "," not in text else tuple(numbers)


def _brief(value: object) -> str:
    """A value as an error shows it, cut where it is long."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return "a number of too many digits" if isinstance(value, int) else "what cannot be shown"
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def show(value: Any) -> str:  # noqa: ANN401
    """Write a value as one would on the command line.

    >>> show((3, 1)), show(None), show(0.5)
    ('3,1', 'none', '0.5')
    """
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def expected(hint: Any) -> str:  # noqa: ANN401
    """Say in words what :func:`checked` takes.

    >>> expected(Literal["sum", "mean"]), expected(int | None)
    ('one of sum, mean', 'a whole number or none')
    """
    plain, rules, _ = _split(hint)
    return "; ".join(rule.expects for rule in rules) or _type_in_words(plain)


@cache  # there are a few hints, and thousands of values
def _split(hint: Any) -> tuple[Any, tuple[Rule, ...], bool]:  # noqa: ANN401
    """A hint's bare type, its rules, and whether it is a tuple's."""
    rules: tuple[Rule, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        rules = tuple(e for e in extras if isinstance(e, Rule))
    return hint, rules, get_origin(hint) is tuple


def _type_in_words(hint: Any) -> str:  # noqa: ANN401
    if get_origin(hint) is tuple:
        return "whole numbers, as in 3,1"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(value or "nothing" for value in get_args(hint))
    kinds = get_args(hint) or (hint,)
    return " or ".join(
        _type_in_words(k) if get_origin(k) is tuple else TYPES.get(k, "none") for k in kinds
    )

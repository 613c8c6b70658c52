"""The two ways a run can end badly, apart from a bug.

Both carry one line for a person: what was expected, what came, and what to do.
"""

import sys
from collections.abc import Iterable
from difflib import get_close_matches

from harness.escape import in_line


class InputError(ValueError):
    """Say that something a person gave is wrong: a setting, a folder, a file. Exit code 2.

    >>> raise InputError("epochs: expected a number of at least 1; got 0")
    Traceback (most recent call last):
    harness.errors.InputError: epochs: expected a number of at least 1; got 0
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_line(message))  # a file's name may hold a newline


class RunFailed(RuntimeError):
    """Say that a run could not be finished; the others go on. Exit code 1.

    >>> raise RunFailed("the loss became nan in epoch 3")
    Traceback (most recent call last):
    harness.errors.RunFailed: the loss became nan in epoch 3
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_line(message))


def unknown(what: str, got: str, choices: Iterable[str]) -> InputError:
    """Make an error for a name that does not exist, with the near matches first.

    >>> str(unknown("field", "kernel", ["kernels", "coupling"]))
    "unknown field 'kernel'; did you mean 'kernels'? Expected one of: kernels, coupling"
    """
    names = list(choices)
    near = get_close_matches(got, names, n=3)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    if len(names) > 60:  # a list nobody would read
        names = [*near, f"… {len(names)} in all"]
    return InputError(f"unknown {what} '{got}'{hint} Expected one of: {', '.join(names)}")


def warn(error: InputError) -> None:
    """Tell, in one line, of something that is left out."""
    print(f"harness: left out: {error}", file=sys.stderr)

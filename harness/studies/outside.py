"""Studies that live outside the package: a person's own file."""

import re
import sys
from collections.abc import Container
from contextlib import redirect_stdout
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from runpy import run_path
from traceback import extract_tb

from harness.errors import InputError
from harness.experiment.study import Study

RESERVED = (
    "index",
    "gap",
    "parameters",
    "protocol",
    "qualitative",
)  # of the reports that are no study's
TEMPLATE = '''\
"""{question}"""

from harness.experiment.study import Study, one_factor
from harness.studies.surfaces import BASE

# The base is the variant that the others are compared with: here the embedded study's, for fewer
# epochs, so that this runs in about a minute. `harness fields` lists every field and its values.
base = BASE.replace(epochs=10)

STUDY = Study(
    name="{name}",  # names the report; records are found by the variants' digests
    asks="{question}",  # one sentence: it opens the report
    dataset="surfaces",  # embedded; with --data whatever layout is found there
    bases={{"base": base}},
    # One field at a time: every value below is one more variant. grid(...) takes all combinations.
    vary=one_factor(flow_steps=(4,), coupling=("two-sided",)),
    seeds=(0, 1, 2),  # fewer than three seeds can hardly tell a difference from chance
)

# harness list {name}.py                 the variants
# harness plan {name}.py                 how long it takes, and how much disk
# harness run {name}.py --smoke          everything once, in a minute
# harness run {name}.py --report         the study and its report
# harness run {name}.py --data PHOTOS    the same on your own photos
'''


def load_study(file: Path, taken: Container[str] = ()) -> Study:
    """Load the study that a file of Python defines as ``STUDY``.

    The file is executed by itself: what lies beside it is not on Python's path. What it prints
    goes to standard error, so that ``--json`` stays JSON.

    Args:
        file: its path.
        taken: names that it may not have.

    Raises:
        InputError: there is no such file, it cannot be executed, or what it defines is no study;
            the line is named.
    """
    if not file.is_file():
        beside = [p.name for p in file.parent.glob("*.py") if p.is_file()]
        near = get_close_matches(file.name, beside, n=1)
        hint = f"; did you mean '{file.with_name(near[0])}'?" if near else ""
        raise InputError(
            f"{file}: expected a study's file; found none{hint} (`harness new study NAME` writes "
            "one; `harness list` shows the built-in ones)"
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: expected a study's file; it cannot be read ({error})") from None
    study = _loaded(file, file.resolve(), content)
    if _is_taken(study.name, taken):
        raise InputError(
            f"{file}: name: expected a name of its own; '{study.name}' is one of the harness's own"
        )
    return study


@lru_cache(maxsize=8)
def _loaded(file: Path, source: Path, content: bytes) -> Study:
    """The study of a file, which knows where it is from; executed once, until its content changes.

    Raises:
        InputError: it is none, or its name cannot be one.
    """
    study = _execute(file)
    if not isinstance(study, Study):
        got = "nothing of that name" if study is None else type(study).__name__
        raise InputError(f"{file}: expected STUDY = Study(...); got {got}")
    if not isinstance(study.name, str) or not re.fullmatch(r"\w[\w.-]*", study.name):
        raise InputError(
            f"{file}: name: expected a name of its own; '{study.name}' is no name for a file"
        )
    return replace(study, source=str(source))


def _is_taken(name: str, taken: Container[str]) -> bool:
    """Whether the report of a study of this name would overwrite another page."""
    name = name.lower()  # where a file system ignores case, so does this
    return name in taken or name in RESERVED or name.endswith("-smoke")


def _execute(file: Path) -> object:
    """What a file defines as ``STUDY``; None for nothing."""
    try:
        with redirect_stdout(sys.stderr):
            return run_path(str(file), run_name="study").get("STUDY")
    except SyntaxError as error:
        where = f"{file}, line {error.lineno}" if error.lineno else str(file)
        raise InputError(f"{where}: expected Python; {error.msg}") from None
    except (Exception, SystemExit) as error:  # whatever a person's own code raises
        trace = extract_tb(error.__traceback__)
        lines = [f.lineno for f in trace if Path(f.filename).resolve() == file.resolve()]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{where}: {said}") from None


def new_study(name: str, folder: Path, taken: Container[str] = ()) -> Path:
    """Write a commented study to start from.

    Args:
        name: of the study and of its file.
        folder: where to write ``<name>.py``.
        taken: names that it may not have.

    Raises:
        InputError: the name cannot be one, or there is such a file.
    """
    file = folder / f"{name}.py"
    if problem := _problem(name, file, taken):
        raise InputError(
            f"name: expected letters, digits and _, as in my_question; '{name}' is {problem}"
        )
    question = f"What does {name.replace('_', ' ')} change?"
    try:
        with file.open("x", encoding="utf-8") as text:
            text.write(TEMPLATE.format(name=name, question=question))
    except FileExistsError:
        raise InputError(f"{file}: expected no such file yet; choose another name") from None
    return file


def _problem(name: str, file: Path, taken: Container[str]) -> str:
    """What is wrong with a new study's name; empty for nothing."""
    if not name.isidentifier() or iskeyword(name):
        return "not one"
    if _is_taken(name, taken):
        return "one of the harness's own"
    if not file.exists() and find_spec(name):  # which it would hide from `python -m harness`
        return "the name of a Python module"
    return ""

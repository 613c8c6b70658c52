"""The commands that run a study and make its page, as they are typed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.escape import in_shell
from harness.experiment.values import show
from harness.studies import EMBEDDED

DATA = "FOLDER"  # stands for where the images are, which no record says


def command(
    verb: str,
    study: str = "",
    *,
    results: Path | None = None,
    dataset: str = "",
    categories: Sequence[str] = (),
    variants: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    smoke: bool = False,
) -> str:
    """Write a command of the harness with what was asked of a study.

    Args:
        verb: as in ``run`` or ``report``.
        study: its name, or the path of its file.
        results: where the records are, if not in ``results``.
        dataset: the name of the images in records.
        categories: those that were asked for by name.
        variants: those that were asked for by name.
        where: field → value that was asked for.
        set: field → value that was changed.
        seeds: that were asked for.
        smoke: whether it is the smoke twin.

    >>> command("run", "surfaces", seeds=[0], set={"epochs": 3})
    'harness run surfaces --set epochs=3 --seed 0'
    >>> command("run", "kernels", dataset="mvtec_ad", variants=["a b"])
    "harness run kernels --data FOLDER --variant 'a b'"
    """
    words = ["harness", verb, *([study] if study else [])]
    if dataset and dataset.removeprefix("disturbed-") != EMBEDDED:
        words += ["--data", DATA]
    if dataset.startswith("disturbed-"):
        words += ["--dataset", dataset]
    options: list[tuple[str, Sequence[object]]] = [
        ("--category", categories), ("--variant", variants),
        ("--where", [f"{k}={show(_tuple(v))}" for k, v in (where or {}).items()]),
        ("--set", [f"{k}={show(_tuple(v))}" for k, v in (set or {}).items()]),
        ("--seed", seeds),
    ]  # fmt: skip
    for option, values in options:
        words += [word for value in values for word in (option, str(value))]
    if smoke:
        words.append("--smoke")
    if results and results != Path("results"):
        words += ["--results", str(results)]
    return in_shell(words)


def _tuple(value: object) -> object:
    """A list of a notebook's parameters as what it was."""
    return tuple(value) if isinstance(value, list) else value

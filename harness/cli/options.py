"""Options as values: a command is given a frozen dataclass, which argparse fills."""

import argparse
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from harness.data.counts import PUBLISHED_COUNTS
from harness.studies import STUDIES

STUDY = f"one of: {', '.join(STUDIES)}; or the path of your own, as in my_study.py"
DATASETS = (*PUBLISHED_COUNTS, "folder", "manifest")


def option(*flags: str, default: Any = MISSING, group: str = "", **given: Any) -> Any:  # noqa: ANN401
    """Declare a field that is an option, or without flags a positional argument.

    Args:
        flags: as in ``--seed``.
        default: its value when it is not given; none: a positional argument that has to be.
        group: the heading of the help that it stands under.
        given: what argparse's ``add_argument`` takes.
    """
    about = {"flags": flags, "group": group, "given": given}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=about)
    return field(default=default, metadata=about)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the options of a dataclass to a parser."""
    groups: dict[str, Any] = {"": parser}
    for f in fields(options):
        flags, group, given = (f.metadata[k] for k in ("flags", "group", "given"))
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        if flags:
            given = {"dest": f.name, **given}
        elif f.default is not MISSING:
            given = {"nargs": "?", **given}
        default = None if f.default is MISSING else f.default
        default = f.default_factory() if f.default_factory is not MISSING else default
        groups[group].add_argument(*(flags or (f.name,)), default=default, **given)


def filled(options: type, namespace: argparse.Namespace) -> Any:  # noqa: ANN401
    """Make the dataclass of what argparse has read."""
    return options(**{f.name: getattr(namespace, f.name) for f in fields(options)})


def executors() -> list[str]:
    """List the executors there are, without importing any."""
    spec = find_spec("harness.run.executors")
    assert spec is not None
    found = (m.name for m in iter_modules(spec.submodule_search_locations))
    return sorted(name for name in found if name != "contract")


def _flag(name: str, says: str, group: str = "") -> Any:  # noqa: ANN401
    return option(name, default=False, action="store_true", help=says, group=group)


def _many(name: str, metavar: str, says: str = "", group: str = "", **given: Any) -> Any:  # noqa: ANN401
    """An option that may be given several times."""
    given |= {"help": says} if says else {}
    return option(name, default=[], action="append", metavar=metavar, group=group, **given)


def _path(name: str, metavar: str, says: str, default: Any = None) -> Any:  # noqa: ANN401
    return option(name, default=default, type=Path, metavar=metavar, help=says)


@dataclass(frozen=True, kw_only=True)
class Json:
    """Hold whether JSON is printed."""

    json: bool = _flag("--json", "print JSON")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold where the records are."""

    results: Path = _path("--results", "DIR", "default: results", Path("results"))


@dataclass(frozen=True, kw_only=True)
class Data:
    """Hold where images and weights are."""

    data: Path | None = _path("--data", "DIR", "a folder of images, or a .csv manifest of them")
    dataset: str = option(
        "--dataset",
        default="",
        metavar="NAME",
        help=f"in place of the study's: {', '.join(DATASETS)}; or disturbed-NAME",
    )
    weights: Path | None = _path("--weights", "DIR", "a folder of <backbone>.safetensors or .pth")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Hold which runs of a study are meant."""

    category: list[str] = _many("--category", "NAME", group="which runs")
    seed: list[int] = _many("--seed", "N", group="which runs", type=int)
    variant: list[str] = _many(
        "--variant",
        "NAME",
        "only the variant of this name, as `harness list STUDY` shows it",
        "which runs",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(Cells):
    """Hold which runs of a study are meant, and with which settings."""

    where: list[str] = _many(
        "--where",
        "FIELD=VALUE",
        "only the study's variants with this value, as in kernels=3,1",
        "which runs",
    )
    set: list[str] = _many(
        "--set",
        "FIELD=VALUE",
        "change a field in every variant: other runs, other records (`harness fields`)",
        "which runs",
    )
    epochs: int | None = option(
        "--epochs",
        default=None,
        type=int,
        metavar="N",
        help="the same as --set epochs=N",
        group="which runs",
    )
    random_weights: bool = _flag(
        "--random-weights",
        "a backbone without trained weights; marked in every record",
        "which runs",
    )
    smoke: bool = _flag(
        "--smoke",
        "the smoke twin: one epoch, category and seed on a few images; never a result",
        "which runs",
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hold how runs are run."""

    device: str = option(
        "--device",
        default="auto",
        help="auto (default), cpu, cuda, cuda:1",
        group="how they run",
    )
    jobs: int = option(
        "--jobs",
        default=0,
        type=int,
        metavar="N",
        help="runs at a time; default: one a core, at most 8; one on a GPU",
        group="how they run",
    )
    executor: str = option(
        "--executor",
        default="local",
        choices=executors(),
        help="who runs them (default: worker processes of this machine)",
        group="how they run",
    )
    no_speed: bool = _flag(
        "--no-speed",
        "leave latency and FPS unmeasured, for good: beside other work they mean little",
        "how they run",
    )
    cache_limit: float = option(
        "--cache-limit",
        default=20.0,
        type=float,
        metavar="GB",
        help="size of the feature cache (default 20)",
        group="how they run",
    )


@dataclass(frozen=True, kw_only=True)
class Study(Settings, Data, Results, Json):
    """Hold a study as it is asked for."""

    study: str = option(metavar="STUDY", help=STUDY)


@dataclass(frozen=True, kw_only=True)
class Plan(Study, Machine):
    """Hold a study, and how it would be run."""


@dataclass(frozen=True, kw_only=True)
class Run(Plan):
    """Hold a study, how it is run, and whether its report is written."""

    report: bool = _flag("--report", "then write the report")


@dataclass(frozen=True, kw_only=True)
class Report(Settings, Data, Results, Machine, Json):
    """Hold a study whose notebook is executed; none: every notebook."""

    study: str | None = option(
        default=None, metavar="STUDY", help=f"{STUDY}; default: every notebook"
    )


@dataclass(frozen=True, kw_only=True)
class Listing(Json):
    """Hold which study's variants are listed; none: the studies."""

    study: str | None = option(default=None, metavar="STUDY", help="list its variants")


@dataclass(frozen=True, kw_only=True)
class Fields(Json):
    """Hold how the fields are printed."""

    markdown: bool = _flag("--markdown", "print docs/fields.md")


@dataclass(frozen=True, kw_only=True)
class New:
    """Hold what is written anew."""

    what: str = option(choices=["study"], help="what to write")
    name: str = option(metavar="NAME", help="its name: NAME.py in this folder")


@dataclass(frozen=True, kw_only=True)
class Baseline(Results):
    """Hold which records are compared with which."""

    baseline: Path | None = _path("--baseline", "DIR", "accepted records (default: the harness's)")


@dataclass(frozen=True, kw_only=True)
class Gap(Baseline, Cells, Json):
    """Hold which runs of the embedded study are held to the baseline."""


@dataclass(frozen=True, kw_only=True)
class Doctor(Data, Results, Json):
    """Hold what is examined."""


@dataclass(frozen=True, kw_only=True)
class Cache(Results, Json):
    """Hold what is done with the feature cache."""

    clear: bool = _flag("--clear", "remove all cached features")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Hold for which shell."""

    shell: str = option(choices=["bash", "zsh", "tcsh"], help="your shell")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Hold which data set is fetched, and from where."""

    dataset: str = option(metavar="DATASET", help="mvtec_ad, btad or cifar10")
    category: list[str] = _many("--category", "NAME")
    data: Path | None = _path("--data", "DIR", "its folder; default: data/DATASET")
    mirror: list[str] = _many(
        "--mirror",
        "URL",
        "a folder of the same archives, asked first; default: $HARNESS_MIRROR",
    )
    yes: bool = _flag("--yes", "accept the data set's licence")

"""Options as values: a command is given a frozen dataclass, which argparse fills."""

import argparse
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import InputError
from harness.experiment.settings import Folders
from harness.experiment.values import parsed
from harness.studies import STUDIES

STUDY = f"one of: {', '.join(STUDIES)}; or the path of your own, as in my_study.py"
DATASETS = ", ".join((*PUBLISHED_COUNTS, "folder", "manifest"))
WHICH, HOW, FOLDERS = "which runs", "how they run", "what the folders hold"  # headings of the help


def option(
    flag: str,
    says: str = "",
    default: Any = None,  # noqa: ANN401
    *,
    group: str = "",
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Declare a field that is an option; its type says how it is read.

    Args:
        flag: as in ``--seed``.
        says: its help.
        default: its value when it is not given; of a list or a flag, nothing.
        group: the heading of the help that it stands under.
        given: what else argparse's ``add_argument`` takes.
    """
    about = {"flag": flag, "group": group, "given": {"help": says or None, **given}}
    return field(default=default, metadata=about)


def argument(says: str, default: Any = MISSING, **given: Any) -> Any:  # noqa: ANN401
    """Declare a field that is given by its place; without a default it has to be."""
    given |= {"help": says} | ({} if default is MISSING else {"nargs": "?"})
    return field(default=default, metadata={"flag": "", "group": "", "given": given})


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the options of a dataclass to a parser."""
    groups: dict[str, Any] = {"": parser}
    hints = get_type_hints(options)
    for f in fields(options):
        flag, group, given = (f.metadata[k] for k in ("flag", "group", "given"))
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        # argparse would read a default that is text as if it were given
        default = {} if f.default in (MISSING, "") else {"default": f.default}
        named = {"dest": f.name} if flag else {}
        read = {**named, **default, **_read_as(hints[f.name]), **given}
        groups[group].add_argument(flag or f.name, **read)


def _read_as(hint: Any) -> dict[str, Any]:  # noqa: ANN401
    """How argparse reads a type."""
    if hint is bool:
        return {"action": "store_true", "default": False}
    if get_origin(hint) is list:
        return {"action": "append", "type": READ[get_args(hint)[0]], "default": []}
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return {"type": READ[kinds[0]]}


def _text(text: str) -> str:
    """A text; an unset variable of a shell is none."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("expected a text; got nothing; leave the option out")
    return text


def _number(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """How a number is read: checked as a variant's fields are, before it is computed with."""

    def read(text: str) -> int | float:
        try:
            number: int | float = parsed("", text, kind)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None
        return number

    return read


def _path(text: str) -> Path:
    """A path, with a ~ that the shell left, as in ``--results=~/x``.

    >>> _path("~/x") == Path.home() / "x", _path("~nobody-here/x")
    (True, PosixPath('~nobody-here/x'))
    """
    if not text.strip() or "\0" in text:  # '' would be the working folder
        raise argparse.ArgumentTypeError("expected a path; got nothing; leave the option out")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a name like any other, as in the shell
        return Path(text)


READ: dict[Any, Callable[[str], Any]] = {
    str: _text, Path: _path, int: _number(int), float: _number(float)
}  # fmt: skip


def filled(options: type, namespace: argparse.Namespace) -> Any:  # noqa: ANN401
    """Make the dataclass of what argparse has read."""
    given = {f.name: getattr(namespace, f.name) for f in fields(options)}
    return options(**{k: v for k, v in given.items() if v is not None})


def executors() -> list[str]:
    """List the executors there are, without importing any."""
    spec = find_spec("harness.run.executors")
    found = iter_modules(spec.submodule_search_locations if spec else [])
    return sorted(module.name for module in found if module.name != "contract")


@dataclass(frozen=True, kw_only=True)
class Json:
    """Hold whether JSON is printed.

    >>> parser = argparse.ArgumentParser()
    >>> add_options(parser, Json)
    >>> filled(Json, parser.parse_args(["--json"]))
    Json(json=True)
    """

    json: bool = option("--json", "print JSON")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold where the records are."""

    results: Path = option("--results", "default: results", Path("results"), metavar="DIR")


ROLE = "a folder below --data that holds {}, where its name does not say so; may be repeated"
STRICT = "stop where files are left out or doubtful, in place of saying so and going on"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Hold where images and weights are."""

    data: Path | None = option(
        "--data", "a folder of images, or a .csv manifest of them", metavar="DIR"
    )
    dataset: str = option(
        "--dataset", f"in place of the study's: {DATASETS}; or disturbed-NAME", "", metavar="NAME"
    )
    weights: Path | None = option(
        "--weights", "a folder of <backbone>.safetensors or .pth", metavar="DIR"
    )
    good: list[str] = option("--good", ROLE.format("good images"), metavar="NAME", group=FOLDERS)
    good_test: list[str] = option(
        "--good-test", ROLE.format("good images to test on"), metavar="NAME", group=FOLDERS
    )
    defective: list[str] = option(
        "--defective", ROLE.format("images of one defect"), metavar="NAME", group=FOLDERS
    )
    masks: list[str] = option(
        "--masks", ROLE.format("masks of the defects"), metavar="NAME", group=FOLDERS
    )
    strict: bool = option("--strict", STRICT, group=FOLDERS)

    @property
    def folders(self) -> Folders:
        """Give the folders whose role is said."""
        return Folders(
            good=tuple(self.good),
            good_test=tuple(self.good_test),
            defective=tuple(self.defective),
            masks=tuple(self.masks),
        )


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Hold which runs of a study are meant."""

    category: list[str] = option("--category", metavar="NAME", group=WHICH)
    seed: list[int] = option("--seed", metavar="N", group=WHICH)
    variant: list[str] = option(
        "--variant", "only that of this name (`harness list STUDY`)", metavar="NAME", group=WHICH
    )


ONLY = "only the study's variants with this value, as in kernels=3,1"
CHANGE = (
    "change a field that the study does not vary: other runs, other records (`harness fields`)"
)
RANDOM = "a backbone without trained weights; marked in every record"
SMOKE = "the smoke twin: one epoch, category and seed on a few images; never a result"


@dataclass(frozen=True, kw_only=True)
class Settings(Cells):
    """Hold which runs of a study are meant, and with which settings."""

    where: list[str] = option("--where", ONLY, metavar="FIELD=VALUE", group=WHICH)
    set: list[str] = option("--set", CHANGE, metavar="FIELD=VALUE", group=WHICH)
    epochs: int | None = option("--epochs", "the same as --set epochs=N", metavar="N", group=WHICH)
    random_weights: bool = option("--random-weights", RANDOM, group=WHICH)
    smoke: bool = option("--smoke", SMOKE, group=WHICH)


DEVICE = "auto (default), cpu, cuda, cuda:1, or several GPUs: cuda:0,cuda:1"
JOBS = "runs at a time; default: one a core, at most 8; on each GPU as many as fit, at most 4"
GROW = "let runs take the cores of those that ended; their last digits vary (docs/determinism.md)"
TF32 = "on an NVIDIA GPU, faster and coarser than float32 (10 bits for 23); the records say so"
KEEP = "keep the model's weights beside each record, for `harness train`"
NO_SPEED = "leave latency and FPS unmeasured, for good: beside other work they mean little"
CHECKPOINT = "between checkpoints of a training (default 5); 0: only when it is stopped"
SHARD = "only this one of N parts of the trainings, of about the same cost (docs/scale.md)"
EXECUTOR = "who runs them (default: worker processes of this machine)"
RAY = "a Ray cluster, for --executor ray (default: RAY_ADDRESS, else one is started here)"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hold how runs are run."""

    device: str = option("--device", DEVICE, "auto", group=HOW)
    tf32: bool = option("--tf32", TF32, group=HOW)
    jobs: int = option("--jobs", JOBS, 0, metavar="N", group=HOW)
    grow: bool = option("--grow", GROW, group=HOW)
    executor: str = option("--executor", EXECUTOR, "local", choices=executors(), group=HOW)
    ray_address: str = option("--ray-address", RAY, "", metavar="HOST:PORT", group=HOW)
    no_speed: bool = option("--no-speed", NO_SPEED, group=HOW)
    keep: bool = option("--keep", KEEP, group=HOW)
    cache_limit: float = option(
        "--cache-limit", "size of the feature cache (default 20)", 20.0, metavar="GB", group=HOW
    )
    checkpoint_minutes: float = option(
        "--checkpoint-minutes", CHECKPOINT, 5.0, metavar="N", group=HOW
    )


@dataclass(frozen=True, kw_only=True)
class Study(Settings, Data, Results, Json):
    """Hold a study as it is asked for."""

    study: str = argument(STUDY, metavar="STUDY")


COMMON = (
    "compare with the records in DIR on the images common to both; in the same folder: with those "
    "set aside when images were added"
)


@dataclass(frozen=True, kw_only=True)
class Images(Study):
    """Hold a study whose test images are listed."""

    common: Path | None = option("--common", COMMON, metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class Plan(Study, Machine):
    """Hold a study, and how it would be run."""

    shard: str = option("--shard", SHARD, "", metavar="I/N", group=WHICH)


@dataclass(frozen=True, kw_only=True)
class Run(Plan):
    """Hold a study, how it is run, and whether its report is written."""

    report: bool = option("--report", "then write the report")


WATCH = "write the page anew after each variant, until all runs are there"


@dataclass(frozen=True, kw_only=True)
class Report(Settings, Data, Results, Machine, Json):
    """Hold a study whose notebook is executed; none: every notebook."""

    study: str | None = argument(f"{STUDY}; default: every notebook", None, metavar="STUDY")
    watch: bool = option("--watch", WATCH)


@dataclass(frozen=True, kw_only=True)
class Status(Settings, Results, Json):
    """Hold which study is asked about; none: every one with a run there."""

    study: str | None = argument(f"{STUDY}; default: every study", None, metavar="STUDY")
    dataset: str = option("--dataset", "only its runs on this one", "", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class Listing(Json):
    """Hold which study's variants are listed; none: the studies."""

    study: str | None = argument("list its variants", None, metavar="STUDY")


@dataclass(frozen=True, kw_only=True)
class Fields(Json):
    """Hold how the fields are printed."""

    markdown: bool = option("--markdown", "print docs/fields.md")


@dataclass(frozen=True, kw_only=True)
class New:
    """Hold what is written anew."""

    what: str = argument("what to write", choices=["study"])
    name: str = argument("its name: NAME.py in this folder", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class Doctor(Data, Results, Json):
    """Hold what is examined."""


@dataclass(frozen=True, kw_only=True)
class Cache(Results, Json):
    """Hold what is done with the feature cache."""

    clear: bool = option("--clear", "remove all cached features")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Hold for which shell."""

    shell: str = argument("your shell", choices=["bash", "zsh", "tcsh"])

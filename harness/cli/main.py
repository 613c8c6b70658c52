"""The command ``harness``: its options, and its exit codes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from harness.cli import commands
from harness.cli import data as data_commands
from harness.cli import paper as gap_commands
from harness.errors import InputError
from harness.studies import STUDIES

ABOUT = """\
FastFlow ablations that can be reproduced, and the methods it is compared with.

A study asks one question. It lists variants, and runs each on every category with every seed; a
run leaves a record, a report is made from the records alone. What is recorded is
never trained again, so any command can be stopped (Ctrl-C) and started again.
"""
GAP = "published figures beside ours; the embedded study against its accepted records"
EXAMPLES = """\
examples:
  harness list                                       the studies and their questions
  harness run surfaces --report                      the embedded study: no download needed
  harness run kernels --data MVTEC --weights DIR --category bottle --epochs 20
  harness run kernels --data MVTEC --where kernels=3 --set norm=none
  harness run kernels --data MVTEC --smoke           everything once, in a minute
  harness plan table1                                what it would cost; no data needed
  harness gap                                        published, ours, gap, verdict

exit codes: 0 all recorded, 1 some run failed, 2 bad usage or input, 130 stopped by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except InputError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("harness: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `harness list | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # no right, no space left, a name too long
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        print(f"harness: {what}; expected to be able to read and write it", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "harness", description=ABOUT, epilog=EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=harness.__version__)
    subs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Any, says: str, *groups: Any, to: Any = subs) -> None:  # noqa: ANN401
        sub = to.add_parser(name, help=says, description=says, formatter_class=raw)
        sub.set_defaults(command=command)
        for group in groups:
            group(sub)

    add("list", commands.list_, "the studies, or a study's variants", _add_name, _add_json)
    add("plan", commands.plan, "what a study would run, and what is recorded", *_STUDY)
    add("run", commands.run, "run what is missing of a study; its table", *_STUDY, _add_report)
    add("report", commands.report, "a study's notebook on what is recorded, or all", *_REPORT)
    add("params", gap_commands.params, "exact parameters of every reading", _add_json)
    add("gap", gap_commands.gap, GAP, *_GAP, _add_json)
    add("accept", gap_commands.accept, "make these records the baseline", *_BASELINE)
    add("cache", commands.cache, "show or clear the feature cache", *_CACHE)
    add("doctor", commands.doctor, "what this machine, data and weights give", *_DOCTOR)
    says = "fetch a published data set, or list those that can be fetched"
    data = subs.add_parser("data", help=says, description=says).add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    add("list", data_commands.list_, "sizes, licences, addresses, checksums", _add_json, to=data)
    add("fetch", data_commands.fetch, "download and extract what is missing", _add_fetch, to=data)
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", nargs="?", help="list its variants")


def _add_cells(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--category", action="append", default=[], metavar="NAME")
    parser.add_argument("--seed", action="append", type=int, default=[], metavar="N")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME",
        help="only the variant of this name, as `harness list STUDY` shows it",
    )  # fmt: skip


def _add_baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline", type=Path, metavar="DIR", help="accepted records (default: the harness's)"
    )


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help=f"one of: {', '.join(STUDIES)}")
    _add_selection(parser)


def _add_any_study(parser: argparse.ArgumentParser) -> None:
    says = f"one of: {', '.join(STUDIES)}; default: every notebook"
    parser.add_argument("study", metavar="STUDY", nargs="?", help=says)
    _add_selection(parser)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which runs")
    _add_cells(group)
    group.add_argument(
        "--where", action="append", default=[], metavar="FIELD=VALUE",
        help="only the study's variants with this value, as in kernels=3,1",
    )  # fmt: skip
    group.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="change a field in every variant: other runs, other records",
    )  # fmt: skip
    group.add_argument("--epochs", type=int, metavar="N", help="the same as --set epochs=N")
    group.add_argument(
        "--random-weights", action="store_true",
        help="a backbone without trained weights; marked in every record",
    )  # fmt: skip
    group.add_argument(
        "--smoke", action="store_true",
        help="the smoke twin: one epoch, category and seed on a few images; never a result",
    )  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how they run")
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    group.add_argument(
        "--jobs", type=int, default=0, metavar="N",
        help="runs at a time; default: one a core, at most 8; one on a GPU",
    )  # fmt: skip
    group.add_argument(
        "--no-speed", action="store_true",
        help="leave latency and FPS unmeasured, for good: beside other work they mean little",
    )  # fmt: skip
    group.add_argument(
        "--cache-limit", type=float, default=20, metavar="GB",
        help="size of the feature cache (default 20)",
    )  # fmt: skip


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a folder of images, or a .csv manifest of them"
    )
    parser.add_argument(
        "--dataset", default="", metavar="NAME",
        help="in place of the study's: surfaces, mvtec_ad, btad, cifar10, visa, magnetic_tile, "
        "folder, manifest; or disturbed-NAME",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="a folder of <backbone>.safetensors or .pth"
    )


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="mvtec_ad, btad or cifar10")
    parser.add_argument("--category", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="its folder; default: data/DATASET"
    )
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL",
        help="a folder of the same archives, asked first; default: $HARNESS_MIRROR",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="accept the data set's licence")


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_clear(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove all cached features")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", action="store_true", help="then write the report")


_STUDY = (_add_study, _add_data, _add_results, _add_machine, _add_json)
_BASELINE = (_add_results, _add_baseline)
_GAP = (*_BASELINE, _add_cells)
_CACHE = (_add_results, _add_clear, _add_json)
_REPORT = (_add_any_study, *_STUDY[1:])
_DOCTOR = (_add_data, _add_results, _add_json)

"""The command ``harness``: its commands by what a person wants to do, and its exit codes."""

import argparse
import errno
import signal
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import harness
from harness.cli import data, detector, machine, merge, paper, reports, status, studies
from harness.cli.options import add_options, filled
from harness.cli.surroundings import interruptible, settle, unprinted
from harness.errors import FULL, InputError, RunFailed, unwritten

ABOUT = """\
FastFlow ablations that can be reproduced, and the methods it is compared with.

A study asks one question. It lists variants, and runs each on every category with every seed; a
run leaves a record, a report is made from the records alone. What is recorded is
never trained again, so any command can be stopped (Ctrl-C) and started again.
"""
EXAMPLES = """\
examples:
  harness list                                       the studies and their questions
  harness run surfaces --report                      the embedded study: no download needed
  harness run kernels --data MVTEC --weights DIR --category bottle --epochs 20
  harness run kernels --data MVTEC --where kernels=3 --set norm=none
  harness run kernels --data MVTEC --smoke           everything once, in a minute
  harness new study my_question && harness run my_question.py --report
  harness plan table1                                what it would cost; no data needed
  harness gap                                        published, ours, gap, verdict

exit codes: 0 all recorded, 1 some run failed, 2 bad usage or input, 130 stopped by Ctrl-C
(143 by SIGTERM, 129 by SIGHUP)
"""

LIMITS = (*FULL, errno.EMFILE, errno.ENFILE)  # of the machine: nothing that was given is wrong
Command = Callable[[Any], int]
# What a person wants → command → function; its options are those of its argument's class, and
# its help is the first line of its docstring.
COMMANDS: dict[str, dict[str, Command]] = {
    "look around": {
        "list": studies.list_studies,
        "fields": studies.fields,
        "plan": studies.plan,
        "status": status.status,
        "doctor": machine.doctor,
    },
    "run": {"run": studies.run, "rescore": studies.rescore, "new": studies.new},
    "detect": {
        "best": detector.best,
        "train": detector.train,
        "predict": detector.predict,
        "card": detector.show,
        "export": detector.export,
    },
    "read": {
        "report": reports.report,
        "images": studies.images,
        "compare": reports.compare,
        "mirror": reports.mirror,
        "gap": paper.gap,
        "params": paper.params,
    },
    "get data": {"data list": data.list_releases, "data fetch": data.fetch},
    "keep house": {
        "accept": paper.accept,
        "merge": merge.merge,
        "cache": machine.cache,
        "completion": machine.completion,
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code, which is the command's own whoever reads what it prints."""
    try:
        code = _obeyed(arguments)
    except SystemExit as ended:  # of argparse, which has printed its help or what is wrong
        if not unprinted():
            raise
        code = int(ended.code or 0)
    if error := unprinted():
        print(f"harness: what is printed: {error.strerror or error}", file=sys.stderr)
        return code or 2
    return code


def _obeyed(arguments: Sequence[str] | None) -> int:
    """Run one command, and say what ended it."""
    try:
        with interruptible():
            settle()
            options = make_parser().parse_args(arguments)
            return int(options.command(filled(options.kind, options)))
    except InputError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print("harness: stopped; the same command goes on where it was", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    except OSError as error:  # no right, no space left, a name too long, too many open files
        said, code = _said(error)
        print(f"harness: {said}", file=sys.stderr)
        return code


def _said(error: OSError) -> tuple[str, int]:
    """What a person is told of an error of the system that nobody foresaw, and the exit code."""
    what = f"{error.filename or 'a file'}: {error.strerror or error}"
    if error.errno not in LIMITS:
        return f"{what}; expected to be able to read and write it", 2
    if error.filename is None and error.errno in FULL:  # on whichever disk it is
        return f"{what}; expected room for it; free some, and start again", 1
    return str(unwritten(Path(error.filename or "a file"), error)), 1


def make_parser(*, grouped: bool = True) -> argparse.ArgumentParser:
    """Make the parser of all commands.

    Args:
        grouped: list them by what a person wants; else one by one, as shtab looks for them.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "harness", description=ABOUT, epilog=EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=harness.__version__)
    subs = parser.add_subparsers(
        title="commands", description=_overview(), required=True, metavar="COMMAND"
    )
    says = "Fetch a published data set, or list those that can be fetched."
    listed: dict[str, Any] = {} if grouped else {"help": says}
    of_data = subs.add_parser("data", description=says, **listed).add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for commands in COMMANDS.values():
        for name, command in commands.items():
            first, _, second = name.partition(" ")
            says = _says(command)
            to = of_data if second else subs
            given: dict[str, Any] = {} if grouped and not second else {"help": says}
            sub = to.add_parser(second or first, description=says, formatter_class=raw, **given)
            kind = _options_of(command)
            sub.set_defaults(command=command, kind=kind)
            add_options(sub, kind)
    return parser


def _overview() -> str:
    lines = []
    for want, commands in COMMANDS.items():
        lines.append(f"{want}:")
        lines += [f"  {name:12} {_says(command)}" for name, command in commands.items()]
    return "\n".join(lines)


def _says(command: Command) -> str:
    return (command.__doc__ or "").partition("\n")[0]


def _options_of(command: Command) -> type:
    """The class of a command's only argument."""
    (parameter,) = signature(command, eval_str=True).parameters.values()
    kind: type = parameter.annotation
    return kind

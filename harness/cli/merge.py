"""The command that joins folders of results. Heavy imports happen inside it."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.cli.options import Json, argument, option
from harness.errors import InputError, warn
from harness.escape import in_line


@dataclass(frozen=True, kw_only=True)
class Merge(Json):
    """Hold which folders are joined, and where."""

    folders: list[Path] = argument("folders of results", metavar="DIR", nargs="+", action="store")
    into: Path = option("--into", "default: results", Path("results"), metavar="DIR")


def merge(options: Merge) -> int:
    """Join folders of results, as several machines leave them."""
    from harness.run.merge import merge

    merged = merge(options.folders, options.into)
    for what in merged.mended:
        print(in_line(f"replaced by a sound one: {what}"), file=sys.stderr)
    for folder in merged.empty:
        print(in_line(f"{folder}: no runs there yet"), file=sys.stderr)
    for what in merged.damaged:
        warn(InputError(what))
    if merged.left:
        print(
            in_line(
                f"{_notes(merged.left)} left where they are, as another start is at work in "
                f"{options.into}; merge once more when it has ended"
            ),
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps(asdict(merged), indent=1))
    else:
        notes = f", {_notes(merged.failed)}" if merged.failed else ""
        print(f"{options.into}: {merged.copied} runs copied, {merged.same} were there{notes}")
    return int(bool(merged.damaged))


def _notes(count: int) -> str:
    return f"{count} note{'s' * (count != 1)} of failed runs"

"""Parts that are programs of their own: run, and their JSON lines made into a table."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import Options, Part, Row, cores
from harness.errors import InputError

Words = Callable[[Options], list[str]]
SCRIPTS: dict[str, Words] = {
    "ceiling": lambda o: [],
    "epoch": lambda o: [],
    "coreset": lambda o: [
        "--threads", str(cores()), "--device", o.device,
        "--peer-picks", "20" if o.quick else "300", *(["--count", "2000"] if o.quick else []),
    ],
}  # fmt: skip


def measure(options: Options) -> Part:
    """Run the script of the part's name.

    Raises:
        InputError: it failed, or printed no JSON object on a line of its own.
    """
    name = options.extra["script"]
    words = [sys.executable, "-m", f"benchmarks.{name}", *SCRIPTS[name](options)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["it said nothing"]
        raise InputError(f"benchmarks.{name} ended with {done.returncode}: {last[-1]}")
    found = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    if not found:
        raise InputError(f"benchmarks.{name}: expected a line of JSON; got none")
    return Part(protocol=["`" + " ".join(words[1:]) + "`"], tables={name: as_rows(found)})


def as_rows(found: list[dict[str, Any]]) -> list[Row]:
    """A row per list item of the object, or per object; nested names are joined."""
    rows = []
    for each in found:
        lists = [v for v in each.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        rows += [flat(r) for part in lists for r in part] if lists else [flat(each)]
    return rows


def flat(value: dict[str, Any], prefix: str = "") -> Row:
    """Nested dictionaries as one: ``{"a": {"b": 1}}`` is ``{"a b": 1}``."""
    row: Row = {}
    for key, item in value.items():
        name = f"{prefix} {key}".strip()
        row |= flat(item, name) if isinstance(item, dict) else {name: item}
    return row

"""One function of one part in a process of its own: MODULE FUNCTION OPTIONS OUT."""

import json
import sys
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.common import Options


def main(module: str, function: str, options: str, out: str) -> None:
    """Call it and write what it returns."""
    found = getattr(import_module(f"benchmarks.{module}"), function)(Options.loads(options))
    value = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
    Path(out).write_text(json.dumps(value))


if __name__ == "__main__":
    main(*sys.argv[1:])

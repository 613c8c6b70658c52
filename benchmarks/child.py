"""One function of one part in a process of its own: MODULE FUNCTION OPTIONS [OUT].

With OUT, what it returns is written there. Without, it returns a step: every line of stdin is the
JSON list of a step's arguments, and its seconds are answered on stdout.
"""

import json
import os
import sys
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.common import Options
from benchmarks.turns import clocked


def main(module: str, function: str, options: str, out: str = "") -> None:
    """Call it, and write what it returns or do its steps."""
    given = Options.loads(options)
    if not out:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what else is printed is no answer
    part = import_module(f"benchmarks.{module}")
    if "torch" in sys.modules:  # what computes by itself does so in float32, as `harness run` does
        from harness.run.process import set_arithmetic

        set_arithmetic(tf32=False)
    found = getattr(part, function)(given)
    if out:
        value = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
        Path(out).write_text(json.dumps(value))
        return
    step = clocked(found, given.device)
    for line in sys.stdin:
        print(step(*json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Parts that are programs of their own: run, and what they print or write made into tables."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import Options, Part, Row, columns, cores, ratio
from harness.errors import InputError

SCRIPTS = ("ceiling", "epoch", "coreset")
FREIA = "FrEIA AllInOneBlock"


def measure(options: Options) -> Part:
    """Run the script of the part's name."""
    name = options.extra["script"]
    if name == "epoch":
        return _epoch(options)
    if name == "ceiling":
        return _ceiling(options)
    words: list[str] = []
    if name == "coreset":
        words = ["--threads", str(cores()), "--device", options.device]
        words += ["--peer-picks", "20" if options.quick else "300"]
        words += ["--count", "2000"] if options.quick else []
    printed = _run(name, words)
    found = [json.loads(x) for x in printed.splitlines() if x.startswith("{")]
    # A script without a line of JSON prints its table itself.
    text = [] if found else [x for x in printed.splitlines() if x and not x.startswith("|")]
    rows = as_rows(found) if found else read_table(printed)
    if not rows:
        raise InputError(f"benchmarks.{name}: expected a line of JSON or a table; got neither")
    return Part([_said(name, words), *text], {name: rows})


def _epoch(options: Options) -> Part:
    """The training step of both kernel layouts, and the ratios that were asked for."""
    part = Part(
        protocol=["One optimiser step on features in memory; ms an image; sides take turns."]
    )
    for kernels in ((3, 1), (3,)):
        file = options.work / "epoch.json"
        words = ["epoch", "--kernels", *map(str, kernels), "--rounds", str(options.turns(5))]
        words += ["--batch", "2" if options.quick else "32", "--threads", str(cores())]
        _run("epoch", [*words, "--json", str(file)])
        part.protocol.append(_said("epoch", words))
        seconds: dict[str, list[float]] = json.loads(file.read_text())["seconds"]
        file.unlink()
        work = 6e-9 * _flow_macs(kernels)  # a step is three passes, two FLOP a MAC
        label = "3×3 and 1×1" if len(kernels) > 1 else "3×3"
        part.tables[f"Training step, {label}"] = [
            {"side": side, **columns([1e3 * s for s in times], "ms an image")}
            | {"GFLOP/s": round(work / median(times), 1)}
            for side, times in seconds.items()
        ]
        for side in (s for s in seconds if s.startswith("ours") and FREIA in seconds):
            text = f"Epoch, {label}, {side}, against AllInOneBlock"
            needed = 1.3 if "float32" in side else 4
            part.claim(text, ratio(seconds[FREIA], seconds[side]), needed)
    return part


def _flow_macs(kernels: tuple[int, ...]) -> int:
    """Multiply-accumulates of resnet18's flows on an image of 256 px, forward."""
    import torch

    from harness.build import make_model
    from harness.cost import flow_macs
    from harness.variant import Variant

    shapes = ((64, 64, 64), (128, 32, 32), (256, 16, 16))
    with torch.device("meta"):
        model = make_model(Variant(kernels=kernels, norm="layer-affine"), shapes, 0)
        return flow_macs(model, [torch.empty(1, *shape) for shape in shapes])


def _ceiling(options: Options) -> Part:
    """The rates of convolutions, and of memory."""
    file = options.work / "ceiling.json"
    words = ["--threads", str(cores()), "--budget", "0.001" if options.quick else "0.05"]
    _run("ceiling", [*words, "--json", str(file)])
    rows: list[Row] = json.loads(file.read_text())
    file.unlink()
    part = Part(["The best of many calls: the rate of the machine.", _said("ceiling", words)])
    for row in rows:
        unit = row.pop("unit")
        part.tables.setdefault(f"Rates, {unit}", []).append(row)
    return part


def _run(name: str, words: list[str]) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["it said nothing"]
        raise InputError(f"benchmarks.{name} ended with {done.returncode}: {last[-1]}")
    return done.stdout


def _said(name: str, words: list[str]) -> str:
    return f"`python -m benchmarks.{name} {' '.join(words)}`".replace(" `", "`")


def missing(name: str, device: str) -> str:
    """Why the script cannot be run; empty where it can."""
    file = Path(__file__).with_name(f"{name}.py")
    if not file.is_file():
        return "not in this checkout"
    return "" if device == "cpu" or '"--device"' in file.read_text() else f"not on {device}"


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


def read_table(text: str) -> list[Row]:
    """The rows of the Markdown tables in a text."""
    rows: list[Row] = []
    head: list[str] = []
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = [c or "side" for c in cells]
        elif set(line) - set("|-: "):
            rows.append(dict(zip(head, cells, strict=True)))
    return rows

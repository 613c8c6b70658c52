"""docs/benchmarks.md from results/benchmarks/*.json: nothing in it is written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError

PARTS = {
    "ceiling": "The machine's ceiling",
    "sweep": "(a) A sweep",
    "epoch": "(b) One training epoch",
    "inference": "(c) Inference",
    "prediction": "Prediction beside other runtimes",
    "exactness": "What the fast path changes",
    "metrics": "(d) Metrics of a category",
    "memory": "(e) Peak memory",
    "growth": "(f) Growth",
    "records": "Thousands of records",
    "target": "(g) Minutes to a published figure",
    "coreset": "PatchCore's coreset",
    "profile": "Where the time goes",
    "threads": "Side by side",
    "idle": "The end of a study",
    "executors": "Executors",
    "jobs": "One and two at a time",
    "safety": "Claims and checkpoints",
    "accelerator": "What an accelerator says",
    "fps": "The paper's four backbones",
}
HEAD = """# Benchmarks

Written by `python -m benchmarks render` from `results/benchmarks/`; measured by `nox -s bench`.
Every figure is the median of rounds in which the sides take turns, with its range; a ratio's range
is over the rounds' own ratios. What was asked for and is missed stands here as missed.
"""


def render(files: Sequence[Path]) -> str:
    """The page of these results.

    Raises:
        InputError: there is no result, or a file is none.
    """
    if not files:
        raise InputError("render: expected results/benchmarks/*.json; got none; run nox -s bench")
    return "\n".join([HEAD, *(_machine(_read(f), f.stem) for f in files)])


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
        return {"parts": dict(found["parts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: expected a result of nox -s bench; got {type(error).__name__}"
        ) from None


def _machine(found: dict[str, Any], name: str) -> str:
    parts = {k: found["parts"][k] for k in PARTS if k in found["parts"]}
    lines = [f"## {name}", ""]
    texts = {key: _environment(part["environment"]) for key, part in parts.items()}
    seen = list(dict.fromkeys(texts.values()))
    mark = {t: f" ({i})" if len(seen) > 1 else "" for i, t in enumerate(seen, 1)}
    lines += [f"{text}{mark[text]}\n" for text in seen]
    claims = [c for part in parts.values() for c in part["claims"]]
    if claims:
        reached = sum(c["reached"] for c in claims)
        lines += [f"### What was asked for: {reached} of {len(claims)} reached", ""]
        lines += [table([_claim(c) for c in claims]), ""]
    if shares := _shares(parts):
        title = "### Share of the ceiling"
        said = "Of the fastest convolution forward in the same format, on the same processor."
        lines += [title, "", said, ""]
        lines += [table(shares), ""]
    for key, part in parts.items():
        lines += [f"### {PARTS[key]}{mark[texts[key]]}", ""]
        lines += [*(f"- {text}" for text in part["protocol"]), f"- Took {part['took']:.0f} s.", ""]
        for title, rows in part["tables"].items():
            if rows:
                lines += [f"**{title}**", "", table(rows), ""]
    return "\n".join(lines)


def _shares(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """What part of the ceiling's convolution rate every row reaches that was measured there."""
    if "ceiling" not in parts:
        return []
    rates = parts["ceiling"]["tables"]["Rates, GFLOP/s"]
    processor = parts["ceiling"]["environment"]["processor"]
    rows = []
    for part in (p for p in parts.values() if p["environment"]["processor"] == processor):
        for title, found in part["tables"].items():
            for row in (r for r in found if "GFLOP/s" in r):
                kind = "bfloat16" if "bfloat16" in row["side"] else "float32"
                of = [r["forward"] for r in rates if r["kind"].startswith(kind)]
                if of:
                    batch = f", batch {row['batch']}" if "batch" in row else ""
                    share = round(100 * row["GFLOP/s"] / max(of), 1)
                    about = {"what": f"{title}{batch}", "side": row["side"]}
                    rows.append({**about, "GFLOP/s": row["GFLOP/s"], "share, %": share})
    return rows


def _environment(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    device = "" if about["device"] == "cpu" else f"; {about['device_name']}"
    quick = " **A quick run: shows that it runs, measures nothing.**" if about["quick"] else ""
    return (
        f"{about['date']}: {about['processor']}, {about['cores']} cores and as many threads on "
        f"every side, {about['memory_gib']} GiB{device}; {about['platform']}, Python "
        f"{about['python']}; {versions}; commit {(about['commit'] or 'unknown')[:12]}. "
        f"Images: {about['data']}; backbone weights: {about['weights']}.{quick}"
    )


def _claim(claim: dict[str, Any]) -> dict[str, Any]:
    unit = claim["unit"]
    low, high = claim.get("low"), claim.get("high")
    bounds = "" if low == high else f"{low}–{high}"  # one round has none
    return {
        "figure": claim["claim"],
        "got": f"{claim['value']}{unit}",
        "range": bounds,
        "asked for": f"{claim['sense']} {claim['needed']:g}{unit}",
        "": "reached" if claim["reached"] else "**missed**",
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the columns are those of any row, in order."""
    columns = list(dict.fromkeys(c for row in rows for c in row))
    lines = [columns, ["---"] * len(columns), *([_cell(r.get(c)) for c in columns] for r in rows)]
    escaped = ([cell.replace("|", "&#124;") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

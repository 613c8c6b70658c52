"""``python -m benchmarks``: measure the parts and render the page."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import render
from benchmarks.common import Options, Part, cores, find_category, in_child
from harness.errors import InputError
from harness.files import write_whole

RESULTS = Path("results/benchmarks")
PAGE = Path("docs/benchmarks.md")
ASKED = ("accelerator", "target")  # measured where they are named: an hour beside anomalib
CPU = {
    "exactness", "metrics", "memory", "threads", "idle", "safety", "target", "prediction",
    "records", "executors", "jobs",
}  # fmt: skip
GPU = [p for p in render.PARTS if p not in CPU]


def main(words: list[str] | None = None) -> int:
    """Exit codes are the harness's: 0 done, 1 some part failed, 2 bad usage or input."""
    given = _parser().parse_args(words)
    try:
        if given.parts == ["render"]:
            return _render(given.results)
        return _measure(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART",
        help=f"{', '.join(render.PARTS)} (default: all but {', '.join(ASKED)}); gpu: those that "
        "use an accelerator, on cuda; render: only write docs/benchmarks.md from what is measured",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--data", type=Path, help="folder of categories in the MVTec AD layout")
    parser.add_argument("--category", help="one of them (default: the first)")
    parser.add_argument("--weights", type=Path, help="folder with resnet18.tv_in1k.safetensors")
    parser.add_argument("--device", default=None, help="cpu (default), cuda")
    parser.add_argument(
        "--epochs", type=int, action="append",
        help="of the sweep (default: 2); given several times, it is measured with each",
    )  # fmt: skip
    parser.add_argument("--kinds", type=int, help="the first so many of the sweep's six variants")
    parser.add_argument("--rounds", type=int, default=0, help="in place of each part's own")
    parser.add_argument("--name", help="of the result's file (default: device and cores)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def _render(results: Path) -> int:
    files = sorted(p for p in results.glob("*.json") if p.stem != "quick")
    write_whole(PAGE, render.render(files))
    print(f"wrote {PAGE}")
    return 0


def _measure(given: argparse.Namespace) -> int:
    gpu = given.parts == ["gpu"]
    parts = GPU if gpu else given.parts or [p for p in render.PARTS if p not in ASKED]
    for part in parts:
        if part not in render.PARTS:
            raise InputError(f"part: expected {', '.join(render.PARTS)}; got '{part}'")
    device = given.device or ("cuda" if gpu else "cpu")
    for name, values, least in (("rounds", [given.rounds], 0), ("epochs", given.epochs or [], 1)):
        if wrong := [v for v in values if v < least]:
            raise InputError(f"--{name}: expected a positive number; got {wrong[0]}")
    work = given.results / "work"
    data = find_category(given.data, given.category, work, quick=given.quick)
    options = Options(
        data=data, work=work, weights=given.weights,
        device=device, epochs=tuple(given.epochs or [1 if given.quick or gpu else 2]),
        rounds=given.rounds, quick=given.quick,
        extra={"kinds": given.kinds} if given.kinds else {},
    )  # fmt: skip
    usual = f"{device.replace(':', '-')}-{cores()}-cores"
    target = given.results / f"{given.name or ('quick' if given.quick else usual)}.json"
    failed = [part for part in parts if not _part(part, options, target)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    print(f"wrote {target}")
    if not given.quick:
        _render(given.results)
    return 1 if failed else 0


def _part(name: str, options: Options, target: Path) -> bool:
    """Measure one part in a process of its own and add it to the result at once."""
    print(f"{name} …", flush=True)
    try:
        about = in_child(options, "common", "environment").result
        child = in_child(options, name, "measure", loud=True)
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return False
    found = json.loads(target.read_text()) if target.is_file() else {"parts": {}}
    block = {"environment": about, "took": round(child.seconds, 1)}
    found["parts"][name] = asdict(Part(**child.result)) | block
    write_whole(target, json.dumps(found, indent=1, ensure_ascii=False))
    for title, rows in child.result["tables"].items():
        print(f"\n{title}\n\n{render.table(rows)}\n", flush=True)
    for claim in child.result["claims"] if not options.quick else ():
        verdict = "reached" if claim["reached"] else "MISSED "
        asked = f"{claim['sense']} {claim['needed']:g}"
        print(f"  {verdict} {claim['claim']}: {claim['value']}{claim['unit']} ({asked})")
    return True


if __name__ == "__main__":
    sys.exit(main())

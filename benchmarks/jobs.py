"""What two runs at a time save, and how busy the cores are."""

from statistics import median

from benchmarks.common import Child, Options, Part, columns, cores, ratio
from benchmarks.starts import VARIANTS, in_turns, middle

ROUNDS = 3
ONE, TWO = "--executor local --jobs 1", "--executor local --jobs 2"
SIDES = {ONE: ("local", 1), TWO: ("local", 2), "--executor ray --jobs 2": ("ray", 2)}


def measure(options: Options) -> Part:
    """One and two at a time, in turns."""
    done = in_turns(options, SIDES, rounds=options.turns(ROUNDS), short=False)
    part = Part(
        protocol=[
            f"{len(VARIANTS)} variants of the embedded study on its three categories; threads × "
            f"jobs = {cores()}. Processor time is sampled once a second; that of a Ray cluster is "
            "not seen.",
            "Every side is a fresh `harness run --no-speed` with features made anew. Ray's is a "
            "cluster that it starts for itself.",
        ]
    )
    part.tables["One and two at a time"] = [
        {
            "side": name, "first record, s": middle(children, "first"),
            **columns([c.seconds for c in children], "s"),
            "share of the cores that idles, %": _idle(children) if "ray" not in name else None,
        }
        for name, children in done.items()
    ]  # fmt: skip
    one, two = ([c.seconds for c in done[name]] for name in (ONE, TWO))
    part.claim("--jobs 2 against --jobs 1, whole", ratio(one, two), 1)
    return part


def _idle(children: list[Child]) -> float:
    return round(100 * (1 - median(c.busy / (cores() * c.seconds) for c in children)), 1)

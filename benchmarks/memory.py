"""(e) Peak memory of each side of the other parts, each in a process of its own.

The sweep's peaks are in its own table: they are those of the timed processes.
"""

from benchmarks.common import Options, Part, Row, has_peer, in_child

SIDES = {  # not taken from the modules themselves: this process stays without torch
    "inference": (
        "ours, float32",
        "ours, bfloat16",
        "ours, fast, float32",
        "ours, fast, bfloat16",
        "anomalib, float32",
    ),
    "metrics": ("ours", "scikit-learn", "anomalib"),
}
TITLES = {"inference": "inference, batch 32", "metrics": "metrics, 117 × 256²"}


def measure(options: Options) -> Part:
    """One child per side; what all sides import is part of every figure."""
    rows: list[Row] = []
    for module, sides in SIDES.items():
        for side in sides:
            if "anomalib" in side and not has_peer():
                continue
            child = in_child(options, module, "alone", watch=True, side=side)
            rows.append({"part": TITLES[module], "side": side, **child.memory()})
    return Part(
        protocol=[
            "One process per side. One process: ru_maxrss. All processes: the most that it and "
            "its children held together, proportional set size, sampled."
        ],
        tables={"Peak memory": rows},
    )

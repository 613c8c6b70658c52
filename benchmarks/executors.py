"""What each executor adds to a run.

It is small beside a run of the paper, so it is measured on runs of half a second: every side does
the same sixteen in a fresh process, one at a time, and the sides take turns.
"""

from benchmarks.common import Options, Part, Row, columns, cores, spread
from benchmarks.starts import HERE, SHORT, in_turns, middle

ROUNDS = 6  # a multiple of the sides, so that each begins as often
ALONE = "one process, no executor"
SIDES = {
    ALONE: (HERE, 1), "--executor local": ("local", 1), "--executor ray": ("ray", 1),
}  # fmt: skip


def measure(options: Options) -> Part:
    """Every executor less the one process, round by round."""
    done = in_turns(options, SIDES, rounds=options.turns(ROUNDS), short=True)
    own = [c.result["further"] for c in done[ALONE]]
    rows: list[Row] = []
    for name, children in done.items():
        further = [c.result["further"] for c in children]
        row = {"side": name, "first record, s": middle(children, "first")}
        row |= columns(further, "s a further run")
        if name != ALONE:
            more = spread([a - b for a, b in zip(further, own, strict=True)], 3)
            half, low, high = (round(more[k], 3) for k in ("median", "min", "max"))
            row["more than in one process, s a run"] = f"{half} ({low} to {high})"
        rows.append(row)
    return Part(
        protocol=[
            f"{SHORT} trainings of 3 epochs on one category at 64 px, one at a time, {cores()} "
            "threads each. A further run: the time from the first record to the last, by "
            f"{SHORT - 1}. Pairs are of a round: the executor's less that of the one process.",
            "Every side is a fresh `harness run --no-speed` with features made anew. Ray's is a "
            "cluster that it starts for itself.",
        ],
        tables={"What an executor adds": rows},
    )

"""What the readings of the paper's parameter counts say, in words and tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from harness.bundled import bundled
from harness.paper.baseline import read_counts


def readings(published_only: bool = False) -> pd.DataFrame:  # noqa: FBT001, FBT002
    """List every reading of the paper with its parameters."""
    table = pd.DataFrame(read_counts(bundled("results", "baseline"))["readings"])
    return table.dropna(subset=["published"]) if published_only else table


def surviving() -> pd.DataFrame:
    """Tell for every reading which of the paper's printed counts it gives, one column per count.

    A reading is a coupling and a width; ``matched`` counts the printed figures it rounds to,
    unverified ones left out.
    """
    table = readings(published_only=True)
    steps = np.where(table["flow_steps"].isin([4, 10]), "half the steps", "all steps")
    table = table.assign(
        reading=table["coupling"] + ", " + steps + ", width " + table["width"],
        count=table["backbone"] + " " + table["kernels"].str.replace(",", "-")
        + " (" + table["published"].astype(str) + " M"
        + np.where(table["status"] == "unverified", "?", "") + ")",
    )  # fmt: skip
    shown = table.pivot_table(
        index="reading", columns="count", values="rounds", aggfunc="first", sort=False
    ).astype(bool)
    sure = [c for c in shown.columns if "?" not in str(c)]
    shown.insert(0, "matched", shown[sure].sum(axis="columns"))
    return shown.sort_values("matched", ascending=False, kind="stable")


def opening(survivors: pd.DataFrame) -> str:
    """Write the first lines of the page on parameters, in Markdown, with the answer.

    Args:
        survivors: of :func:`surviving`.
    """
    printed = readings(published_only=True)
    best = survivors["matched"].max()
    total = sum("?" not in str(c) for c in survivors.columns) - 1
    leaders = "; ".join(survivors.index[survivors["matched"] == best])
    some = "No single reading gives" if best < total else "Some readings give"
    lines = [
        "# parameters",
        "**Which reading of the paper gives its parameter counts?**",
        'The paper prints "A.d. params" to a tenth of a million and leaves open how many '
        "couplings a step has and how wide its subnets are. Every reading below was built and "
        "counted; trainable parameters beside the backbone, biases and per-channel affines "
        "included, permutations not.",
        "## What survives",
        f"**Answer.** {some} all {total} printed counts; the best give {best}: {leaders}. "
        "By backbone:",
        "\n".join(_by_backbone(printed[printed["rounds"]])),
    ]
    return "\n\n".join(lines)


def conclusions() -> str:
    """Say what the counts cannot tell apart, and what a norm would add, in Markdown."""
    printed = readings(published_only=True)
    both = printed[printed["rounds"]].groupby(["backbone", "kernels"])["coupling"].nunique()
    norms = printed[printed["norm"] > 0].drop_duplicates("backbone")
    added = "; ".join(f"{r.norm:,} ({r.backbone})" for r in norms.itertuples())
    reached = printed[printed["rounds_with_norm"] & (printed["norm"] > 0)]
    by = "; ".join(f"{r.backbone} {_reading(r)}" for r in reached.itertuples()) or "no reading"
    return "\n\n".join(
        (
            "## One- or two-sided?",
            f"Of {len(both)} printed counts that some reading gives, {(both == 2).sum()} are "
            "given by a one-sided and by a two-sided reading alike: they differ by less than the "
            "printed digit. **The count cannot tell the couplings apart**; only a run can "
            "(`coupling`).",
            "## The norm before the flow",
            "A trained LayerNorm over channels and positions, as in some reproductions, would add "
            f"{added}. With it, a printed count is reached by: {by}.",
        )
    )


def _by_backbone(fitting: pd.DataFrame) -> Iterator[str]:
    for backbone, rows in fitting.groupby("backbone", sort=False):
        said = "; ".join(
            f"{_reading(r)} ({r.flow:,}"
            f"{' against an unverified count' if r.status == 'unverified' else ''})"
            for r in rows.itertuples()
        )
        yield f"- **{backbone}** {said}"


def _reading(row: Any) -> str:  # noqa: ANN401 -- a row of readings()
    kernels = row.kernels.replace(",", "-")
    return f"{kernels}, {row.coupling}, {row.flow_steps} steps, width {row.width}"

"""Published figures beside ours, as tables for the notebooks of the paper's own tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.bundled import bundled
from harness.data.counts import PUBLISHED_COUNTS
from harness.errors import warn
from harness.experiment.choices import METHODS, SUBJECT, method_of
from harness.experiment.store import read_records
from harness.experiment.study import Study
from harness.experiment.variant import Variant
from harness.paper.baseline import read_counts
from harness.paper.gap import FEWEST, TOLERANCE, copy_of, gaps, official_categories
from harness.paper.ledger import Published, ledger
from harness.report.selection import Selection
from harness.score.metrics import METRICS

MARKS = {"confirmed": "", "single-source": "°", "unverified": "?"}
LEGEND = (
    "Published figures: no mark where two or more independent sources agree; ° one source; "
    "? recalled without a source, shown and never judged. Every figure's source is in the ledger "
    "(results/paper)."
)
# In the paper's order; compared methods as the paper prints them.
COSTS = ("fps", "additional_time", "additional_params", "image_auroc", "pixel_auroc")
SPELT = {
    "fps": "FPS", "additional_time": "A.d. time (ms)", "additional_params": "A.d. params (M)",
    **{name: metric.label for name, metric in METRICS.items()},
}  # fmt: skip
DIGITS = {"fps": 1, "additional_time": 1, "additional_params": 3}


def accepted_counts() -> dict[str, int]:
    """Read digest → additional parameters, as the baseline has them (`harness gap` recounts)."""
    return dict(read_counts(bundled("results", "baseline"))["variants"])


def compared(selection: Selection, by: str = "FastFlow") -> pd.DataFrame:
    """Judge the gap of the published table that a study repeats; see ``gaps``."""
    study = selection.study
    figures = [f for f in ledger() if f.by == by and f.table == study.name]
    records = read_records(selection.results, damaged=warn)
    return gaps(figures, records, accepted_counts(), study)


def metrics_of(study: Study) -> list[str]:
    """List the AUROCs that a table of the paper prints, its own first, then the other.

    >>> from harness.studies import STUDIES
    >>> metrics_of(STUDIES["table3"]), metrics_of(STUDIES["table4"])
    (['pixel_auroc', 'image_auroc'], ['image_auroc'])
    """
    if not any(counts.masks for counts in PUBLISHED_COUNTS[study.dataset].values()):
        return ["image_auroc"]
    both = ["image_auroc", "pixel_auroc"]
    own = {f.metric for f in ledger() if (f.by, f.table) == ("FastFlow", study.name)}
    return sorted(both, key=lambda metric: metric not in own)


def by_category(
    selection: Selection, frame: pd.DataFrame, label: str, metric: str
) -> pd.DataFrame:
    """Set one variant's categories beside every published figure of its method and backbone.

    Args:
        selection: the runs.
        frame: of :func:`harness.report.tables.runs`.
        label: the variant's name.
        metric: a key of ``METRICS``.

    Columns: ``ours`` (mean ± standard deviation over seeds, %; it says where the images are not
    the published ones), the paper's, and each reproduction's, an oracle marked so; in Table 4
    the compared methods' too. The last row is the mean, and only over all categories.
    """
    study = selection.study
    variant = next(v for v, n in study.named.items() if n == label)
    ours = mine(frame, variant.digest, metric, selection.runs_of_a_variant)
    if not set(selection.categories) >= set(official_categories(study)):
        ours.pop("mean", None)
    columns = {f"ours{_other_copy(selection)}": ours}
    for f in ledger():
        if f.metric == metric and f.dataset == study.dataset and _stands_beside(f, variant, study):
            columns.setdefault(_source(f), {})[f.category] = f"{f.value:.1f}{MARKS[f.status]}"
    rows = [*selection.categories, "mean"]
    shown = pd.DataFrame(columns, dtype=object).reindex(rows).fillna("–")
    shown.index.name = f"{METRICS[metric].label} (%)"
    return shown


def _stands_beside(figure: Published, variant: Variant, study: Study) -> bool:
    """Whether a figure is of the variant's method, backbone and settings.

    Or of a rival of Table 4, whose backbone is not named.
    """
    own = method_of(figure.method) == variant.method
    rival = figure.table == study.name == "table4" and figure.method != METHODS[SUBJECT].name
    if not (own or rival) or not figure.category:
        return False
    # Where a rival's backbone is not named, it may be any.
    named = figure.backbone or (variant.method != SUBJECT and own)
    if named and figure.backbone.split(".")[0] != variant.backbone.split(".")[0]:
        return False
    other = {k: v for k, v in figure.fields.items() if k != "epoch_selection"}
    if own and any(getattr(variant, k) != v for k, v in other.items()):
        return False
    printed = figure.table in ("table2", "table3", "table4")
    return printed or figure.by not in (METHODS[SUBJECT].name, "U-Flow")


def tally(table: pd.DataFrame) -> str:
    """Count in words how many rows have which verdict."""
    counts = table["verdict"].value_counts()
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "none"


def gap_opening(own: pd.DataFrame, others: pd.DataFrame) -> str:
    """Write the first lines of the page on the gap, in Markdown: verdicts, and how they are made.

    Args:
        own: the rows of FastFlow's own figures.
        others: those of compared methods and of third parties.
    """
    tolerance = ", ".join(f"{v} points of {k}" for k, v in TOLERANCE.items())
    return f"""# gap

**How far are our figures from the published ones?**

Of {len(own)} figures that FastFlow's paper prints of itself: {tally(own)}. Of
{len(others)} figures of compared methods and of third-party reproductions:
{tally(others)}.

- *reproduced*: the whole 95 % interval of our mean over seeds (t, by the spread within the
  categories) lies within the tolerance. *gap*: it lies wholly below; *exceeds*: wholly above.
- *undecided*: neither, as the interval is too wide, or there are fewer than {FEWEST} seeds.
- Tolerance: {tolerance}, and half of the last printed digit; for parameters the rounding alone.
- *not comparable*: a reason why no figure of ours could be judged against it.
- *not run*: no record of the variant that repeats it, on every category of the figure.
- Ours is the last epoch, unless the published one is itself an epoch chosen on the test set."""


def mine(frame: pd.DataFrame, digest: str, metric: str, expected: int) -> dict[str, str]:
    """Write a variant's figure by category, and its mean where all runs are there, in %."""
    runs = frame[frame["digest"] == digest].dropna(subset=[metric])
    said = {str(c): _spread(100 * v[metric]) for c, v in runs.groupby("category")}
    if len(runs) == expected:
        said["mean"] = _spread(100 * runs.groupby("seed")[metric].mean())
    return said


def _spread(values: "pd.Series[float]") -> str:
    if len(values) < 2:
        return f"{values.mean():.1f} (1 seed)"
    return f"{values.mean():.1f} ± {values.std():.1f}"


def _other_copy(selection: Selection) -> str:
    """What sets the images apart from the published ones, in brackets."""
    copies = [copy_of(r) for r in selection.records]
    said = {
        "a part of the data": any(c.complete is False for c in copies),
        "other data": any(c.official is False and c.complete for c in copies),
        "stored in another form": any(c.published_form is False for c in copies),
    }
    true = [text for text, is_so in said.items() if is_so]
    return f" ({', '.join(true)})" if true else ""


def _source(figure: Published) -> str:
    if figure.by == "FastFlow":
        return "paper" if figure.method == "FastFlow" else f"{figure.method}, in the paper"
    field, _, value = figure.setting.partition("=")
    rule = value if field == "epoch_selection" else ""
    several = "issue" in figure.table or "," in figure.table  # tables of one author
    return f"{figure.by}{f' ({figure.table})' if several else ''}" + (
        ", best epoch on test" if rule else ", last epoch" if figure.by == "gathierry" else ""
    )


def printed(row: Mapping[Any, Any]) -> str:
    """Write a published figure with its unit and how sure it is."""
    unit = "" if row["unit"] in ("%", "images/s", "ms", "M") else f" {row['unit']}"
    return f"{row['value']:g}{unit}{MARKS[row['status']]}"


def interval(row: Mapping[Any, Any]) -> str:
    """Write the interval of ours; a dash where there is none."""
    return f"{row['low']:.2f} … {row['high']:.2f}" if np.isfinite(row["low"]) else "–"


def what(row: Mapping[Any, Any]) -> str:
    """Name a published figure within its table."""
    method = "" if row["method"] == row["by"] == "FastFlow" else row["method"]
    by = "" if row["by"] == "FastFlow" else f"{row['by']}: "
    parts = (f"{by}{method}", row["setting"], row["backbone"], row["category"])
    return ", ".join(filter(None, (*parts, SPELT.get(row["metric"], row["metric"]))))

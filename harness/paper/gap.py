"""The reproduction gap: every published figure beside ours, with a verdict.

Nothing is typed in: published figures come from the ledger, ours from run records.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.data.counts import PUBLISHED_COUNTS, Copy, Counts, compare
from harness.experiment.choices import method_of
from harness.experiment.measured import is_number
from harness.experiment.record import Record
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.experiment.variant import Variant
from harness.paper.ledger import Published
from harness.score.statistics import paired_interval
from harness.studies import STUDIES

# Points within which the whole interval of a mean has to lie to count as reproduced, beside half
# of the last printed digit. Set before anything was judged, not measured: the reproductions' gaps
# (0.8 to 1.6) exceed them.
TOLERANCE = {"image_auroc": 0.5, "pixel_auroc": 0.3, "image_f1max": 0.5, "pixel_f1max": 0.5}
SPEEDS = {"fps": "fps", "additional_time": "additional_ms"}  # as a record names them
TIMES = ("fps", "additional_time", "inference_time", "speed_ratio", "memory")
VERDICTS = ("reproduced", "gap", "exceeds", "undecided", "not comparable", "not run")
FEWEST = 3  # seeds that a verdict takes


@dataclass(frozen=True)
class Ours:
    """Hold our figure for a published one.

    Attributes:
        values: by category, one per seed, in the published unit; empty where nothing was run.
        why: why there is none, or why it does not compare; empty where it does.
        exact: whether it is counted, not measured, so that one value is all there is.

    >>> Ours(((97.0, 98.0, 99.0),)).mean, Ours(((97.0, 98.0, 99.0),)).seeds
    (98.0, 3)
    """

    values: tuple[tuple[float, ...], ...] = ()
    why: str = ""
    exact: bool = False

    @property
    def mean(self) -> float:
        """Compute the mean over categories and seeds, nan without any."""
        return float(np.mean(self.values)) if self.values else np.nan

    @property
    def seeds(self) -> int:
        """Count the seeds."""
        return len(self.values[0]) if self.values else 0

    @property
    def interval(self) -> tuple[float, float]:
        """Compute the 95 % interval of the mean over seeds; nan where there are too few."""
        if self.exact:
            return self.mean, self.mean
        return paired_interval(self.values) if self.seeds >= FEWEST else (np.nan, np.nan)

    def verdict(self, published: float, tolerance: float) -> str:
        """Judge it by equivalence: more noise never makes a claim easier.

        Args:
            published: the figure.
            tolerance: how far off it may be, in its unit.

        Returns:
            ``reproduced``: the whole interval lies within the tolerance. ``gap``, ``exceeds``:
            it lies wholly below, or above. ``undecided``: neither, or too few seeds.

        >>> Ours(((93.5, 95.0, 96.5),)).verdict(98.5, 0.55)
        'undecided'
        """
        low, high = self.interval
        tolerance += 1e-9  # of rounding
        if published - tolerance <= low and high <= published + tolerance:
            return "reproduced"
        if high < published - tolerance:
            return "gap"
        return "exceeds" if low > published + tolerance else "undecided"


Runs = dict[tuple[str, str], list[Record]]  # by digest and data set


def gaps(
    figures: Sequence[Published],
    records: Iterable[Record],
    counts: Mapping[str, int],
    asked: Study | None = None,
) -> pd.DataFrame:
    """Judge every published figure, a row each.

    Args:
        figures: the ledger.
        records: of which those of smoke runs are left out.
        counts: digest → additional parameters of the variants that :func:`counted` names; these
            need no run.
        asked: a study as it was run, perhaps with other settings than the paper's: its variants
            then stand in for those of the same name, and the settings are said under ``why``.

    Columns: the figure's own (see :class:`harness.paper.ledger.Published`), ``study`` and
    ``variant`` that stand for it, ``ours``, ``seeds``, ``low``, ``high``, ``gap`` (ours −
    published, in the figure's unit: points for percentages), ``tolerance``, ``verdict`` and
    ``why``.

    Verdicts are those of :meth:`Ours.verdict`; ``not run`` or ``not comparable`` otherwise.
    """
    runs: Runs = {}
    for r in records:
        if not r.smoke:
            runs.setdefault((r.digest, r.dataset), []).append(r)
    return pd.DataFrame([_row(figure, runs, counts, asked) for figure in figures])


def counted(figures: Sequence[Published]) -> dict[str, Variant]:
    """Map digests to the trainings whose parameters a published figure counts."""
    found = (stands_for(f) for f in figures if f.metric == "additional_params")
    return {f[2].training.digest: f[2].training for f in found if f}


def stands_for(figure: Published) -> tuple[Study, str, Variant] | None:
    """Find the study and variant that repeat a published figure; None where none does."""
    study = STUDIES.get(figure.table if figure.by == "FastFlow" else "reproductions")
    method = method_of(figure.method)
    if method is None or study is None or not figure.backbone:
        return None
    wanted = {"epoch_selection": "last", **figure.fields}
    for variant, name in study.named.items():
        if study.name == "reproductions" and not name.startswith(f"{figure.by},"):
            continue
        architecture, _, tag = figure.backbone.partition(".")
        same = variant.backbone == figure.backbone if tag else (
            variant.backbone.split(".")[0] == architecture
        )  # fmt: skip
        if (
            variant.method == method
            and same
            and all(getattr(variant, k) == v for k, v in wanted.items())
        ):
            return study, name, variant
    return None


def _row(
    figure: Published, records: Runs, counts: Mapping[str, int], asked: Study | None
) -> dict[str, Any]:
    found, changed = stands_for(figure), ""
    if found and asked and asked.name == found[0].name:
        found, changed = _as_run(found, asked)
    ours = _ours(figure, found, records, counts)
    if changed and ours.values and not ours.why:
        ours = replace(ours, why=changed)
    tolerance = TOLERANCE.get(figure.metric, 0.0) + figure.rounding
    low, high = ours.interval
    if _incomparable(figure) or (ours.values and ours.why):
        verdict = "not comparable"
    elif not ours.values:
        verdict = "not run"
    else:
        verdict = ours.verdict(figure.value, tolerance)
    return {
        **asdict(figure), "study": found[0].name if found else "", "variant": found[1] if found
        else "", "ours": ours.mean, "seeds": ours.seeds, "low": low, "high": high,
        "gap": ours.mean - figure.value, "tolerance": tolerance, "verdict": verdict,
        "why": ours.why,
    }  # fmt: skip


def _as_run(
    found: tuple[Study, str, Variant], asked: Study
) -> tuple[tuple[Study, str, Variant], str]:
    """The variant of the same name as it was run, and what its settings change."""
    study, name, variant = found
    for run, run_name in asked.named.items():
        if run_name == name:
            changed = run.changes(variant).items()
            said = (f"{k} {show(v)} instead of {show(getattr(variant, k))}" for k, v in changed)
            return (study, name, run), ", ".join(said)
    return found, ""


def _ours(
    figure: Published,
    found: tuple[Study, str, Variant] | None,
    records: Runs,
    counts: Mapping[str, int],
) -> Ours:
    why = _incomparable(figure)
    if found is None:
        known = method_of(figure.method)
        reason = (
            "no study repeats it" if known else f"{figure.method} is not among the methods run"
        )
        return Ours(why=why or reason)
    study, variant = found[0], found[2]
    mine = records.get((variant.digest, figure.dataset or study.dataset), [])
    if figure.metric == "additional_params":
        count = counts.get(variant.training.digest)
        return Ours(((count / 1e6,),) if count is not None else (), why, exact=True)
    if speed := SPEEDS.get(figure.metric):
        speeds = [getattr(r.measured.speed, speed) for r in mine]
        timed = [s for s in speeds if s is not None]
        return Ours(((float(np.median(timed)),),) if timed else (), why)
    if why or figure.metric not in TOLERANCE:
        return Ours(why=why or f"{figure.metric} is not measured")
    mine = [r for r in mine if r.category in _wanted(figure, study)]
    if other := _other_data(mine):
        return Ours(_values(figure, mine, study), other)
    return _of_categories(figure, mine, study)


def _incomparable(figure: Published) -> str:
    """Why a figure can never be judged, whatever is run."""
    if figure.status == "unverified":
        return "unverified: recalled, no source at hand"
    if figure.metric == "pixel_pr_auc":
        return "a PR-AUC beside ROC AUCs"
    if figure.metric in TIMES:
        return "measured on other hardware"
    if figure.metric == "auroc_unspecified":
        return "image or pixel level is not stated"
    if method_of(figure.method) and not figure.backbone:
        return "the backbone is not known"
    if figure.presumed:
        return f"the {figure.presumed} is presumed"
    return ""


def _other_data(records: Iterable[Record]) -> str:
    """Why the records' data or weights are not what the figure is about."""
    if any(r.random_weights for r in records):
        return "random backbone weights"
    for r in records:
        copy = copy_of(r)
        if copy.official is False or copy.published_form is False:
            return f"{r.category}: {copy.copy}"
    return ""


def copy_of(record: Record) -> Copy:
    """Say how a record's images stand to the published ones; an old record does not say."""
    data = record.data
    if data.official is None or data.published_form is None:
        counts = {name: getattr(data, name) for name in Counts._fields}
        return compare(record.dataset, record.category, counts, data.form)
    return Copy(data.official, data.complete, data.published_form, data.copy)


def _of_categories(figure: Published, records: Sequence[Record], study: Study) -> Ours:
    values = _values(figure, records, study)
    if values:
        return Ours(values)
    if not records:
        return Ours(why="no record")
    if figure.category != "mean":
        return Ours(why=f"{figure.metric} is not recorded")
    done = len({r.category for r in records if is_number(r.metrics.get(figure.metric))})
    return Ours(why=f"{done} of {len(official_categories(study))} categories are recorded")


def _values(
    figure: Published, records: Sequence[Record], study: Study
) -> tuple[tuple[float, ...], ...]:
    """By category, the figure of every seed that has all the categories it takes."""
    wanted = _wanted(figure, study)
    whole = []
    for seed in sorted({r.seed for r in records}):
        of_seed = {r.category: r.metrics for r in records if r.seed == seed}
        found = [of_seed.get(c, {}).get(figure.metric) for c in wanted]
        have = [100 * value for value in found if is_number(value)]
        if have and len(have) == len(found):
            whole.append(have)
    return tuple(zip(*whole, strict=True))


def _wanted(figure: Published, study: Study) -> tuple[str, ...]:
    return official_categories(study) if figure.category == "mean" else (figure.category,)


def official_categories(study: Study) -> tuple[str, ...]:
    """List the categories that a published mean is over."""
    official = PUBLISHED_COUNTS.get(study.dataset.removeprefix("disturbed-"), {})
    return study.categories or tuple(official)

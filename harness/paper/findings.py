"""docs/findings.md, written from records: no number in it is typed in.

The template is the page itself with tags in place of figures; each tag names a study, a data set
and what is shown of its records, and the page is rendered from the committed ones.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from harness.errors import InputError, unknown
from harness.experiment.choices import METHODS, SUBJECT
from harness.experiment.record import Record
from harness.paper.ledger import ledger
from harness.report.label_free import choices, correlations, pairs
from harness.report.selection import Selection
from harness.studies import get_study

TAG = re.compile(r"<<\s*(\w+)\s+([^>]*?)\s*>>")
HEADLINE = ("image_auroc", "pixel_auroc", "aupro")
NAMES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
MISSING = "not run"


def render(template: str, results: Path) -> str:
    """Fill a template's tags from the records in a folder.

    Tags, each of a study and a data set: ``table`` and ``runs`` of some categories; ``fall`` of a
    category, metric and variant (best epoch minus last one, the mean over seeds, in points);
    ``minutes`` that the trainings took; ``rank`` and ``choice`` of a study that validates on drawn
    defects. ``published`` is a figure of the ledger: by whom, backbone, data set, category, metric
    and setting (``last``: none).

    Raises:
        InputError: a tag that does not exist, or one whose study, variant or metric does not.

    >>> render("as <<runs surfaces surfaces grass>> runs", Path("nowhere"))
    'as 0 of 27 runs'
    """
    return TAG.sub(lambda found: _fill(found[1], found[2], results), template)


def _fill(tag: str, arguments: str, results: Path) -> str:
    if tag not in TAGS:
        raise unknown("tag", tag, TAGS)
    return TAGS[tag](arguments, results)


@cache
def _selection(study: str, dataset: str, categories: tuple[str, ...], results: Path) -> Selection:
    return Selection(get_study(study), results, dataset, categories)


def _select(words: list[str], results: Path) -> Selection:
    study, dataset, *categories = words
    return _selection(study, dataset, tuple(categories), results)


def _of(selection: Selection, label: str) -> list[Record]:
    digest = {name: digest for digest, name in selection.labels.items()}.get(label)
    if digest is None:
        raise unknown("variant", label, list(selection.labels.values()))
    return [r for r in selection.records if r.digest == digest]


def _percent(values: list[float]) -> str:
    """Mean ± standard deviation over seeds, in %; with one seed it says so."""
    if not values:
        return MISSING
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} ± {100 * stdev(values):.1f}" if len(values) > 1 else f"{mean} (one seed)"


def _metric(records: list[Record], category: str, metric: str) -> list[float]:
    return [r.metrics[metric] for r in records if r.category == category and metric in r.metrics]


def table(arguments: str, results: Path) -> str:
    """Tabulate the three headline metrics of every recorded variant, category by category.

    A variant without a record of any category is left out.
    """
    selection = _select(arguments.split(), results)
    head = ["variant"] + [
        f"{category}: {NAMES[metric]}" for category in selection.categories for metric in HEADLINE
    ]
    rows = [
        [
            label,
            *(
                _percent(_metric(records, category, metric))
                for category in selection.categories
                for metric in HEADLINE
            ),
        ]
        for label in selection.labels.values()
        if (records := _of(selection, label))
    ]
    return _markdown(head, rows)


def fall(arguments: str, results: Path) -> str:
    """Give the best epoch's metric minus the last one's, in points: the mean over seeds."""
    study, dataset, category, metric, label = _words(arguments, 5)
    records = _of(_select([study, dataset, category], results), label)
    falls = []
    for record in records:
        values = [e.metrics[metric] for e in record.epochs if metric in e.metrics]
        if len(values) > 1:
            falls.append(100 * (max(values) - values[-1]))
    return f"{fmean(falls):.1f}" if falls else MISSING


def runs(arguments: str, results: Path) -> str:
    """Count the recorded runs of a study on some categories."""
    selection = _select(arguments.split(), results)
    return f"{len(selection.records)} of {selection.runs}"


def minutes(arguments: str, results: Path) -> str:
    """Add up the minutes that a study's recorded trainings took, each training once."""
    selection = _select(arguments.split(), results)
    took = {
        (r.training_digest, r.category, r.seed): r.measured.fit_seconds or 0.0
        for r in selection.records
        if r.measured.fit_seconds
    }
    return f"{sum(took.values()) / 60:.0f}"


def rank(arguments: str, results: Path) -> str:
    """Tabulate how AUROC on drawn defects ranks against AUROC on the test set, by category."""
    table = correlations(pairs(_select(arguments.split(), results)))
    rows = [
        [str(name), *(f"{v:.0f}" if of == "pairs" else f"{v:.2f}" for of, v in row.items())]
        for name, row in table.iterrows()
    ]
    return _markdown(["category", *map(str, table.columns)], rows)


def choice(arguments: str, results: Path) -> str:
    """Tabulate which variant drawn defects choose, and what the test set says of it."""
    table = choices(_select(arguments.split(), results))
    head = ["category", *(": ".join(column) for column in table.columns)]
    return _markdown(head, [[str(name), *map(str, row)] for name, row in table.iterrows()])


def published(arguments: str, results: Path) -> str:
    """Give a figure of the ledger, in its unit."""
    by, backbone, dataset, category, metric, setting = _words(arguments, 6)
    wanted = (by, backbone, dataset, category, metric, "" if setting == "last" else setting)
    for figure in ledger():
        of = (figure.by, figure.backbone, figure.dataset, figure.category, figure.metric)
        if (*of, figure.setting) == wanted and figure.method == METHODS[SUBJECT].name:
            return f"{figure.value:g}"
    raise InputError(f"published: expected a figure of the ledger; got '{arguments}'")


TAGS: Mapping[str, Callable[[str, Path], str]] = {
    "table": table,
    "fall": fall,
    "runs": runs,
    "minutes": minutes,
    "rank": rank,
    "choice": choice,
    "published": published,
}


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; where there is no row, say that nothing was run."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else MISSING


def _words(arguments: str, count: int) -> list[str]:
    """Split into so many words; the last one may have spaces."""
    words = arguments.split(maxsplit=count - 1)
    if len(words) != count:
        raise InputError(f"a tag: expected {count} words; got '{arguments}'")
    return words


if __name__ == "__main__":
    into, template, records = (Path(argument) for argument in sys.argv[1:])
    into.write_text(render(template.read_text(encoding="utf-8"), records), encoding="utf-8")

"""The ledger of published numbers: every figure with its unit, source and status.

``results/paper/published.csv`` holds what FastFlow's paper and the compared methods' papers
print, ``reproductions.csv`` what third parties measured; what is not known is absent. Beside
them, ``settings.csv`` is what the paper says of its own settings: a test holds the studies to it.
"""

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.bundled import bundled
from harness.errors import InputError, unknown
from harness.experiment.choices import SUBJECT, method_of
from harness.experiment.values import parsed
from harness.experiment.variant import FIELDS, Variant, parse
from harness.files import read_table

Status = Literal["confirmed", "single-source", "unverified"]
Presumed = Literal["", "backbone"]


class Quantity(NamedTuple):
    """Say a metric's unit and the range a value must lie in."""

    unit: str
    low: float
    high: float


QUANTITIES: dict[str, Quantity] = {
    "image_auroc": Quantity("%", 0, 100),
    "pixel_auroc": Quantity("%", 0, 100),
    "auroc_unspecified": Quantity("%", 0, 100),
    "pixel_pr_auc": Quantity("%", 0, 100),
    "image_f1max": Quantity("%", 0, 100),
    "pixel_f1max": Quantity("%", 0, 100),
    "additional_params": Quantity("M", 0, 1000),
    "additional_time": Quantity("ms", 0, 1e5),
    "fps": Quantity("images/s", 0, 1e5),
    "inference_time": Quantity("s", 0, 100),
    "memory": Quantity("GB", 0, 1000),
    "speed_ratio": Quantity("x", 0, 100),
    "params_ratio": Quantity("x", 0, 100),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Hold one published figure.

    Attributes:
        by: whose paper or repository prints it.
        table: where in it; for the paper's own tables the name of the study that mirrors it.
        method: as in ``FastFlow``, ``CFLOW-AD``.
        setting: what sets the row apart, ``field=value`` of a variant where there is such a field.
        backbone: timm's architecture, with a tag where the source names the weights; may be empty.
        dataset: as in a record; may be empty.
        category: a category, ``mean``, or empty where the figure has none.
        metric: a key of :data:`QUANTITIES`.
        value: in ``unit``.
        unit: the metric's.
        printed: the figure as printed, which may be a fraction.
        status: how sure it is: two sources or more agree, one source, or recalled without one.
        source: where it was read.
        presumed: what of the row its source does not say.
        note: what a reader must know beside it.

    >>> len(ledger()) > 1000, ledger()[0].by
    (True, 'FastFlow')
    """

    by: str
    table: str
    method: str
    setting: str
    backbone: str
    dataset: str
    category: str
    metric: str
    value: float
    unit: str
    printed: str
    status: Status
    source: str
    presumed: Presumed
    note: str
    decimals: int = 0  # of the table's column: a table prints 0.98 and 0.980 alike

    @property
    def key(self) -> tuple[str, ...]:
        """Give what may be there once only."""
        return (
            self.by, self.table, self.method, self.setting, self.backbone, self.dataset,
            self.category, self.metric,
        )  # fmt: skip

    @property
    def column(self) -> tuple[str, ...]:
        """Give what is printed with as many decimals: a metric's column of a table."""
        return self.by, self.table, self.method, self.metric

    @property
    def name(self) -> str:
        """Name the figure in words: ``table1: FastFlow, resnet18, mvtec_ad/mean, image_auroc``."""
        where = "/".join(filter(None, (self.dataset, self.category)))
        what = (self.method, self.setting, self.backbone, where, self.metric)
        return f"{self.by} {self.table}: {', '.join(filter(None, what))}"

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Read the variant's fields that ``setting`` names; empty where it names none."""
        name, _, text = self.setting.partition("=")
        return {name: parse(name, text)} if name in FIELDS else {}

    @property
    def rounding(self) -> float:
        """Compute half a unit of the last digit printed, in ``unit``: 0.05 for ``99.4``."""
        if self.unit == "%" and self.value == 100:  # "100", "1.0": one decimal elsewhere
            return 0.05
        printed = abs(float(self.printed))
        scale = self.value / printed if printed else 1.0
        return 0.5 * 10.0**-self.decimals * scale


@cache
def ledger() -> tuple[Published, ...]:
    """Read every figure that comes with the harness: the papers', then the reproductions'."""
    folder = bundled("results", "paper")
    files = (folder / f"{name}.csv" for name in ("published", "reproductions"))
    return tuple(figure for file in files for figure in read_published(file))


def read_published(file: Path) -> list[Published]:
    """Read the figures of a ledger file.

    Raises:
        InputError: a column is missing, or a row has an unknown metric or status, another unit
            than its metric, a value that is no number or out of range, or is there twice; it
            names file and row (the first line is row 1).
    """
    found: dict[tuple[str, ...], int] = {}
    figures = []
    columns = tuple(name for name in Published.__dataclass_fields__ if name != "decimals")
    for number, row in read_table(file, columns).items():
        place = f"{file}, line {number}"
        figure = Published(**{k: _typed(place, k, v, TYPES.get(k)) for k, v in row.items()})
        _check(figure, place)
        if figure.key in found:
            raise InputError(
                f"{place}: expected every figure once; {figure.name} is in line "
                f"{found[figure.key]} already; remove one"
            )
        found[figure.key] = number
        figures.append(figure)
    most: dict[tuple[str, ...], int] = {}
    for f in figures:
        most[f.column] = max(most.get(f.column, 0), len(f.printed.partition(".")[2]))
    return [replace(f, decimals=most[f.column]) for f in figures]


def _check(figure: Published, place: str) -> None:
    if figure.metric not in QUANTITIES:
        raise InputError(f"{place}: {unknown('metric', figure.metric, QUANTITIES)}")
    unit, low, high = QUANTITIES[figure.metric]
    if figure.unit != unit:
        raise InputError(f"{place}: unit: expected {unit} for {figure.metric}; got {figure.unit}")
    if not low <= figure.value <= high:
        raise InputError(
            f"{place}: value: expected {figure.metric} in {low} … {high} {unit}; "
            f"got {figure.value}"
        )
    printed = _typed(place, "printed", figure.printed, float)
    if not any(math.isclose(figure.value, s * printed) for s in (1, 100, 1e-6)):
        raise InputError(
            f"{place}: printed: expected the value, as a percentage, fraction or count; got "
            f"{figure.printed} for {figure.value} {unit}"
        )
    try:
        Variant().replace(method=method_of(figure.method) or SUBJECT, **figure.fields)
    except InputError as error:
        raise InputError(f"{place}: setting: {error}") from None


def _typed(place: str, name: str, text: str, hint: Any) -> Any:  # noqa: ANN401
    """What a cell of a table says, in the type of its column; None: text."""
    return parsed(f"{place}: {name}", text, hint or str)


TYPES: dict[str, Any] = {"value": float, "status": Status, "presumed": Presumed}

"""The table of a variant's fields, made from the code that defines them."""

from typing import NamedTuple

from harness.escape import in_markdown
from harness.experiment.choices import METHODS
from harness.experiment.values import expected, show
from harness.experiment.variant import ABOUT, DEFAULTS, FIELDS, HINTS

STAGES = {"features": "features", "training": "training", "scoring": "scoring alone"}
HEADER = """\
# The fields of a variant

Every choice is a field. `--where FIELD=VALUE` selects a study's variants by it, `--set
FIELD=VALUE` changes one that the study does not vary, in every variant. A change of what is
*scoring alone* needs no new training, one of *training* uses the cached features again. This page
is made from the code: `harness fields --markdown`.

| field | values | default | what it is | the paper says | done anew | methods |
|---|---|---|---|---|---|---|
"""


class FieldFacts(NamedTuple):
    """Hold what there is to know of a field, in words.

    >>> field_facts()[0].field
    'method'
    """

    field: str
    values: str
    default: str
    says: str
    paper: str
    stage: str
    methods: str


def field_facts() -> list[FieldFacts]:
    """List every field of a variant, in its order.

    >>> [f.values for f in field_facts() if f.field == "coupling"]
    ['one of one-sided, two-sided']
    """
    return [
        FieldFacts(
            field=name,
            values=expected(HINTS[name]),
            default=show(DEFAULTS[name]),
            says=ABOUT[name]["says"],
            paper=ABOUT[name]["paper"],
            stage=STAGES[ABOUT[name]["stage"]],
            methods=_methods(name),
        )
        for name in FIELDS
    ]


def as_markdown() -> str:
    """Write the table of fields as docs/fields.md has it."""
    lines = []
    for f in field_facts():
        values = f.values.removeprefix("one of ")
        cells = map(in_markdown, (values, f.default, f.says, f.paper, f.stage, f.methods))
        lines.append(f"| `{f.field}` | {' | '.join(cells)} |\n")
    return HEADER + "".join(lines)


def _methods(field: str) -> str:
    """Who has a field: "all", or their names."""
    have = [m.name for m in METHODS.values() if m.has(field, ABOUT[field]["kind"])]
    return "all" if len(have) == len(METHODS) else ", ".join(have)

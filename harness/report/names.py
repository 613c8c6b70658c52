"""Names that people read: what a variant changes, in words, with its whole name beside it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.report.selection import Selection
from harness.report.site.palette import sign, variable

# Fields whose value reads as a phrase; every other one is its name and its value.
PHRASES: dict[str, Callable[[str], str]] = {
    "kernels": lambda v: f"{' and '.join(f'{k} × {k}' for k in v.split(','))} kernels",
    "flow_steps": lambda v: f"{v} flow step{'s' * (v != '1')}",
    "coupling": lambda v: f"{v} coupling",
    "backbone": lambda v: architecture(v),
    "epochs": lambda v: f"{v} epochs",
    "min_steps": lambda v: f"at least {v} steps",
    "image_size": lambda v: f"{v} px",
    "method": lambda v: v,
}
ACRONYMS = {
    "actnorm": "ActNorm", "nll": "NLL", "lr": "learning rate", "resnet": "ResNet",
    "wide": "Wide", "efficientnet": "EfficientNet", "deit": "DeiT", "cait": "CaiT",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """Hold how a variant is shown.

    Attributes:
        text: short, as a person would say it.
        full: as in records and on the command line.
        colour: as a page names it; empty for none.
        sign: the shape of its marks in charts.
        marks: what must be known of it, as ``oracle``.

    >>> Name("3 × 3 kernels", "kernels=3").marks
    ()
    """

    text: str
    full: str
    colour: str = ""
    sign: str = ""
    marks: tuple[str, ...] = ()


def readable(label: str) -> str:
    """Write a variant's name as a person would say it.

    >>> readable("kernels=3,1"), readable("coupling=two-sided, flow_steps=4")
    ('3 × 3 and 1 × 1 kernels', 'two-sided coupling, 4 flow steps')
    >>> readable("backbone=tf_efficientnet_lite1.pypi_in1k"), readable("base")
    ('EfficientNet-Lite1', 'base')
    """
    return ", ".join(_part(part) for part in label.split(", "))


def some(labels: Iterable[str], most: int = 30) -> str:
    """List variants in words, the first of them where they are many.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    listed = list(labels)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def architecture(tag: str) -> str:
    """Shorten a timm tag to what people call the network.

    >>> architecture("wide_resnet50_2.tv_in1k"), architecture("resnet18.a1_in1k")
    ('Wide-ResNet50-2', 'ResNet18')
    """
    stem = tag.partition(".")[0].removeprefix("tf_")
    words = [_cased(word) for word in stem.split("_")]
    return "-".join(words)


def names(selection: Selection, oracles: Iterable[str] = ()) -> dict[str, Name]:
    """Name a study's variants by label: in words, with a colour each and with marks.

    Where two would read alike, both keep their whole names.

    Args:
        selection: whose variants are named.
        oracles: labels of those whose epochs were chosen with the test's labels.
    """
    labels = list(selection.labels.values())
    short = {label: readable(label) for label in labels}
    alike = {text for text, often in Counter(short.values()).items() if often > 1}
    random = {selection.labels[r.digest] for r in selection.records if r.random_weights}
    oracles = set(oracles)
    return {
        label: Name(
            text=label if short[label] in alike else short[label],
            full=label,
            colour=variable(place),
            sign=sign(place),
            marks=tuple(
                filter(None, (
                    "reference" if not place and len(labels) > 1 else "",
                    "oracle" if label in oracles else "",
                    "random weights" if label in random else "",
                ))
            ),
        )
        for place, label in enumerate(labels)
    }  # fmt: skip


def _part(text: str) -> str:
    field, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+", field):
        return text
    if field in PHRASES:
        return PHRASES[field](value)
    words = " ".join(ACRONYMS.get(w, w) for w in field.split("_"))
    return f"{words} {re.sub(r'[.]0$', '', value)}"


def _cased(word: str) -> str:
    stem = re.match(r"[a-z]+", word)
    if not stem:
        return word
    known = ACRONYMS.get(stem[0])
    return (known or stem[0].capitalize()) + word[len(stem[0]) :]

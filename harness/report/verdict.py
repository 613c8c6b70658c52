"""The answer in one line: what stands above everything else, and in the index."""

from dataclasses import dataclass

from harness.escape import in_markdown
from harness.report.answer import LEVELS, lead, means_of, oracles
from harness.report.selection import Selection
from harness.score.metrics import METRICS


@dataclass(frozen=True)
class Verdict:
    """Hold a study's answer in one line.

    Attributes:
        lines: a sentence a level, in Markdown; the first one tells most.
        winner: the variant that is shown: the best where that is told, else the one that leads;
            empty where nothing was measured.
        clear: whether any variant is clearly best.

    >>> Verdict(("Nothing has been run.",), "", clear=False).said
    'Nothing has been run.'
    """

    lines: tuple[str, ...]
    winner: str
    clear: bool

    @property
    def said(self) -> str:
        """Give all of it in one line."""
        return " ".join(self.lines)


def verdict(selection: Selection) -> Verdict:
    """Say which variant to take at the image level and for localisation, or that it is not told.

    A level tells where the reference is clearly behind the best variant, or is the best and
    everything else is clearly behind it. What tells comes first, localisation before the rest.
    """
    if not selection.records:
        return Verdict(("Nothing has been run yet.",), "", clear=False)
    chosen_by_labels = oracles(selection)
    honest = [name for name in selection.labels.values() if name not in chosen_by_labels]
    reference = next(iter(selection.labels.values()))
    told, open_ = [], []
    for metric, level in reversed(LEVELS.items()):
        if not (means := means_of(selection, metric, honest)):
            continue
        first = lead(selection, metric, means)
        shown = f"{in_markdown(first.best)} ({METRICS[metric].label} {first.mean:.1f}\u00a0%)"
        if len(means) == 1:
            open_.append((first.best, f"{level}: {shown}"))
        elif reference in first.lost or (first.lost and not first.near):
            others = f", with {_counted(first.near)} close behind" if first.near else ""
            told.append((first.best, f"{level}: take {shown}{others}"))
        else:
            others = _counted(first.near)
            open_.append((first.best, f"{level}: {shown} leads, {others} not clearly behind"))
    if not told and not open_:
        said = "The test images are all good or all defective, so no metric tells what to take."
        return Verdict((said,), "", clear=False)
    lines = tuple(line[:1].upper() + line[1:] + "." for _, line in (*told, *open_))
    return Verdict(lines, (told or open_)[0][0], clear=bool(told))


def _counted(names: list[str]) -> str:
    """One variant by its name, several by their number."""
    return in_markdown(names[0]) if len(names) == 1 else f"{len(names)} others"

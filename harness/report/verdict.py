"""The answer in one line: what stands above everything else, and in the index."""

from dataclasses import dataclass

from harness.experiment.values import plain
from harness.report.answer import LEVELS, lead, means_of, oracles
from harness.report.selection import Selection


@dataclass(frozen=True)
class Verdict:
    """Hold a study's answer in one line.

    Attributes:
        said: the line, in Markdown.
        winner: the variant that is shown: the best where that is told, else the one that leads;
            empty where nothing was measured.
        clear: whether any variant is clearly best.

    >>> Verdict("Nothing has been run.", "", clear=False).winner
    ''
    """

    said: str
    winner: str
    clear: bool


def verdict(selection: Selection) -> Verdict:
    """Say which variant to take at the image level and for localisation, or that it is not told.

    Where one level tells and the other does not, the one that tells comes first.
    """
    if not selection.records:
        return Verdict("Nothing has been run yet.", "", clear=False)
    chosen_by_labels = oracles(selection)
    honest = [name for name in selection.labels.values() if name not in chosen_by_labels]
    told, open_ = [], []
    winners: list[str] = []
    for metric, level in LEVELS.items():
        means = means_of(selection, metric, honest)
        if not means:
            continue
        first = lead(selection, metric, means)
        shown = f"{plain(first.best)} ({first.mean:.1f} %)"
        if len(means) == 1:
            open_.append(f"{level}: {shown}")
        elif first.lost:
            told.append(f"{level}: take {shown}")
            winners.insert(0, first.best)  # the last level that tells: localisation
            continue
        else:
            open_.append(f"{level}: no variant is clearly best; {shown} leads")
        winners.append(first.best)
    if not winners:
        return Verdict("No figure tells the variants apart yet.", "", clear=False)
    lines = [line[:1].upper() + line[1:] + "." for line in (*told, *open_)]
    return Verdict(" ".join(lines), winners[0], clear=bool(told))

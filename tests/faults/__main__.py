"""Try every kind of fault and write docs/reliability.md's table: ``nox -s faults -- [KIND ...]``.

What was counted is kept in results/faults.json after every kind, so that it goes on where it was
stopped; a kind that is named is tried on top of what was counted. ``--anew`` starts over.
"""

import argparse
import json
import tempfile
from pathlib import Path

from faults.ground import Ground, Tally
from faults.kinds import KINDS

from harness.files import write_whole
from harness.progress import progress

COUNTED = Path("results/faults.json")
PAGE, BEGIN, END = Path("docs/reliability.md"), "<!-- faults -->\n", "<!-- /faults -->\n"
COLUMNS = ("tried", "missed", "lost", "damaged", "twice", "tracebacks", "orphans", "left", "stuck")
WORDS = {
    "twice": "done twice", "orphans": "processes left", "left": "files left",
    "stuck": "ended otherwise",
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="nox -s faults --", description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--times", type=int, help="of each kind, in place of its own number")
    parser.add_argument("--anew", action="store_true", help="count from the beginning")
    parser.add_argument("--folder", type=Path, help="where to try them; default: a temporary one")
    options = parser.parse_args()
    if unknown := [k for k in options.kinds if k not in KINDS]:
        parser.error(f"expected kinds of {list(KINDS)}; got {unknown}")
    counted = {} if options.anew or not COUNTED.is_file() else json.loads(COUNTED.read_text())
    with tempfile.TemporaryDirectory() as folder:
        tried = sum(tally["tried"] for tally in counted.values())  # other moments than before
        place = options.folder or Path(folder)
        ground = Ground(place, seed=tried)
        chosen = options.kinds or [k for k in KINDS if k not in counted]
        with progress("faults", len(chosen), unit="kinds") as bar:
            for kind in chosen:
                bar.note(kind)
                tally = Tally.of(counted.get(kind, {}))
                KINDS[kind].attempt(ground, tally, options.times or KINDS[kind].times)
                counted[kind] = tally.counts
                write_whole(COUNTED, json.dumps(counted, indent=1) + "\n")
                bar.advance(1)
                print(
                    f"{kind}: {tally.tried} tried, {tally.missed} missed, {tally.faults} wrong",
                    *tally.notes, sep="\n  ",
                )  # fmt: skip
    if PAGE.is_file():
        write_whole(PAGE, fill(PAGE.read_text(), counted))


def fill(page, counted):
    """Put the table into the page, between its marks."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + render(counted) + END + rest.partition(END)[2]


def render(counted):
    """What was counted, as a table in Markdown."""
    lines = [" | ".join(["| fault", *(WORDS.get(c, c) for c in COLUMNS), "when |"])]
    lines.append("|---|" + "---:|" * len(COLUMNS) + "---|")
    for kind in sorted(counted, key=[*KINDS, *counted].index):  # at last those of earlier versions
        tally = counted[kind]
        when = "; ".join(f"{n} × {what}" for what, n in sorted(tally["phases"].items()))
        lines.append(" | ".join([f"| {kind}", *(str(tally[c]) for c in COLUMNS), f"{when} |"]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

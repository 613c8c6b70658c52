"""Pages that follow a study while it runs: made anew after each variant."""

import time
from collections.abc import Callable

from harness.report.selection import Selection

EVERY = 5.0  # seconds between looks at the records


def watch(
    look: Callable[[], Selection],
    write: Callable[[bool], object],
    *,
    every: float = EVERY,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Write a page now, and anew whenever a variant is whole or a run fails, until all are there.

    Args:
        look: selects the study's records as they are now.
        write: writes the page; it is told whether the study still runs.
        every: seconds between looks.
        sleep: waits; tests give their own.
    """
    before = None
    while True:
        now = progress(look())
        if now != before:
            whole, _, variants = now
            write(whole < variants)
            before = now
            if whole == variants:
                return
        sleep(every)


def progress(selection: Selection) -> tuple[int, int, int]:
    """Count the variants whose runs are all recorded, the failed runs, and the variants.

    >>> from pathlib import Path
    >>> from harness.studies import STUDIES
    >>> progress(Selection(STUDIES["kernels"], Path("nowhere"), "mvtec_ad", ("screw",)))
    (0, 0, 2)
    """
    done: dict[str, int] = dict.fromkeys(selection.labels, 0)
    failed = 0
    for place in selection.places:
        recorded = place.record.is_file()
        done[place.digest] += recorded
        failed += not recorded and place.failure.is_file()
    whole = sum(count == selection.runs_of_a_variant for count in done.values())
    return whole, failed, len(done)

"""What figures do not show: maps at their end, images that score alike, masks that vanish."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from harness.experiment.choices import METHODS, SUBJECT
from harness.experiment.record import Record
from harness.report.selection import Selection


def cautions(selection: Selection) -> Iterator[str]:
    """Say what makes figures less than they seem, a line each: how many runs, and the worst.

    Of maps that end before their energies do, of images that tie, and of masks that are too small
    for the map. Nothing is said of records that are too old to tell.
    """
    if found := _largest(selection, lambda r: max(r.saturated or [0.0])):
        count, most, record = found
        yield (
            f"saturated maps: {count}; most in {_name(selection, record)}: {_percent(most)} of a "
            "tap's values are exactly where its map ends, and tie there whatever their energy; "
            "score_map=nll with tap_scale=none or standardised has no end"
        )
    if found := _largest(selection, lambda r: repeated(r.images.score) if r.images else 0):
        count, most, record = found
        images = record.images
        same = repeated(images.sha256) if images else 0
        copies = f" ({same} are copies of another one)" if same else ""
        yield (
            f"tied image scores: {count}; most in {_name(selection, record)}: {most} of "
            f"{record.data.test} test images score exactly as another one{copies}; a tie counts "
            "half in an AUROC"
        )
    if found := _largest(selection, vanished):
        count, most, record = found
        data, side = record.data, record.protocol.map_size
        yield (
            f"vanished masks: {count}; most in {_name(selection, record)}: {most} of {data.masks} "
            f"masks have no defective pixel at the map's size, {side} × {side} "
            f"({record.protocol.resize}, {record.protocol.masks}), and count for no pixel metric; "
            "raise image_size"
        )


def vanished(record: Record) -> int:
    """Count the masks without a defective pixel at the map's size; 0 without maps or masks."""
    data = record.data
    if record.images is None or not METHODS[record.variant.get("method", SUBJECT)].localises:
        return 0
    if data.masks < data.defective:  # some have none: pixels are not measured at all
        return 0
    return data.masks - sum(pixels > 0 for pixels in record.images.defect_pixels)


def repeated(values: Sequence[object]) -> int:
    """Count the values that are there more than once.

    >>> repeated([0.5, 0.5, 1.0, 0.5])
    3
    """
    if len(set(values)) == len(values):  # nearly always, and found sooner
        return 0
    return sum(often for often in Counter(values).values() if often > 1)


def _largest(
    selection: Selection, amount: Callable[[Record], float]
) -> tuple[str, float, Record] | None:
    """In how many runs there is any, the most, and in which; None where there is none."""
    found = [(amount(r), r) for r in selection.records]
    some = [(most, r) for most, r in found if most]
    if not some:
        return None
    most, record = max(some, key=lambda pair: pair[0])
    return f"{len(some)} of {len(found)} runs", most, record


def _name(selection: Selection, record: Record) -> str:
    return f"{record.category}, {selection.labels[record.digest]}, seed {record.seed}"


def _percent(share: float) -> str:
    """A share in %, with two digits, and never 0.

    >>> _percent(0.4213), _percent(0.00004)
    ('42 %', '0.004 %')
    """
    return f"{float(f'{100 * share:.2g}'):g} %"

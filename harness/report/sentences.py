"""What a report says in words, read off the records and tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from harness.escape import in_markdown
from harness.experiment.record import Data, Record
from harness.experiment.study import Study
from harness.experiment.values import show
from harness.report.cautions import cautions
from harness.report.selection import Selection
from harness.studies import definition

DIFFERENCES_NOTE = (
    "Points of the variant minus the reference, paired over category and seed. Dark: the 95 % "
    "interval over seeds (t, by the spread within the categories), for these images. Light: "
    "over seeds and test images, both thought of as drawn anew. The categories are fixed. "
    "Verdicts hold after Holm's correction for the number of variants, and the intervals are not "
    "corrected: one that excludes zero may still be open. A full dot: it gains or loses."
)
ORACLE_NOTE = (
    "*Last* is each run's last evaluated epoch. *Best on test* is its best evaluated one, chosen "
    "with the test labels: an oracle, which nobody has in practice, shown because published "
    "reproductions report it."
)


METHODS_NOTE = (
    "Same images, same features of the backbone, same metrics and clock. A bank is what a "
    "method keeps of the training images beside parameters; its FPS is measured with a bank "
    "of the largest category's size, at most of 400 images. DifferNet gives no map, so it has "
    "no pixel figures, and passes every image through the backbone once for each turned copy at "
    "three sizes."
)
BESIDE_NOTE = (
    "Each method's own papers and third-party runs on this backbone; where none is named, "
    "none is known. Their layers, crops and input sizes differ: beside ours, judged by nobody."
)
TIMES_NOTE = (
    "The paper's times are of an NVIDIA GTX 1080 Ti and its batch size is not known; ours are "
    "of the machine named below. They stand side by side and are not judged. AUROCs are means "
    "over the fifteen categories."
)
QUALITATIVE_NOTE = (
    "As in the paper's Fig. 3: test photo with the outline of its defect, and below it the map of "
    "every variant, of its first seed. The photos are the first of each kind of defect (five at "
    "most): none is picked by hand."
)


def warnings(frame: pd.DataFrame, selection: Selection) -> Iterator[str]:
    """Say, in Markdown, what a reader must know before the figures: what is missing or doubtful.

    Args:
        frame: of :func:`harness.report.tables.runs`.
        selection: the records.
    """
    study, expected = selection.study, selection.runs
    if other := other_settings(study, selection.dataset):
        yield f"**Not the study's own settings**: {in_markdown(other)}."
    if frame.empty:
        yield "**Nothing has been run**: every figure of ours is missing."
    elif len(frame) < expected:
        lacks = expected - len(frame)
        yield f"**{lacks} of {expected} runs are missing**: the means are over less."
        if none := [c for c in selection.categories if c not in set(frame["category"])]:
            yield f"**Nothing is recorded of** {in_markdown(', '.join(none))}."
    seen: dict[str, set[str]] = {}
    for record in selection.records:
        seen.setdefault(record.category, set()).add(record.data.digest)
    if mixed := [name for name, digests in seen.items() if len(digests) > 1]:
        yield (
            f"**Other images**: runs of {in_markdown(', '.join(mixed))} were recorded on "
            "different images; the means do not compare. Run the whole study again."
        )
    yield from (
        f"A record is **damaged** and left out: {in_markdown(why)}" for why in selection.damaged
    )
    yield from (f"A run **failed**: {in_markdown(reason)}" for reason in selection.failures())
    yield from (f"**Note**: {in_markdown(said)}." for said in cautions(selection))
    yield from _doubts(frame)


def _doubts(frame: pd.DataFrame) -> Iterator[str]:
    """What makes the figures other than results."""
    if frame["oracle"].empty:
        return
    if frame["smoke"].any():
        yield "**A smoke run**: one epoch on a few images. Its figures mean nothing."
    if frame["random_weights"].any():
        yield "**Random backbone weights**: not a result about trained features."
    if frame["oracle"].any():
        names = frame.loc[frame["oracle"], "label"].unique()
        said = in_markdown("; ".join(names))
        yield f"**Oracle**: epochs chosen with the test labels: {said}."


def other_settings(study: Study, dataset: str) -> str:
    """Say what a study as it was run changes of its definition; empty if nothing."""
    own = definition(study)
    if own is None:
        return ""
    named = {name: variant for variant, name in own.named.items()}
    said = {
        f"{field} {show(value)} instead of {show(getattr(named[name], field))}": None
        for variant, name in study.named.items()
        if name in named
        for field, value in variant.changes(named[name]).items()
    }
    if dataset != own.dataset:
        said[f"the data set {dataset} instead of {own.dataset}"] = None
    return "; ".join(said)


def protocol(selection: Selection) -> str:
    """Say how the figures were measured, in Markdown, read off the records."""
    records = selection.records
    if not records:
        return "*Nothing has been run yet.*"
    first = records[0]
    machine, seeds = first.environment, ", ".join(map(str, selection.study.seeds))
    masks = ", ".join(sorted({r.protocol.masks for r in records}))
    return "\n".join(
        (
            "- Metrics: mean over categories and seeds, ± standard deviation over seeds; AUPRO up "
            f"to a false-positive rate of {first.protocol.aupro_fpr_limit}; maps and masks at "
            f"the input size (images {first.protocol.resize}, masks {masks}).",
            f"- Epoch: {in_markdown(_epochs(records, selection.labels))}; seeds {seeds}.",
            f"- Data ({in_markdown(selection.dataset)}): {in_markdown(_data(records))}.",
            f"- Backbones: {in_markdown(_weights(records))}.",
            f"- FPS: {in_markdown(_speed(records))}.",
            f"- harness {machine.harness}, torch {machine.versions['torch']}, "
            f"timm {machine.versions['timm']}, commit {(machine.commit or 'unknown')[:12]}; "
            f"{_arithmetic(records)}.",
        )
    )


def _data(records: Sequence[Record]) -> str:
    counts: dict[str, list[str]] = {}  # the same said once for all categories that share it
    for name, c in {r.category: r.data for r in records}.items():
        said = f"{c.train} train, {c.test} test ({c.defective} defective, {c.masks} "
        counts.setdefault(f"{said}masks{_copy(c)})", []).append(name)
    return "; ".join(f"{', '.join(names)} {said}" for said, names in counts.items())


def _weights(records: Sequence[Record]) -> str:
    said = (
        f"{r.weights.backbone} from {r.weights.source} (SHA-256 {r.weights.sha256[:12] or 'none'})"
        for r in records
    )
    return "; ".join(dict.fromkeys(said))


def _epochs(records: Sequence[Record], labels: Mapping[str, str]) -> str:
    rules: dict[str, list[tuple[int, str]]] = {}
    for r in records:
        rule = r.selection.rule if r.loss else "fitted in one pass"
        rules.setdefault(rule, []).append((r.selection.epoch, labels[r.digest]))
    return "; ".join(
        f"{rule} ({_range([epoch for epoch, _ in runs])})"
        + (f" for {', '.join(_in_order(runs, labels))}" if len(rules) > 1 else "")
        for rule, runs in rules.items()
    )


def _arithmetic(records: Sequence[Record]) -> str:
    runs = Counter(r.environment.arithmetic or "not recorded" for r in records)
    if len(runs) == 1:
        return f"arithmetic: {next(iter(runs))}"
    counts = ", ".join(f"{name} ({count} runs)" for name, count in sorted(runs.items()))
    return f"arithmetic: **mixed**, so figures differ by more than what is varied: {counts}"


def _speed(records: Sequence[Record]) -> str:
    timed = [r for r in records if r.measured.speed.fps is not None]
    if not timed:
        return "not measured"
    sessions = {r.measured.speed.session for r in timed}
    timed.sort(key=lambda r: r.measured.speed.session, reverse=True)
    speed, machine = timed[0].measured.speed, timed[0].environment
    some = f"of {len(timed)} of {len(records)} runs; " * (len(timed) < len(records))
    return some + (
        f"{speed.measures}; batches of {speed.fps_batch_size}, {speed.threads} threads, "
        f"{machine.device_name or machine.device}; the median of {speed.rounds} rounds "
        "in which the variants took turns"
        + (
            f"; {len(sessions)} sessions, of which only the one of most variants is shown"
            if len(sessions) > 1
            else ""
        )
    )


def _in_order(runs: Sequence[tuple[int, str]], labels: Mapping[str, str]) -> list[str]:
    ran = {name for _, name in runs}
    return [name for name in labels.values() if name in ran]


def _range(epochs: Sequence[int]) -> str:
    """Epochs as ``20``, or as ``3 … 20``."""
    low, high = min(epochs), max(epochs)
    return str(low) if low == high else f"{low} … {high}"


def _copy(data: Data) -> str:
    """The images' form and what the copy is, where the record says so."""
    copy = data.copy if data.official is not None else ""
    said = [data.form, copy, data.disturbance]
    return "".join(f"; {text}" for text in said if text)


def no_gallery(label: str, category: str) -> str:
    """Say that there are no pictures of a variant on a category.

    >>> no_gallery("base", "grass")
    '*base, grass: not run here, its images are gone or damaged, or it has no maps.*'
    """
    why = "not run here, its images are gone or damaged, or it has no maps"
    return f"*{in_markdown(f'{label}, {category}')}: {why}.*"

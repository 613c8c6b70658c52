"""The command that says how far studies are."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness.cli import options
from harness.cli.studies import asked_study
from harness.escape import in_line
from harness.studies import STUDIES

if TYPE_CHECKING:
    from harness.heartbeat import Holder
    from harness.report.status import Status


def status(options: options.Status) -> int:
    """Say how far a study is: done, running, failed, waiting, time left; none: every study."""
    from harness.heartbeat import holders, silent
    from harness.report.status import selections, status

    results, claims = options.results, options.results / "claims"
    starts, quiet = list(holders(claims)), list(silent(claims))
    studies = [asked_study(options)] if options.study else list(STUDIES.values())
    now = datetime.now(UTC)
    found = [
        status(selection, starts, now=now)
        for study in studies
        for selection in selections(study, results, options.dataset, options.category)
    ]
    if options.json:
        said = [{**asdict(s), "waiting": s.waiting} for s in found]
        at_work = [_said(start) for start in starts]
        no_more = [{**_said(start), "silent_since": since} for start, since in quiet]
        print(json.dumps({"starts": at_work, "silent": no_more, "studies": said}, indent=1))
        return 0
    for start in starts:
        print(f"at work: {_who(start)}, since {start.started}")
    for start, since in quiet:
        print(f"silent since {since}, counted as ended: {_who(start)}")
    for one in found:
        _print(one)
    if not found:
        which = options.study or "any study"
        print(f"{results}: no run of {which}, as asked for here, has left a file yet")
    return 0


def _said(start: "Holder") -> dict[str, str]:
    names = ("where", "study", "doing", "shard", "command")
    return {"since": start.started} | {name: getattr(start, name) for name in names}


def _who(start: "Holder") -> str:
    return in_line(f"{start.command or start.study}: {start.doing}; {start.where}")


def _print(status: "Status") -> None:
    from harness.cli.scale import in_hours

    rate = f"; {status.hourly:.3g} an hour" if status.hourly else ""
    left = "" if status.seconds_left is None else f", about {in_hours(status.seconds_left)} left"
    print(
        f"{status.study} on {status.dataset}: {status.recorded} of {status.runs} runs recorded, "
        f"{len(status.running)} running, {len(status.failed)} failed, {status.waiting} waiting"
        f"{rate}{left}"
    )
    for run in status.running:
        epoch = f"epoch {run['epoch']}/{run['epochs']}"
        print(in_line(f"  running: {run['run']}: {epoch}; {run['where']}, since {run['since']}"))
    for name, reason in status.failed:
        print(in_line(f"  failed: {name}: {reason}"))
    for what in status.damaged:
        print(in_line(f"  damaged: {what}"))
    if status.best:
        name, metric, mean, runs = status.best
        print(f"  best so far: {name}: {metric} {100 * mean:.1f} %, the mean of {runs} runs")

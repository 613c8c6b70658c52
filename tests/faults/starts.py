"""Starts of the harness as a person makes them: processes that are disturbed from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.files import matching

STUDY = """\
from harness.experiment.study import Study, one_factor
from harness.experiment.variant import Variant

STUDY = Study(
    name="faulty", asks="Does a fault change a figure?", dataset="mvtec_ad", seeds=(0,),
    bases={"base": Variant(
        backbone="tf_efficientnet_lite0.pypi_in1k", image_size=64, taps=(1, 2), flow_steps=2,
        kernels=(3, 1), epochs=24, batch_size=4, eval_every=4,
    )},
    vary=one_factor(kernels=((3, 3),), smoothing=(1.0,)),
)
"""
ENDING = 60.0  # seconds in which every process of a start has to be gone
VARYING = ("measured", "environment")  # blocks of a record that say when and where it was made
# What a start does, in order; "over": nothing is left to it but to end.
PHASES = (
    "starting", "features, workers", "training", "between trainings", "tables", "pages", "over",
)  # fmt: skip


@dataclass
class Start:
    """One start on a folder of results, with what it says in a file."""

    process: subprocess.Popen
    said: Path
    mark: str
    results: Path
    begun: float = field(default_factory=time.time)

    @property
    def text(self):
        return self.said.read_text(encoding="utf-8", errors="replace")

    @property
    def phase(self):
        """Which of PHASES it is in, by what it has said and by what it wrote."""
        if self.process.poll() is not None or self._made("reports/index.html"):
            return "over"
        lines = [s.split()[0] for s in self.text.splitlines() if s.split()]
        if "variant" in lines:
            return "pages"
        if "backbone passes:" in self.text:
            return "tables"
        if self._made("runs/*/*/*/*.checkpoint-*.npz"):
            return "training"
        if self._made("runs/*/*/*/seed-*.json"):
            return "between trainings"
        return "features, workers" if "features:" in lines else "starting"

    def is_before(self, phase):
        return PHASES.index(self.phase) < PHASES.index(phase)

    def _made(self, pattern):
        """Whether there is a file of this start's."""
        for path in matching(self.results, pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > self.begun:
                    return True
        return False

    def wait(self, seconds=600.0):
        """Its exit code; None: it did not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def family(self):
        """Every process that it or its children started and that still runs."""
        return [pid for pid in pids() if self.mark in environment(pid)]

    def orphans(self):
        """Those that are still there some time after its end; they are killed then."""
        until = time.monotonic() + ENDING
        while (there := self.family()) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in there:
            send(pid, signal.SIGKILL)
        return len(there)


def hear():
    """Let a process hear what a shell's background jobs ignore, and their children with them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(folder, results="results", *options, before=(), environ=None):
    """Start the study in ``folder``; it has a session of its own, so that no signal reaches us."""
    mark = f"HARNESS_FAULT={uuid.uuid4().hex}"
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    said = folder / f"{mark[-8:]}.txt"
    command = [
        *before, sys.executable, "-m", "harness", "run", "faulty.py", "--data", "data",
        "--no-speed", "--results", str(results), *options,
    ]  # fmt: skip
    name, _, value = mark.partition("=")
    given = {
        **os.environ, name: value, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **(environ or {}),
    }  # fmt: skip
    with said.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=hear,
        )  # fmt: skip
    return Start(process, said, mark, Path(folder, results))


def pids():
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]


def environment(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "" if state == "Z" else Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def files(results):
    """Every file of a folder of results that outlives a start."""
    return {p.relative_to(results).as_posix() for p in results.rglob("*") if p.is_file()}


def leftovers(folder, results):
    """Temporary files of whatever kind, below the results and in TMPDIR."""
    kinds = (".tmp", ".checkpoint", ".part")
    below = [p for p in results.rglob("*") if p.name.endswith(kinds)]
    claims = [p for p in (results / "claims").rglob("*") if p.is_file()]
    # Python and torch keep folders of their own in TMPDIR, which a killed process cannot remove.
    others = ("pymp-", "torchinductor_")
    return (
        below + claims + [p for p in (folder / "tmp").iterdir() if not p.name.startswith(others)]
    )


def content(record):
    """What a record says, without when and where."""
    said = json.loads(record.read_text())
    return {k: v for k, v in said.items() if k not in VARYING}


def records(results):
    """Path → content of every record; None: it can't be read."""
    found = {}
    for path in sorted((results / "runs").glob("*/*/*/seed-*.json")):
        if path.name.endswith(".failed.json"):
            continue
        try:
            found[path.relative_to(results).as_posix()] = content(path)
        except (ValueError, OSError):
            found[path.relative_to(results).as_posix()] = None
    return found


def pages(results):
    """Path → what a page says; None: it is not whole."""
    found = {}
    for path in sorted((results / "reports").glob("[!.]*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        says = _cells if path.suffix == ".ipynb" else _prose
        found[path.relative_to(results).as_posix()] = says(text)
    return found


def _prose(page):
    """Its text without times, paths, the commit, charts and tables.

    Charts and tables show what was measured too; what else they say is in the records.
    """
    if not page.rstrip().endswith("</html>"):
        return None
    text = re.sub(r"<(svg|table|style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    varying = r"\S*results-\d+|\d{4}-\d\d-\d\d( \d\d:\d\d)?|commit [0-9a-f]{12}"
    return re.sub(varying, "…", text)


def _cells(notebook):
    """How many outputs every cell has."""
    try:
        return [len(cell.get("outputs", ())) for cell in json.loads(notebook)["cells"]]
    except ValueError:
        return None


def trainings(results):
    """Path → when it was made, of every training's energies."""
    return {
        p.relative_to(results).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in (results / "runs").glob("*/*/*/seed-*.npz")
        if "gallery" not in p.name and "checkpoint" not in p.name  # those grow
    }

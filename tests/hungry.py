"""Stand-ins for jobs that real workers run: they find no memory as long as another one runs."""

import multiprocessing as mp
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.run.executors import local


@dataclass(frozen=True)
class Hungry:
    """Needs all the memory there is; ``how``: what happens to it where another one needs it."""

    name: str
    folder: Path
    how: str
    others: int

    def is_trained(self):
        return False


def run(job, told, say, granted):
    """Wait for the others at the first try; fail as long as one of them is here."""
    here, first = job.folder / f"{job.name}.here", job.folder / f"{job.name}.tried"
    again = first.exists()
    first.touch()
    here.touch()
    while not again and len(list(job.folder.glob("*.tried"))) <= job.others:
        time.sleep(0.01)
    told(1, 0.5)
    others = [p for p in job.folder.glob("*.here") if p != here]
    if others or job.how == "always":
        if job.how == "killed":
            here.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            np.ones(2**55)
        finally:
            here.unlink()
    here.unlink(missing_ok=True)


if mp.parent_process() is not None:  # in a worker, which imports this to read its task
    local.run_job = run

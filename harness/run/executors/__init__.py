"""Where runs are executed."""

import multiprocessing as mp
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


def context() -> ForkServerContext:
    """How workers are started: from a server that has imported torch once, for all of them."""
    forking = mp.get_context("forkserver")
    forking.set_forkserver_preload(["harness.run.job", "torch._dynamo"])  # optimisers import that
    return forking


def prepare() -> None:
    """Begin to import in the workers' server, beside what this process does; once is enough."""
    context()
    forkserver.ensure_running()

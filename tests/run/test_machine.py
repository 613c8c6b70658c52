"""What a worker's process is set to."""

import subprocess
import sys

import torch

from harness.run.process import peak_memory, reset_peak_memory

# In a process of its own: the C allocator's options cannot be taken back.
SCRIPT = """
import resource, torch
from harness.run.process import be_deterministic, keep_memory
if {keep}: keep_memory()
be_deterministic()
for _ in range(3):
    torch.ones(9_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(9_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(torch.are_deterministic_algorithms_enabled())
"""


def faults(*, keep):
    words = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    pages, deterministic = done.stdout.split()
    assert deterministic == "True"
    return int(pages)


def test_kept_memory_is_not_asked_for_again():
    kept = faults(keep=True)
    if sys.platform == "linux":
        assert kept < faults(keep=False) / 10


def test_the_peak_counts_from_its_reset():
    torch.ones(2**26)  # 256 MiB, given back
    reset_peak_memory("cpu")
    low = peak_memory("cpu")
    held = torch.ones(2**26)
    assert peak_memory("cpu") >= low + 0.9 * held.nbytes

"""What a worker's process is set to, and what the machine is called."""

import subprocess
import sys

import pytest
import torch

from harness.errors import InputError
from harness.experiment.settings import Settings
from harness.run.machine import arithmetic, environment, group_memory, has_tf32, settle
from harness.run.process import (
    arithmetic_inside,
    give_back_memory,
    peak_memory,
    reset_peak_memory,
    set_arithmetic,
)

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


@pytest.mark.long
def test_kept_memory_is_not_asked_for_again():
    kept = faults(keep=True)
    if sys.platform == "linux":
        assert kept < faults(keep=False) / 10


def test_the_peak_counts_from_its_reset():
    torch.ones(2**26)  # 256 MiB
    give_back_memory()  # what earlier tests held too, or what follows would take that
    reset_peak_memory("cpu")
    low = peak_memory("cpu")
    held = torch.ones(2**26)
    assert peak_memory("cpu") >= low + 0.9 * held.nbytes


def test_memory_is_what_the_tightest_group_above_this_process_leaves(tmp_path):
    def write(group, limit, used, names=("memory.max", "memory.current")):
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used), strict=True):
            (tmp_path / group / name).write_text(f"{value}\n")

    listed = tmp_path / "groups"
    listed.write_text("4:cpu:/else\n3:memory:/old\n0::/slurm/job_7/step_0\n")
    write("slurm", 1000, 100)
    write("slurm/job_7", 500, 450)
    write("slurm/job_7/step_0", "max", 40)
    write("else", 1, 0)
    write("memory/old", 800, 900, ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    assert sorted(group_memory(listed, tmp_path)) == [0, 50, 900]
    listed.write_text("0::/../../seen/from/outside\n")  # of a container: the root is its own group
    write(".", 70, 10)
    assert 60 in group_memory(listed, tmp_path)
    assert group_memory(tmp_path / "none", tmp_path) == []


# --- arithmetic ---------------------------------------------------------------------------------

CONVOLUTIONS, PRODUCTS = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture
def kept():
    """What the process is set to is as it was afterwards."""
    with arithmetic_inside(tf32=False):
        yield


@pytest.mark.parametrize("tf32", [False, True])
def test_one_choice_decides_convolutions_and_products(kept, tf32):
    set_arithmetic(tf32=tf32)
    assert (CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32) == (tf32, tf32)
    assert arithmetic("cuda:1") == ("cuda tf32" if tf32 else "cuda float32")
    assert arithmetic("cpu") == environment("cpu", 1).arithmetic == "cpu float32"


def test_torchs_own_default_is_called_tf32(kept):
    CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32 = True, False
    assert arithmetic("cuda") == "cuda tf32"


def test_what_is_set_inside_is_taken_back(kept):
    CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32 = True, False
    with arithmetic_inside(tf32=False):
        assert (CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32) == (False, False)
    assert (CONVOLUTIONS.allow_tf32, PRODUCTS.allow_tf32) == (True, False)


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_is_of_newer_gpus(monkeypatch, capability, has):
    monkeypatch.setattr(torch.version, "cuda", "13")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_tf32("cuda:0") is has
    assert has_tf32("cpu") is False


def test_tf32_asked_of_a_processor_is_an_input_error():
    assert settle(Settings(device="cpu")) == Settings(device="cpu")
    with pytest.raises(InputError, match=r"--tf32: expected an NVIDIA GPU.*got cpu .*; leave"):
        settle(Settings(device="cpu", tf32=True))

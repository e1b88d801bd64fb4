"""Freed memory is kept for the next step, and returned between trials."""

import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from pathlib import Path
from zoo.engine.memory import keep_freed, release
keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
def step():
    blocks = [torch.ones(2_000_000) for _ in range(10)]
for _ in range(3):
    step()
start = faults()
for _ in range(5):
    step()
before = resident()
release()
print(faults() - start, before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_a_step_reuses_the_memory_of_the_last():
    """In pages of 4 KiB: those that the kernel gave in five steps of 80 MB each, and got back."""
    command = [sys.executable, "-c", STEPS]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    given, returned = map(int, said.split())
    assert given < 200  # without keep_freed some 2,000, and far more where sizes vary
    assert returned > 15_000

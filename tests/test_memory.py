"""Freed memory is kept for the next step and returned between trials; what a trial will need."""

import subprocess
import sys
from dataclasses import replace

import pytest

from zoo import Cell
from zoo.engine.build import build
from zoo.engine.frozen import Frozen
from zoo.engine.trainer import Trainer
from zoo.registry import methods
from zoo.runs.estimate import memory_of

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


def test_what_weights_return_to_counts_in_the_memory_of_a_trial(planner, resources):
    """The copy that a trainer holds."""
    run = build(planner.plan(Cell("imp", "sst2", 0.1, False, 0)).trial, resources)
    trainer = Trainer(run, Frozen())
    held = sum(state.nbytes for state in trainer.start.values())
    train, checkpoint = run.trial.train, planner.checkpoint
    need = memory_of(run.method, checkpoint, train).state
    without = memory_of(replace(run.method, rewinds=()), checkpoint, train).state
    assert need - without == pytest.approx(held, rel=0.01) and held > 0
    ticket = methods["supertickets"].make(0.5)
    dense = replace(ticket.dense, rewinds=False)
    again = memory_of(replace(ticket, dense=dense), checkpoint, train).state
    assert memory_of(ticket, checkpoint, train).state - again == need - without

"""Executors: interrupted runs lose nothing, and no ray at all. test_cluster.py has the rest."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from run_benchmark import main
from tests.helpers import ROOT, command, results_of, start_command

GRID = ("--methods", "dense,movement,smp_l", "--seeds", "0,1,2")
TRIALS = 9


@pytest.fixture(scope="module")
def uninterrupted(here):
    """The results of a run of the grid without interruption, in this process."""
    with contextlib.chdir(here):
        assert main(command("whole", *GRID, "--executor", "inline")[2:]) == 0
    return here / "whole" / "smoke"


def test_kill_9_loses_no_finished_trial_and_changes_no_result(
    here, uninterrupted, monkeypatch, capsys
):
    """Killed on Ray, resumed inline: only missing trials run, and the page equals that of a run
    without interruption, byte for byte."""
    folder = here / "killed" / "smoke"
    process = start_command(here, "killed", *GRID)
    deadline = time.monotonic() + 240
    while len(results_of(folder)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)  # a worker, or its judge, may still be writing the trial it was in
    before = {name: (folder / name).read_bytes() for name in results_of(folder)}
    assert 3 <= len(before) < TRIALS
    monkeypatch.chdir(here)
    assert main(command("killed", *GRID, "--executor", "inline")[2:]) == 0
    out = capsys.readouterr().out
    assert f"{TRIALS} trials: {len(before)} done, {TRIALS - len(before)} to run" in out
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert (folder / "LEADERBOARD.md").read_bytes() == (
        uninterrupted / "LEADERBOARD.md"
    ).read_bytes()
    for name, result in results_of(folder).items():
        whole = json.loads((uninterrupted / name).read_text())
        for part in ("cost", "environment", "checksum"):
            result.pop(part), whole.pop(part)
        assert result == whole


def test_ctrl_c_keeps_finished_trials_and_says_how_to_continue(here, monkeypatch, capsys):
    folder = here / "stopped" / "smoke"
    # A shell's background jobs ignore SIGINT, and so would their children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start_command(here, "stopped", *GRID, "--executor", "inline")
    signal.signal(signal.SIGINT, before)
    while not results_of(folder):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "finished trials are kept" in err and "--seeds 0,1,2" in err
    assert "Traceback" not in err
    done = len(results_of(folder))
    monkeypatch.chdir(here)
    assert main(command("stopped", *GRID, "--dry-run")[2:]) == 0
    assert f"{done} done, {TRIALS - done} to run" in capsys.readouterr().out


def test_sigterm_ends_a_run_and_fails_no_trial(here):
    folder = here / "ended" / "smoke"
    process = start_command(here, "ended", *GRID, "--executor", "inline")
    while not results_of(folder):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    assert "finished trials are kept" in err and "Traceback" not in err
    assert not list(folder.glob("*.failed.json")) and len(results_of(folder)) < TRIALS


def test_inline_needs_no_ray_datasets_or_evaluate(here):
    """Real data from parquet and a local model, with all three not importable."""
    code = (
        "import sys\n"
        "for name in ('ray', 'datasets', 'evaluate'): sys.modules[name] = None\n"
        "from run_benchmark import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    options = command("bare", "--methods", "dense,smp_l", "--seeds", "0", "--executor", "inline")
    done = subprocess.run(
        [sys.executable, "-c", code, *options[2:]],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(results_of(here / "bare" / "smoke")) == 2

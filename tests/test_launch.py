"""Executors: what is pending, kill -9, a cluster of two nodes, pretended GPUs, and no ray at all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers import save_checkpoint, write_sst2

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a small checkpoint and small data."""
    folder = tmp_path_factory.mktemp("launch")
    save_checkpoint(folder / "small")
    write_sst2(folder / "data")
    return folder


def command(here: Path, results: str, *options: str) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "run_benchmark.py"), "--suite", "smoke"),
        *("--model", "small", "--data-dir", "data", "--tasks", "sst2", "--results", results),
        *options,
    ]


def start(here: Path, results: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(here, results, *options),
        cwd=here,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, out + err
    return out


def results_of(folder: Path) -> dict[str, dict]:
    return {
        path.name: json.loads(path.read_text())
        for path in folder.glob("sst2-*.json")
        if not path.name.endswith(".failed.json")
    }


GRID = ("--methods", "dense,movement,smp_l", "--seeds", "0,1,2,3")


@pytest.fixture(scope="module")
def uninterrupted(here):
    """The grid run inline without interruption."""
    finished(start(here, "whole", *GRID, "--executor", "inline"))
    return here / "whole" / "smoke"


def test_kill_9_in_mid_grid_loses_nothing_and_changes_nothing(here, uninterrupted):
    """Killed on Ray, resumed on Ray: only missing trials run, and the page is equal byte for byte
    to that of a run without interruption, in another executor."""
    folder = here / "killed" / "smoke"
    process = start(here, "killed", *GRID)
    deadline = time.monotonic() + 120
    while len(results_of(folder)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # a worker may still be writing the trial it was in
    before = {name: (folder / name).read_bytes() for name in results_of(folder)}
    assert 3 <= len(before) < 12
    out = finished(start(here, "killed", *GRID))
    assert f"12 trials: {len(before)} done, {12 - len(before)} to run" in out
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert (folder / "LEADERBOARD.md").read_bytes() == (
        uninterrupted / "LEADERBOARD.md"
    ).read_bytes()
    for name, result in results_of(folder).items():
        whole = json.loads((uninterrupted / name).read_text())
        for part in ("cost", "environment"):
            result.pop(part), whole.pop(part)
        assert result == whole


def test_ctrl_c_keeps_what_was_finished_and_says_how_to_go_on(here):
    folder = here / "stopped" / "smoke"
    # A job in a shell's background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(here, "stopped", *GRID, "--executor", "inline")
    signal.signal(signal.SIGINT, before)
    while not results_of(folder):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "what was finished is kept" in err and "--seeds 0,1,2,3" in err
    assert "Traceback" not in err
    done = len(results_of(folder))
    assert f"{done} done, {12 - done} to run" in finished(
        start(here, "stopped", *GRID, "--dry-run")
    )


def test_sigterm_ends_a_run_and_blames_no_trial(here):
    folder = here / "ended" / "smoke"
    process = start(here, "ended", *GRID, "--executor", "inline")
    while not results_of(folder):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    assert "what was finished is kept" in err and "Traceback" not in err
    assert not list(folder.glob("*.failed.json")) and len(results_of(folder)) < 12


PLUGIN = '''
import os, pathlib, time
from dataclasses import replace
from methods.movement import movement
from zoo.masks import topk_local
from zoo.registry import register_method

MARKS = pathlib.Path(__file__).with_name("marks")

def together(scores, level):
    """Wait, once per trial, until four trials run at the same time."""
    mark = MARKS / f"{id(scores['encoder.layer.0.output.dense']) % 10**9}-{os.getpid()}"
    if level == 1.0 and not any(p.name.endswith(f"-{os.getpid()}") for p in MARKS.iterdir()):
        mark.touch()
        end = time.monotonic() + 60
        while len(list(MARKS.iterdir())) < 4:
            if time.monotonic() > end:
                raise RuntimeError("four trials never ran at once")
            time.sleep(0.05)
    return topk_local(scores, level)

@register_method("waits")
def waits(density, *, start, stop):
    """Movement that waits for three others."""
    return replace(movement(density, start=start, stop=stop), mask=together)

@register_method("dies")
def dies(density, *, start, stop):
    """Ends the worker's process."""
    return replace(movement(density, start=start, stop=stop), mask=lambda s, level: os._exit(1))
'''


@pytest.fixture
def cluster(here):
    """An empty Ray cluster on this machine, and the plugin."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    (here / "marks").mkdir(exist_ok=True)
    for mark in (here / "marks").iterdir():
        mark.unlink()
    (here / "waits.py").write_text(PLUGIN)
    cluster = Cluster()
    yield cluster
    cluster.shutdown()
    ray.shutdown()


FOUR = ("--plugin", "waits.py", "--methods", "waits", "--seeds", "0,1,2,3")


def test_two_nodes_run_a_plugin_and_all_results_arrive(here, cluster):
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    out = finished(start(here, "nodes", *FOUR, RAY_ADDRESS=cluster.address))
    results = results_of(here / "nodes" / "smoke")
    assert len(results) == 4, out
    assert len({result["environment"]["node"] for result in results.values()}) == 2
    assert "| waits " in (here / "nodes" / "smoke" / "LEADERBOARD.md").read_text()


def test_four_trials_share_two_pretended_gpus_and_a_worker_that_dies_costs_one_trial(here, cluster):
    cluster.add_node(num_cpus=4, num_gpus=2)
    cluster.wait_for_nodes()
    address = {"RAY_ADDRESS": cluster.address}
    finished(start(here, "gpus", *FOUR, "--gpus-per-trial", "0.5", **address))
    results = results_of(here / "gpus" / "smoke")
    devices = Counter(result["environment"]["visible_gpus"] for result in results.values())
    assert devices == {"0": 2, "1": 2}
    more = ("--plugin", "waits.py", "--methods", "waits,dies", "--seeds", "0,1")
    out = finished(start(here, "gpus", *more, "--gpus-per-trial", "1", **address), code=3)
    assert "2 failed" in out and "its worker process ended twice" in out
    too_many = start(here, "gpus", *FOUR, "--gpus-per-trial", "3", "--seeds", "9", **address)
    _, err = too_many.communicate(timeout=120)
    assert too_many.returncode == 5
    assert "--gpus-per-trial 3, but Ray has 2 GPUs" in err


def test_a_gpu_where_there_is_none_is_said_at_once(here):
    process = start(here, "none", "--methods", "dense", "--seeds", "0", "--gpus-per-trial", "1")
    _, err = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert process.returncode == 5
    assert "--gpus-per-trial 1, but Ray has 0 GPUs; leave the option out" in err


def test_inline_needs_no_ray_datasets_or_evaluate(here):
    """Real data from parquet and a local model, with all three not importable."""
    code = (
        "import sys\n"
        "for name in ('ray', 'datasets', 'evaluate'): sys.modules[name] = None\n"
        "from run_benchmark import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    options = command(
        here, "bare", "--methods", "dense,smp_l", "--seeds", "0", "--executor", "inline"
    )
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

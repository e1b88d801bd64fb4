"""Ray: a cluster of two nodes with pretended GPUs, and GPUs that are absent."""

import shutil
import tempfile
import time
from collections import Counter

import pytest

from tests.helpers import finished, results_of, start_command
from zoo.errors import ResourceError
from zoo.runs.ray_tune import RayTune

PLUGIN = '''
import os, pathlib, time
from dataclasses import replace
from methods.movement import movement
from zoo import Cell, register_method, register_suite, topk_local

MARKS = pathlib.Path(__file__).with_name("marks")

def together(scores, level):
    """Wait, once per trial, until three trials run at the same time."""
    mark = MARKS / f"{id(scores['encoder.layer.0.output.dense']) % 10**9}-{os.getpid()}"
    if level == 1.0 and not any(p.name.endswith(f"-{os.getpid()}") for p in MARKS.iterdir()):
        mark.touch()
        end = time.monotonic() + 240
        while len(list(MARKS.iterdir())) < 3:
            if time.monotonic() > end:
                raise RuntimeError("three trials never ran at once")
            time.sleep(0.05)
    return topk_local(scores, level)

@register_method("waits", recipe="movement")
def waits(density, *, start, stop):
    """Movement that waits for two others."""
    return replace(movement(density, start=start, stop=stop), mask=together)

@register_method("dies", recipe="movement")
def dies(density, *, start, stop):
    """Ends the worker's process."""
    return replace(movement(density, start=start, stop=stop), mask=lambda s, level: os._exit(1))

NODE = pathlib.Path(__file__).with_name("node")

def leaves(scores, level):
    """In the first process that comes so far, tell its node and wait to be ended with it."""
    if level < 0.7 and not NODE.exists():
        import ray
        half = NODE.with_name("node.half")
        half.write_text(ray.get_runtime_context().get_node_id())
        half.rename(NODE)
        time.sleep(600)
    return topk_local(scores, level)

@register_method("moves", recipe="movement")
def moves(density, *, start, stop):
    """Movement whose node goes away in the middle of training."""
    return replace(movement(density, start=start, stop=stop), mask=leaves)

@register_suite("one")
def one(scale, **given):
    """One trial."""
    return [Cell("moves", "sst2", 0.1, False, 0)]

@register_suite("four")
def four(scale, **given):
    """Three trials that wait for each other and one that dies."""
    seeds = [("dies", 0), *(("waits", seed) for seed in range(3))]
    return [Cell(method, "sst2", 0.1, False, seed) for method, seed in seeds]
'''


@pytest.fixture(scope="module")
def cluster(here):
    """A Ray cluster of two nodes with two and one CPUs and a pretended GPU each; and the plugin.

    It has a folder of its own, where the Ray of tests beside this one does not find it. The path is
    short, as those of Ray's sockets must be.
    """
    folder = tempfile.mkdtemp(prefix="ray-")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    (here / "marks").mkdir()
    (here / "waits.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        cluster = Cluster()
        for cpus in (2, 1):
            cluster.add_node(num_cpus=cpus, num_gpus=1)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def test_three_trials_share_the_gpus_of_two_nodes_and_a_dead_worker_costs_one_trial(here, cluster):
    """All at once, half a GPU each, with a plugin; every result arrives, and the one failure."""
    options = ("--suite", "four", "--plugin", "waits.py", "--gpus-per-trial", "0.5")
    process = start_command(here, "shared", *options, RAY_ADDRESS=cluster.address)
    out = finished(process, code=3)
    folder = here / "shared" / "four"
    results = results_of(folder)
    assert {result["trial"]["method"] for result in results.values()} == {"waits"}
    assert {result["trial"]["seed"] for result in results.values()} == {0, 1, 2}
    places = [result["environment"] for result in results.values()]
    shared = Counter((place["node"], place["visible_gpus"]) for place in places)
    assert len({node for node, _ in shared}) == 2
    assert sorted(shared.values()) == [1, 2] and {gpu for _, gpu in shared} == {"0"}
    assert "1 failed" in out and "its worker process ended twice" in out
    assert len(list(folder.glob("sst2-dies-*.failed.json"))) == 1
    assert "| waits " in (folder / "LEADERBOARD.md").read_text()


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (1, 3.0, "--gpus-per-trial 3, but Ray has 2 GPUs; leave the option out"),
        (5, None, "--cpus-per-trial 5, but Ray has 4 CPUs"),
    ],
)
def test_more_devices_than_the_cluster_has_are_an_error(cpus, gpus, message):
    with pytest.raises(ResourceError, match=message):
        RayTune(cpus, gpus)._gpus({"CPU": 4.0, "GPU": 2.0})


def test_a_trial_gets_one_gpu_if_there_is_any_and_no_share_is_asked_for():
    assert RayTune()._gpus({"CPU": 4.0, "GPU": 2.0}) == 1
    assert RayTune()._gpus({"CPU": 4.0}) == 0
    assert RayTune(gpus=0.5)._gpus({"CPU": 4.0, "GPU": 2.0}) == 0.5


def test_without_an_address_a_run_has_this_machine_alone(here, cluster):
    """It does not join the cluster that runs here, and an absent GPU is reported at once. Nor does
    it need a home, or a temporary folder whose path is short."""
    options = ("--methods", "dense", "--seeds", "0", "--gpus-per-trial", "1")
    places = {"HOME": f"{here}/waits.py/home", "RAY_TMPDIR": f"{here}/{'long' * 20}"}
    process = start_command(here, "none", *options, **places)
    _, err = process.communicate(timeout=120)
    note, *rest = err.splitlines()
    assert note.startswith("note: Ray cannot use RAY_TMPDIR=") and "too long" in note
    if process.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert process.returncode == 5 and len(rest) == 1
    assert "--gpus-per-trial 1, but Ray has 0 GPUs; leave the option out" in rest[0]


def test_a_trial_goes_on_at_another_node_when_its_own_goes_away(here, cluster):
    """From its last snapshot, which the second node sees in the shared folder, bit for bit."""
    for _ in range(2):
        cluster.add_node(num_cpus=3)
    cluster.wait_for_nodes()
    options = ("--suite", "one", "--plugin", "waits.py", "--max-steps", "20")
    options += ("--checkpoint-minutes", "0.000001")  # after each step
    options += ("--cpus-per-trial", "3", "--gpus-per-trial", "0")  # not on the head
    process = start_command(here, "moved", *options, RAY_ADDRESS=cluster.address)
    deadline = time.monotonic() + 240
    while not (here / "node").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    first = (here / "node").read_text()
    (gone,) = [node for node in cluster.list_all_nodes() if node.node_id == first]
    cluster.remove_node(gone, allow_graceful=False)
    finished(process)
    (moved,) = results_of(here / "moved" / "one").values()
    assert moved["environment"]["node"] != first[:12]
    finished(start_command(here, "stayed", *options[:-2], "--executor", "inline"))
    (stayed,) = results_of(here / "stayed" / "one").values()
    for name in ("digests", "metrics", "curve", "correct"):
        assert moved[name] == stayed[name]
    assert not any("snapshot" in note for note in moved["notes"])

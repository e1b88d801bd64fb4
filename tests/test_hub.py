"""The hub as users have it: the real client, in processes of its own, against a stand-in."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, results_of, save_checkpoint, write_parquet, write_sst2
from tests.hub_server import Hub, serving
from zoo.errors import ConfigError, StorageError
from zoo.inputs.hub import reaching_hub, split_name

CARD = """---
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  splits:
  - name: train
    num_bytes: 2000
    num_examples: 48
  - name: validation
    num_bytes: 300
    num_examples: 12
  download_size: 4000
  dataset_size: 2300
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
---
"""

DRIVER = """
import json, os, sys, tempfile
import leaderboard.files
from run_benchmark import main
from zoo.inputs.hub import dataset_commit
leaderboard.files.draw = lambda *_: ({}, "")
reply = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        dataset_commit.cache_clear()  # as in a new process
        code = main(json.loads(line))
        sys.stdout.flush(), sys.stderr.flush()
        out.seek(0), err.seek(0)
        print(json.dumps([code, out.read(), err.read()]), file=reply, flush=True)
"""
"""Runs one command line after another, without figures: importing torch for each and drawing would
take longer than the runs."""

Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""


@dataclass
class Place:
    """A hub, and the cache and the results of one user of it."""

    hub: Hub
    endpoint: str
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this user has; the client reads it when it is imported."""
        return os.environ | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            **more,
        }

    def options(self, model: str, *more: str, results: str = "results") -> list[str]:
        """A suite of one short trial on SST-2 of the hub."""
        return [
            *("--suite", "smoke", "--scale", "base", "--model", model, "--tasks", "sst2"),
            *("--methods", "dense", "--seeds", "0", "--max-steps", "4", "--executor", "inline"),
            *("--results", str(self.folder / results), *more),
        ]


def write_dataset(folder: Path, rows: Path) -> None:
    """SST-2 as `nyu-mll/glue` has it, with the training set in two files."""
    from pyarrow import parquet

    write_sst2(rows)
    for split, starts in (("train", (0, 20)), ("validation", (0,))):
        table = parquet.read_table(rows / "glue" / "sst2" / f"{split}.parquet")
        for number, start in enumerate(starts):
            shard = table[start : [*starts, len(table)][number + 1]].to_pydict()
            name = f"{split}-{number:05}-of-{len(starts):05}.parquet"
            write_parquet(folder / "sst2" / name, shard)
    (folder / "README.md").write_text(CARD)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A hub with a model of two commits, one without safetensors, a gated one, and SST-2."""
    folder = tmp_path_factory.mktemp("hub")
    hub = Hub()
    save_checkpoint(folder / "first")
    save_checkpoint(folder / "second", weight=0.05)
    for file in ("special_tokens_map.json", "tf_model.h5", "onnx/model.safetensors"):
        (folder / "second" / file).parent.mkdir(exist_ok=True)
        (folder / "second" / file).write_text("{}")
    hub.add("models/someone/small", folder / "first", "v1", "refs/pr/1")
    hub.add("models/someone/small", folder / "second", "main")
    (folder / "bin").mkdir()
    shutil.copy(folder / "first" / "config.json", folder / "bin")
    (folder / "bin" / "pytorch_model.bin").write_bytes(b"0")
    hub.add("models/someone/bin", folder / "bin", "main")
    hub.add("models/someone/gated", folder / "first", "main")
    hub.repositories["models/someone/gated"].gated = True
    write_dataset(folder / "glue", folder / "rows")
    hub.add("datasets/nyu-mll/glue", folder / "glue", "main")
    with serving(hub) as endpoint:
        yield Place(hub, endpoint, folder)


@pytest.fixture(scope="module")
def run(place: Place) -> Iterator[Callable[..., Said]]:
    """Run a command line of the place in a process that lives as long as these tests."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT,
        env=place.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout

    def call(*options: str, **places: str) -> Said:
        print(json.dumps(place.options(*options, **places)), file=process.stdin, flush=True)
        code, out, err = json.loads(process.stdout.readline())
        assert "Traceback" not in out + err
        return code, out, err

    yield call
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def fails(said: Said, code: int = 5) -> str:
    """The only line of a command that failed with this exit code."""
    assert said[0] == code, said
    lines = said[2].strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said[2]
    return lines[0]


def result(place: Place, results: str = "results") -> dict[str, Any]:
    """The only result of the dense method in a folder."""
    found = results_of(place.folder / results / "smoke")
    (name,) = [name for name in found if name.startswith("sst2-dense-")]
    return found[name]


def test_broken_downloads_are_said_and_continued(place, run):
    """First the model's, then the data's; then a run ends well, and no later one downloads."""
    hub = place.hub
    hub.breaks["model.safetensors"] = 1
    line = fails(run("someone/small"))
    assert "model someone/small" in line and "the download broke off" in line
    assert "the same command continues it" in line
    hub.silent = True
    assert "--scale tiny, work offline" in fails(run("someone/small"))  # not what is half there
    hub.silent = False
    hub.breaks["sst2/train-00001-of-00002.parquet"] = 9
    line = fails(run("someone/small"))
    assert "the data set nyu-mll/glue (sst2)" in line and "the download broke off" in line
    hub.breaks.clear()
    code, out, err = run("someone/small")
    assert (code, err) == (0, "") and "1 trials: 0 done, 1 to run" in out
    trial = result(place)["trial"]
    assert trial["model"] == "someone/small"
    commit = hub.repositories["datasets/nyu-mll/glue"].refs["main"]
    assert trial["data_sha"] == f"nyu-mll/glue@{commit}"
    snapshot = place.folder / "home/hub/models--someone--small/snapshots"
    (names,) = [{file.name for file in one.iterdir()} for one in snapshot.iterdir()]
    assert "special_tokens_map.json" in names and not names & {"tf_model.h5", "onnx"}
    hub.asked.clear()
    assert "1 trials: 1 done, 0 to run" in run("someone/small")[1]
    assert list(hub.asked) == ["GET api/datasets/nyu-mll/glue"]


def test_offline_the_cache_is_enough(place):
    """The trial that is done counts as done, since model and data are the same, and another runs:
    for a user who says so, with the hub gone."""
    told = [sys.executable, "run_benchmark.py", *place.options("someone/small")]
    process = subprocess.run(
        [*told, "--methods", "dense,magnitude", "--densities", "0.5"],
        cwd=ROOT,
        env=place.environment(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "2 trials: 1 done, 1 to run" in process.stdout
    assert {
        one["trial"]["data"] for one in results_of(place.folder / "results/smoke").values()
    } == {"nyu-mll/glue on the hub"}


def test_a_revision_is_another_model(place, run):
    """By its branch, tag or commit; a branch is looked up on every run, and in the cache if the hub
    does not answer."""
    repository = place.hub.repositories["models/someone/small"]
    first, second = repository.refs["v1"], repository.refs["main"]
    place.hub.asked.clear()
    code, out, err = run("someone/small@refs/pr/1", results="revision")
    assert (code, err) == (0, "") and "model someone/small@refs/pr/1 (" in out
    asked = [path for path in place.hub.asked.elements() if "api/" in path and "/tree/" not in path]
    assert len(asked) == 3  # for the data, and twice for the model; the trial reads its commit
    trial = result(place, "revision")["trial"]
    assert trial["model"] == "someone/small@refs/pr/1"
    assert trial["model_sha"] != result(place)["trial"]["model_sha"]
    page = (place.folder / "revision/smoke/LEADERBOARD.md").read_text()
    assert "model someone/small@refs/pr/1" in page
    assert "--model someone/small@refs/pr/1" in page
    for same in (f"someone/small@{first}", "someone/small@v1"):
        assert "1 done" in run(same, "--dry-run", results="revision")[1]
    assert "1 done" in run(f"someone/small@{second}", "--dry-run")[1]
    repository.refs["v1"] = second
    assert "0 done" in run("someone/small@v1", "--dry-run", results="revision")[1]
    repository.refs["v1"], place.hub.silent = first, True
    code, out, err = run("someone/small@v1", "--dry-run")
    place.hub.silent = False
    assert (code, err) == (0, "") and "1 done" in out  # where the branch was last time


def test_what_the_hub_says_is_told(place, run):
    for model, message in (
        ("someone/gated", "is gated; ask for access on its page there, then give a token"),
        ("someone/missing", "no such repository, or a private one, which needs a token"),
        ("someone/small@v9", "no such revision; give a branch, a tag or a whole commit hash"),
    ):
        line = fails(run(model))
        assert f"model {model} " in line and message in line
    line = fails(run("someone/bin"), 2)
    assert "has pytorch_model.bin and no .safetensors file; convert the checkpoint" in line
    assert not any("bin/resolve" in path for path in place.hub.asked)
    assert "neither a folder nor a hub name" in fails(run("no/such/dir"), 2)
    place.hub.silent = True
    line = fails(run("someone/gated"))
    place.hub.silent = False
    assert "--scale tiny, work offline" in line


@pytest.mark.parametrize("name", ["a/b/c", "a b", "a//b", "-a/b", "a/b.git", "", "x" * 97])
def test_what_cannot_be_a_name_is_rejected(name):
    with pytest.raises(ConfigError, match="neither a folder nor a hub name"):
        split_name(name)


@pytest.mark.parametrize("revision", ["", "../../x", "a b", "/x", "-x", "a\nb"])
def test_what_cannot_be_a_revision_is_rejected(revision):
    with pytest.raises(ConfigError, match="cannot be a revision"):
        split_name(f"a/b@{revision}")


def test_a_full_disk_is_told_as_one():
    told = pytest.raises(StorageError, match="in the hub's cache .HF_HOME.: No space left")
    with told, reaching_hub("model a/b", begun=True):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeError("while writing") from error

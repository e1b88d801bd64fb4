"""What tests share: very small checkpoints, small data, and the command line in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from transformers import AutoModel

from tasks.scales import base
from tests.helpers import save_checkpoint, write_sst2
from tests.kinds import KINDS
from zoo.engine.build import Resources
from zoo.inputs.checkpoint import find_checkpoint, load_encoder
from zoo.plugins import load_built_in
from zoo.registry import REGISTRIES
from zoo.runs.plan import Planner

load_built_in()


FIRST = (
    *("test_launch.py", "test_second_implementation.py", "test_cluster.py"),
    *("test_processes.py", "test_tuning.py", "test_hub.py"),
)
"""The files that take longest, so that two processes end at nearly the same time."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order below where pytest-xdist would start with the files of most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    last = len(FIRST)
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else last)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Remove what a test registers; use one thread, as trials do."""
    torch.set_num_threads(1)
    before = [(registry, dict(registry._entries)) for registry in REGISTRIES]
    yield
    for registry, entries in before:
        registry._entries = entries


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT without an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "headless", mlm=False)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small BERT and SST-2, where commands run."""
    folder = tmp_path_factory.mktemp("here")
    save_checkpoint(folder / "small")
    write_sst2(folder / "data")
    return folder


@pytest.fixture
def bert(checkpoint: Path) -> Callable[[], Any]:
    """Loads the encoder of the small BERT anew at every call."""
    return lambda: load_encoder(find_checkpoint(str(checkpoint)), pooler=True)[0]


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A data folder with an SST-2 of 48 training and 12 evaluation rows that can be learnt."""
    write_sst2(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def planner(checkpoint: Path, sst2: Path) -> Planner:
    """Plans trials with the papers' values on the small BERT and SST-2."""
    return Planner(base(), "released", str(checkpoint), str(sst2))


@pytest.fixture
def resources(checkpoint: Path, sst2: Path, tmp_path: Path) -> Resources:
    """What the planner's trials run with."""
    return Resources(str(checkpoint), str(sst2), str(tmp_path / "cache"))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process: (*options) -> exit code, stdout, stderr."""
    from run_benchmark import main

    def call(*options: str, results: Path = tmp_path / "results") -> tuple[int, str, str]:
        code = main([*options, "--results", str(results), "--executor", "inline"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> dict[str, Any]:
    """A random encoder of every kind in float64, with large biases."""
    root, found = tmp_path_factory.mktemp("kinds"), {}
    for kind in KINDS:
        save_checkpoint(root / kind, kind=kind, weight=0.3, bias=1.0)
        found[kind] = AutoModel.from_pretrained(root / kind, dtype=torch.float64).eval()
    return found

"""What tests share: a very small checkpoint, small data, and the command line in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch

import zoo.suites  # noqa: F401  registers the suites
from tests.helpers import save_checkpoint, write_sst2
from zoo.registry import BUILT_IN, find_plugin, load_plugin, methods, suites, tasks

for name in BUILT_IN:
    load_plugin(find_plugin(name))


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it; one thread, as trials have it."""
    torch.set_num_threads(1)
    before = [(registry, dict(registry._entries)) for registry in (methods, tasks, suites)]
    yield
    for registry, entries in before:
        registry._entries = entries


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint without an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "headless", mlm=False)


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A data folder with an SST-2 of 48 training and 12 evaluation rows that can be learnt."""
    write_sst2(tmp_path / "data")
    return tmp_path / "data"


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

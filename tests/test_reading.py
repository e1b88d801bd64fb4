"""Reading from the hub; a folder in the hub's layout takes its place."""

from types import SimpleNamespace

import pytest

from tasks import reading
from tests.helpers import write_parquet
from zoo import ConfigError
from zoo.errors import ResourceError

CARD = """---
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype: int64
  splits:
  - name: train
    num_bytes: 100
    num_examples: 4
  - name: validation
    num_bytes: 100
    num_examples: 2
  download_size: 100
  dataset_size: 200
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
---
"""


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A folder as `nyu-mll/glue` has it, and a hub that knows its revision."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    for split, rows in (("train", 4), ("validation", 2)):
        columns = {"sentence": ["a cat"] * rows, "label": [0, 1] * (rows // 2)}
        write_parquet(tmp_path / "repo" / "sst2" / f"{split}-00000-of-00001.parquet", columns)
    (tmp_path / "repo" / "README.md").write_text(CARD)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    info = SimpleNamespace(sha=None)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    return str(tmp_path / "repo")


def test_the_hub_gives_the_rows_of_its_files(repo):
    source = reading.locate(
        repo, "sst2", "glue/sst2", ("sentence", "label"), ("train", "validation"), None
    )
    assert source.rows == {"train": 4, "validation": 2}
    assert source.read("train") == {"sentence": ["a cat"] * 4, "label": [0, 1, 0, 1]}


def test_a_changed_layout_is_a_config_error(repo):
    with pytest.raises(ConfigError, match="has no text; its layout has changed"):
        reading.locate(repo, "sst2", "x", ("text", "label"), ("train", "validation"), None)


def test_any_exception_of_the_client_becomes_one_resource_error(repo, monkeypatch):
    import huggingface_hub

    def refused(*_, **__):
        raise OSError("connection refused\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refused)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(
        ResourceError, match=r"cannot download the data set .* \(sst2\) .*--scale tiny"
    ) as error:
        reading.locate(repo, "sst2", "x", ("sentence", "label"), ("train", "validation"), None)
    assert "\n" not in str(error.value)

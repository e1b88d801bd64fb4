"""Raw rows of a data set, from parquet files in a local folder or from the Hugging Face hub."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.classes import Classes, Orders, class_names, order_of, renumbered
from tasks.hub_rows import from_hub
from zoo import ConfigError, Source


def locate(
    repo: str,
    config: str | None,
    folder: str,
    columns: Sequence[str],
    splits: Sequence[str],
    data_dir: str | None,
    classes: Classes = MappingProxyType({}),
) -> Source:
    """Find the rows of `repo` (with its `config`): in `data_dir`/`folder` if `data_dir` is given,
    else on the hub.

    `splits` are the training split and then the evaluation splits; the training split and at least
    one evaluation split must exist. A split is one parquet file or all shards of one. Data that
    name their classes in another order than the task get the task's numbers. Raises ConfigError or
    ResourceError.
    """
    if data_dir is None:
        return from_hub(repo, config, columns, splits, classes)
    root = Path(data_dir).expanduser() / folder
    found = {split: files for split in splits if (files := _files(root, split))}
    if splits[0] not in found or len(found) < 2:
        missing = root / f"{splits[0] if splits[0] not in found else splits[1]}.parquet"
        raise ConfigError(
            f"data file {missing} is missing; expected parquet with the columns"
            f" {', '.join(columns)} as in {repo}"
        )
    digest = hashlib.sha256()
    rows, orders = dict.fromkeys(found, 0), {}
    for split, files in found.items():
        for file in files:
            count, sha, names = _inspect(file, columns)
            digest.update(f"{split} {sha}\n".encode())
            rows[split] += count
            orders[split] = {
                column: order_of(names[column], known, f"data file {file}, column {column!r}")
                for column, known in classes.items()
                if column in names
            }
    locations = {split: str(files[0]) for split, files in found.items()}
    read = partial(_read_files, found, columns, orders)
    return Source("local files", digest.hexdigest(), rows, locations, read)


def _files(folder: Path, split: str) -> list[Path]:
    """The file of a split, or its shards as the hub names them, in order; raises ConfigError if one
    of them is missing."""
    whole = folder / f"{split}.parquet"
    if whole.is_file():
        return [whole]
    shards = sorted(folder.glob(f"{split}-[0-9]*-of-[0-9]*.parquet"))
    if shards:
        many = int(shards[0].stem.rpartition("-of-")[2])
        expected = [f"{split}-{i:05}-of-{many:05}.parquet" for i in range(many)]
        lacking = [name for name in expected if not (folder / name).is_file()]
        if lacking or len(shards) != many:
            raise ConfigError(
                f"data file {folder / (lacking or [shards[-1].name])[0]} is missing or one too many"
                f" for the {many} shards of {split}"
            )
    return shards


def _inspect(file: Path, columns: Sequence[str]) -> tuple[int, str, dict[str, list[str]]]:
    """The number of rows and the sha256 of a parquet file, and the class names that it gives by
    column; raises ConfigError if it lacks a column or is empty."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        content = file.read_bytes()
        meta = parquet.read_metadata(file)
        schema = meta.schema.to_arrow_schema()
    except (OSError, ArrowException) as error:
        raise ConfigError(f"data file {file} cannot be read as parquet: {error}") from None
    for column in columns:
        if column not in schema.names:
            raise ConfigError(
                f"data file {file} has no column {column!r}; expected {', '.join(columns)},"
                f" found {', '.join(schema.names)}"
            )
    if meta.num_rows == 0:
        raise ConfigError(f"data file {file} has no rows; expected at least one")
    names = class_names((schema.metadata or {}).get(b"huggingface", b"{}"))
    return meta.num_rows, hashlib.sha256(content).hexdigest(), names


def _read_files(
    files: Mapping[str, Sequence[Path]], columns: Sequence[str], orders: Orders, split: str
) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet as parquet

    parts = [parquet.read_table(file, columns=list(columns)) for file in files[split]]
    table = pyarrow.concat_tables(parts, promote_options="permissive")
    return renumbered(table.to_pydict(), orders.get(split, {}))

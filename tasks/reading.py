"""Raw rows of a data set, from parquet files in a local folder or from the Hugging Face hub."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.classes import Classes, Orders, check_orders, class_names, order_of, renumbered
from tasks.hub_rows import from_hub
from zoo import ConfigError, Source
from zoo.errors import one_line


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
    rows = dict.fromkeys(found, 0)
    orders: Orders = {}
    for split, files in found.items():
        for file in files:
            count, sha, names = _inspect(file, columns)
            digest.update(f"{split} {sha}\n".encode())
            rows[split] += count
            orders[file] = {
                column: order_of(names[column], known, f"data file {file}, column {column!r}")
                for column, known in classes.items()
                if column in names
            }
    check_orders(orders, classes)
    locations = {split: str(files[0]) for split, files in found.items()}
    read = partial(_read_files, found, columns, orders)
    return Source("local files", digest.hexdigest(), rows, locations, read)


def _files(folder: Path, split: str) -> list[Path]:
    """The file of a split, or its shards as the hub names them, in order; raises ConfigError if one
    of them is missing."""
    whole = folder / f"{split}.parquet"
    pattern = re.compile(rf"{re.escape(split)}-(\d{{5}})-of-(\d{{5}})(-[0-9a-f]+)?\.parquet")
    shards = sorted(p for p in folder.glob(f"{split}-*.parquet") if pattern.fullmatch(p.name))
    if whole.is_file():
        if shards:
            raise ConfigError(
                f"data files {whole} and {shards[0].name}: which is {split}? Keep one"
            )
        return [whole]
    named = [match for path in shards if (match := pattern.fullmatch(path.name))]
    if named and [int(match[1]) for match in named] != list(range(int(named[-1][2]))):
        raise ConfigError(
            f"data files {folder / split}-*.parquet: {named[-1][2]} shards are expected, there are"
            f" {', '.join(match[1] for match in named[:9])}"
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
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    found: dict[str, Any] = {column: [] for column in columns}
    for file in files[split]:
        try:
            part = parquet.read_table(file, columns=list(columns)).to_pydict()
        except (OSError, ArrowException, KeyError) as error:
            raise ConfigError(
                f"data file {file} cannot be read: {one_line(error, 120)}; make it again"
            ) from None
        part = renumbered(part, orders[file])
        for column in columns:
            found[column] += part[column]
    return found

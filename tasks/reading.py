"""Raw rows of a data set, from parquet files in a local folder or from the Hugging Face hub."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoo import ConfigError, Source
from zoo.inputs.hub import UnreachableError, dataset_commit, reaching_hub


def locate(
    repo: str,
    config: str | None,
    folder: str,
    columns: Sequence[str],
    splits: Sequence[str],
    data_dir: str | None,
) -> Source:
    """Find the rows of `repo` (with its `config`): in `data_dir`/`folder` if `data_dir` is given,
    else on the hub.

    `splits` are the training split and then the evaluation splits; the training split and at least
    one evaluation split must exist. Raises ConfigError or ResourceError.
    """
    if data_dir is None:
        return _from_hub(repo, config, columns, splits)
    root = Path(data_dir).expanduser()
    files = {split: root / folder / f"{split}.parquet" for split in splits}
    found = {split: file for split, file in files.items() if file.is_file()}
    if splits[0] not in found or len(found) < 2:
        missing = files[splits[0]] if splits[0] not in found else files[splits[1]]
        raise ConfigError(
            f"data file {missing} is missing; expected parquet with the columns"
            f" {', '.join(columns)} as in {repo}"
        )
    tables = {split: _inspect(file, columns) for split, file in found.items()}
    digest = hashlib.sha256("".join(f"{s} {sha}\n" for s, (_, sha) in tables.items()).encode())
    rows = {split: count for split, (count, _) in tables.items()}
    locations = {split: str(file) for split, file in found.items()}
    read = partial(_read_file, found, columns)
    return Source("local files", digest.hexdigest(), rows, locations, read)


def _inspect(file: Path, columns: Sequence[str]) -> tuple[int, str]:
    """The number of rows and the sha256 of a parquet file; raises ConfigError if it lacks a column
    or is empty."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        content = file.read_bytes()
        meta = parquet.read_metadata(file)
    except (OSError, ArrowException) as error:
        raise ConfigError(f"data file {file} cannot be read as parquet: {error}") from None
    names = meta.schema.to_arrow_schema().names
    for column in columns:
        if column not in names:
            raise ConfigError(
                f"data file {file} has no column {column!r}; expected {', '.join(columns)},"
                f" found {', '.join(names)}"
            )
    if meta.num_rows == 0:
        raise ConfigError(f"data file {file} has no rows; expected at least one")
    return meta.num_rows, hashlib.sha256(content).hexdigest()


def _read_file(files: Mapping[str, Path], columns: Sequence[str], split: str) -> dict[str, Any]:
    import pyarrow.parquet as parquet

    return parquet.read_table(files[split], columns=list(columns)).to_pydict()


def _from_hub(
    repo: str, config: str | None, columns: Sequence[str], splits: Sequence[str]
) -> Source:
    what = f"the data set {repo}" + (f" ({config})" if config else "")
    builder = _builder(repo, config, what)
    info = builder.info
    rows = {s: info.splits[s].num_examples for s in splits if s in (info.splits or {})}
    missing = [column for column in columns if column not in (info.features or {})]
    if missing or splits[0] not in rows or len(rows) < 2:
        raise ConfigError(
            f"{what} has no {', '.join(missing) or splits[0]}; its layout has changed"
        )
    read = partial(_read_hub, builder, columns, what)
    locations = {split: f"{what}, {split}" for split in rows}
    return Source(f"{repo} on the hub", f"{repo}@{builder.hash}", rows, locations, read)


def _builder(repo: str, config: str | None, what: str) -> Any:
    """The client's builder of a data set at its newest commit, which is its `hash`; at the latest
    one in the client's cache if the hub does not answer."""
    try:
        commit = dataset_commit(repo, what)
    except UnreachableError:
        if cached := _cached(repo, config, "*"):
            return cached
        raise
    if commit and (cached := _cached(repo, config, commit)):
        return cached
    with reaching_hub(what, begun=True):
        from datasets import load_dataset_builder

        builder = load_dataset_builder(repo, config, revision=commit)
        if commit and builder.hash != commit:
            raise ConnectionError("only an earlier version is in the cache")
        return builder


def _cached(repo: str, config: str | None, commit: str) -> Any:
    """A builder of the latest whole copy in the client's cache, or None; `commit` may be '*'."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *owner, name = repo.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "___".join(
        [*owner, camelcase_to_snakecase(name)]
    )
    found = [path.parent for path in folder.glob(f"{config or '*'}/*/{commit}/dataset_info.json")]
    if len({path.parts[-3] for path in found}) != 1:
        return None  # none, or several configurations
    latest = max(found, key=lambda path: path.stat().st_mtime)
    config_name, version, sha = latest.parts[-3:]
    return Cache(
        dataset_name=name, repo_id=repo, config_name=config_name, version=version, hash=sha
    )


def _read_hub(builder: Any, columns: Sequence[str], what: str, split: str) -> dict[str, Any]:
    with reaching_hub(what, begun=True):
        builder.download_and_prepare()
        table = builder.as_dataset(split=split)
        return table.select_columns(list(columns)).with_format("arrow")[:].to_pydict()

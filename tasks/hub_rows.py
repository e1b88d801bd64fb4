"""Raw rows of a data set on the Hugging Face hub, by its own client."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.classes import Classes, order_of, renumbered
from zoo import ConfigError, Source
from zoo.inputs.hub import UnreachableError, dataset_commit, reaching_hub


def from_hub(
    repo: str,
    config: str | None,
    columns: Sequence[str],
    splits: Sequence[str],
    classes: Classes,
) -> Source:
    """The rows of a data set; the other arguments are those of `locate`."""
    what = f"the data set {repo}" + (f" ({config})" if config else "")
    builder = _builder(repo, config, what)
    info = builder.info
    rows = {s: info.splits[s].num_examples for s in splits if s in (info.splits or {})}
    missing = [column for column in columns if column not in (info.features or {})]
    if missing or splits[0] not in rows or len(rows) < 2:
        raise ConfigError(
            f"{what} has no {', '.join(missing) or splits[0]}; its layout has changed"
        )
    names = {column: getattr(info.features[column], "names", None) for column in classes}
    orders = {
        column: order_of(known, classes[column], f"{what}, column {column!r}")
        for column, known in names.items()
        if known
    }
    read = partial(_read, builder, columns, orders, what)
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


def _read(
    builder: Any,
    columns: Sequence[str],
    orders: Mapping[str, Sequence[int]],
    what: str,
    split: str,
) -> dict[str, Any]:
    with reaching_hub(what, begun=True):
        builder.download_and_prepare()
        table = builder.as_dataset(split=split)
        rows = table.select_columns(list(columns)).with_format("arrow")[:].to_pydict()
    return renumbered(rows, orders)

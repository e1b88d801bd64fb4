"""From result files to pages: a pure function of the files in a suite's folder.

The names are loaded when they are first used: `python -m leaderboard` imports this package first,
and handles signals before it imports what takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboard.collect import collect as collect
    from leaderboard.files import write as write
    from leaderboard.files import write_board as write_board
    from leaderboard.prose import excluded as excluded

__all__ = ["collect", "excluded", "write", "write_board"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from leaderboard import collect, files, prose

    return getattr(next(m for m in (collect, files, prose) if hasattr(m, name)), name)

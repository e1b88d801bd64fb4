"""From result files to pages: a pure function of the files in a suite's folder.

`write` is loaded when it is first used: `python -m leaderboard` imports this package first, and
handles signals before it imports what takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboard.files import write as write

__all__ = ["write"]


def __getattr__(name: str) -> Any:
    if name != "write":
        raise AttributeError(name)
    from leaderboard.files import write

    return write

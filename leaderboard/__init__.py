"""From result files to pages: a pure function of the files in a suite's folder."""

from leaderboard.files import write

__all__ = ["write"]

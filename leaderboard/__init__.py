"""From result files to pages: a pure function of the files in a suite's folder."""

from leaderboard.collect import collect
from leaderboard.files import write, write_board
from leaderboard.prose import excluded

__all__ = ["collect", "excluded", "write", "write_board"]

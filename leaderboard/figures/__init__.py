"""Figures as files, like the papers': SVG and PNG by matplotlib."""

from leaderboard.figures.draw import draw

__all__ = ["draw"]

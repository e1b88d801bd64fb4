"""Figures as files, like the papers': SVG and PNG by matplotlib."""

from leaderboard.figures.draw import FIGURE, Drawn, draw

__all__ = ["FIGURE", "Drawn", "draw"]

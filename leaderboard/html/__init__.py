"""The page as one HTML file: no server, no request, readable without its script."""

from leaderboard.html.render import html_page

__all__ = ["html_page"]

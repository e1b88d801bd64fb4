"""What the figures share: colours, marks, margins, and how a method is named."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard.collect import RowKey
from zoo.trial import Result

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
"""Okabe and Ito's colours, told apart by the colour-blind; markers and dashes tell the rest."""
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":")
Chosen = Sequence[tuple[RowKey, Sequence[Result]]]
"""Rows with the results that a figure shows."""
LEGEND = 2.2
"""Inches that the legend takes beside the charts."""


def save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    plt.close(figure)


def panels(titles: Sequence[str], below: Sequence[str]) -> tuple[Any, list[Any]]:
    """A figure with an axis per title, at most four beside each other, and room for a legend;
    `below` says what each one's horizontal axis shows."""
    import matplotlib.pyplot as plt

    across = min(len(titles), 4)
    down = -(-len(titles) // across)
    size = (3.4 * across + LEGEND, 3.4 * down)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False)
    for axis in axes.flat[len(titles) :]:
        axis.set_visible(False)
    for axis, title, words in zip(axes.flat, titles, below, strict=False):
        axis.set_xlabel(words)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    return figure, list(axes.flat[: len(titles)])


def with_legend(figure: Any, axes: Sequence[Any]) -> Any:
    handles, labels = axes[0].get_legend_handles_labels()
    place = (1 - (LEGEND - 0.1) / figure.get_size_inches()[0], 0.5)
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=place, frameon=False)
    set_margins(figure, left=0.55, right=LEGEND, bottom=0.55, top=0.35, between=0.6)
    return figure


def style(index: int) -> dict[str, Any]:
    """Colour, mark and dash of a method's line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def name_of(row: RowKey) -> str:
    return row.method + (f" ({row.variant})" if row.variant else "")


def set_margins(
    figure: Any, *, left: float, right: float, bottom: float, top: float, between: float
) -> None:
    """Set margins in inches, as quick as matplotlib's own layouts are slow."""
    width, height = figure.get_size_inches()
    down, across = figure.axes[0].get_subplotspec().get_gridspec().get_geometry()
    wide = (width - left - right - between * (across - 1)) / across
    above = between + 0.25  # a title and an axis label meet there
    tall = (height - bottom - top - above * (down - 1)) / down
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=between / wide,
        hspace=above / tall,
    )


Words = tuple[float, float, str, str]
"""Where in an axis, what, and in which colour."""


def write_words(axis: Any, words: Sequence[Words], size: float = 7) -> None:
    """Many short texts, centred, as one shape for each colour: matplotlib's own take longer than
    all else in a figure of hundreds. The axis must have its final place and limits."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Shape

    figure = axis.figure
    for colour in dict.fromkeys(colour for *_, colour in words):
        points, codes = [], []
        for x, y, text, own in words:
            if own != colour:
                continue
            place = axis.transData.transform((x, y)) / figure.dpi
            shapes = [glyph(letter) for letter in text]
            start = -sum(advance for *_, advance in shapes) / 2
            for vertices, kinds, advance in shapes:
                points.append(place + (vertices + np.array((start, -HALF))) * (size / UNIT / 72))
                codes.append(kinds)
                start += advance
        shape = Shape(np.concatenate(points), np.concatenate(codes))
        look = {"color": colour, "linewidth": 0, "transform": figure.dpi_scale_trans}
        axis.add_artist(PathPatch(shape, clip_on=False, **look))


UNIT, HALF = 100.0, 36.5
"""Size at which letters are drawn once, and half the height of a capital there."""


@lru_cache
def glyph(letter: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Vertices and codes of a letter's outline, and how far it moves the pen."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath, TextToPath

    font = FontProperties(family="DejaVu Sans", size=UNIT)  # whatever the settings of the day
    outline = TextPath((0, 0), letter, size=UNIT, prop=font)
    width, *_ = TextToPath().get_text_width_height_descent(letter, font, ismath=False)
    return outline.vertices, outline.codes, width

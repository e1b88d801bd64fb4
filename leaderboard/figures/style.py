"""What the figures share: settings, looks, margins, and fast text."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard.looks import COLOURS, GREY, Look

MARKS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "wedge": "v",
    "plus": "+",
    "cross": "x",
}
"""matplotlib's letters for the marks of leaderboard/looks.py."""
LEGEND, LETTERS = 2.2, 24
"""Inches for the legend beside the charts, and letters that fit there."""


@contextmanager
def settings() -> Iterator[None]:
    """The project's settings of matplotlib: a user's own would change the files. Where its folder
    cannot be written, matplotlib uses a temporary one and need not say so."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib

    matplotlib.use("agg")
    defaults = {name: v for name, v in matplotlib.rcParamsDefault.items() if name != "backend"}
    own = {"svg.hashsalt": "leaderboard", "font.size": 9, "figure.dpi": 110}
    with matplotlib.rc_context(defaults | own):
        yield


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG and PNG, and close it."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    plt.close(figure)


def panels(titles: Sequence[str], below: Sequence[str], names: int) -> tuple[Any, list[Any]]:
    """A figure with an axis per title, at most four in a row, and room for a legend of so many
    `names`; `below` are the labels of the horizontal axes."""
    import matplotlib.pyplot as plt

    across = min(len(titles), 4)
    down = -(-len(titles) // across)
    tall = max(3.4 * down, 0.18 * names + 0.4)
    figure, axes = plt.subplots(down, across, figsize=(3.4 * across + LEGEND, tall), squeeze=False)
    for axis in axes.flat[len(titles) :]:
        axis.set_visible(False)
    for axis, title, text in zip(axes.flat, titles, below, strict=False):
        axis.set_xlabel(text)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    return figure, list(axes.flat[: len(titles)])


def with_legend(figure: Any, axes: Sequence[Any]) -> Any:
    """The figure with a legend on the right that names every line of its axes once."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    place = (1 - (LEGEND - 0.1) / figure.get_size_inches()[0], 0.5)
    where = {"loc": "center left", "bbox_to_anchor": place, "frameon": False}
    names = list(map(shortened, named))
    figure.legend(list(named.values()), names, handlelength=2.6, **where)
    set_margins(figure, left=0.55, right=LEGEND, bottom=0.55, top=0.35, between=0.6)
    return figure


def colour_of(look: Look) -> str:
    """The colour of a look."""
    return GREY if look.colour is None else COLOURS[look.colour]


def style(look: Look) -> dict[str, Any]:
    """Colour, mark and dash of a method's line, for matplotlib; marks are hollow."""
    return {
        "color": colour_of(look),
        "marker": MARKS[look.mark],
        "linestyle": dashed(look.dash),
        "markerfacecolor": "white",
    }


def shortened(label: str) -> str:
    """A label that fits beside a chart."""
    return label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"


def dashed(dash: Sequence[int]) -> Any:
    """A dash in pixels as matplotlib's line style."""
    return (0, tuple(dash)) if dash else "-"


def set_margins(
    figure: Any, *, left: float, right: float, bottom: float, top: float, between: float
) -> None:
    """Set margins in inches; matplotlib's own layouts are slow."""
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


Text = tuple[float, float, str, str]
"""A text in an axis: x, y, what, colour."""


def write_texts(axis: Any, texts: Sequence[Text], size: float = 7) -> None:
    """Draw many short centred texts as one shape per colour, ten times faster than matplotlib's own
    texts. The axis must have its final position and limits."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Shape

    figure = axis.figure
    for colour in dict.fromkeys(colour for *_, colour in texts):
        points, codes = [], []
        for x, y, text, own in texts:
            if own != colour:
                continue
            centre = axis.transData.transform((x, y)) / figure.dpi
            shapes = [glyph(letter) for letter in text]
            start = -sum(advance for *_, advance in shapes) / 2
            for vertices, kinds, advance in shapes:
                points.append(centre + (vertices + np.array((start, -HALF))) * (size / UNIT / 72))
                codes.append(kinds)
                start += advance
        shape = Shape(np.concatenate(points), np.concatenate(codes))
        look = {"color": colour, "linewidth": 0, "transform": figure.dpi_scale_trans}
        axis.add_artist(PathPatch(shape, clip_on=False, **look))


UNIT, HALF = 100.0, 36.5
"""Size at which each letter is drawn once, and half the height of a capital at that size."""


@lru_cache
def glyph(letter: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Vertices and codes of a letter's outline, and its width."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath, TextToPath

    font = FontProperties(family="DejaVu Sans", size=UNIT)  # not the user's font
    width, *_ = TextToPath().get_text_width_height_descent(letter, font, ismath=False)
    if letter.isspace():
        return np.zeros((0, 2)), np.zeros(0, np.uint8), width
    outline = TextPath((0, 0), letter, size=UNIT, prop=font)
    return outline.vertices, outline.codes, width

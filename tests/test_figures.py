"""Parts of the figures: texts drawn as one shape, and distributions."""

import numpy as np
import pytest

from leaderboard.figures.masks import scores, weights
from leaderboard.figures.style import write_texts
from tests.test_distribution import model  # noqa: F401
from zoo.engine.measure import distribution


def drawn(write) -> np.ndarray:
    """The ink of one figure with a single axis, as darkness."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(2, 1), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 2), ylim=(1, 0))
    axis.set_axis_off()
    write(axis)
    figure.canvas.draw()
    ink = 255 - np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(-1)
    plt.close(figure)
    return ink


@pytest.mark.parametrize("text", ["83.2", "Q", "head", "12"])
def test_texts_are_where_matplotlib_puts_them(text):
    ours = drawn(lambda axis: write_texts(axis, [(0.5, 0.5, text, "black")], size=12))
    place = {"ha": "center", "va": "center", "fontsize": 12}
    theirs = drawn(lambda axis: axis.text(0.5, 0.5, text, **place))
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.15) and ours.sum() > 0
    for axis in (0, 1):
        at = [
            np.average(np.arange(ink.shape[axis]), weights=ink.sum(1 - axis))
            for ink in (ours, theirs)
        ]
        assert at[0] == pytest.approx(at[1], abs=2.0)  # pixels


def test_distributions_are_drawn(model):  # noqa: F811
    shown = [("movement", 0, distribution(model))]
    ridge, plane = weights(shown), scores(shown)
    assert len(ridge.axes[0].collections) == 2
    image = plane.axes[0].images[0].get_array()
    counts = 10 ** image.compressed() - 1
    assert counts.sum() == pytest.approx(sum(model.sizes.values()), rel=0.05)

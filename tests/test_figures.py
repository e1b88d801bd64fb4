"""Parts of the figures: texts drawn as one shape, and distributions."""

import numpy as np
import pytest

from leaderboard.collect import collect
from leaderboard.figures.masks import heat_maps, scores, weights
from leaderboard.figures.style import write_texts
from leaderboard.heat_maps import HeatMap, whole
from leaderboard.html.strips import strip_chart
from leaderboard.looks import PLAIN
from leaderboard.panels import panels_of
from leaderboard.series import Series
from tests.helpers import a_remaining, a_result, a_trial
from tests.test_distribution import model  # noqa: F401
from zoo.engine.measure import distribution
from zoo.records.arrays import Distribution
from zoo.records.packed import pack_counts
from zoo.records.storage import save


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
    shown = [("movement", PLAIN, distribution(model))]
    ridge, plane = weights(shown), scores(shown)
    assert len(ridge.axes[0].collections) == 2
    image = plane.axes[0].images[0].get_array()
    counts = 10 ** image.compressed() - 1
    assert counts.sum() == pytest.approx(sum(model.sizes.values()), rel=0.05)


def image_of(figure) -> np.ndarray:
    """What the first image of a figure shows."""
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def test_maps_of_other_shapes_stand_side_by_side():
    """Another method's model may have fewer layers or heads; many of them make no larger figure."""
    small = HeatMap("a", ["Q", "K"], [[1.0, 2.0]])
    large = HeatMap("b", ["Q", "K", "V"], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    shown = image_of(heat_maps([small, large], ""))
    assert sorted(shown[~np.isnan(shown)]) == [1, 2, 3, 4, 5, 6, 7, 8]
    many = HeatMap("c", ["Q"], [[1.0]] * 500)
    assert max(heat_maps([many], "").get_size_inches()) <= 32
    planes = [Distribution((-1.0, 1.0), (9,) * n, (9,) * n, (0.0, 1.0), flat(n)) for n in (2, 3)]
    shown = image_of(scores([("a", PLAIN, plane) for plane in planes]))
    assert (~np.isnan(shown)).sum() == 2 * 2 + 3 * 3


def flat(bins: int) -> str:
    return pack_counts(np.zeros(bins * bins))


def test_layers_that_differ_in_their_matrices_make_no_map():
    full = {(0, "Q"): 1.0, (0, "K"): 2.0, (1, "Q"): 3.0, (1, "K"): 4.0}
    gap = {key: value for key, value in full.items() if key != (1, "K")}
    assert whole([full, full]) == [full, full]
    assert whole([gap]) == whole([full, gap]) == []


def test_the_strip_chart_shows_every_seed(tmp_path):
    """Dots of seeds and of runs over the target; methods sorted by their mean at the lowest target;
    the mean of the tasks by seed."""
    folder = tmp_path / "s"
    for task, more in (("a", 0.0), ("b", 4.0)):
        for method, score in (("movement", 70.0), ("magnitude", 60.0)):
            for seed in range(3):
                for density in (0.1, 0.03):
                    trial = a_trial(method=method, task=task, seed=seed, density=density)
                    metrics = {"acc": score + more + seed + 100 * density}
                    kept = 0.2 if (method, seed, density) == ("magnitude", 2, 0.1) else density
                    save(a_result(trial, metrics=metrics, remaining=a_remaining(kept)), folder)
    board = collect(folder)
    first, second, mean = panels_of(Series(board, board.tables[0]))
    assert [panel.title for panel in (first, second, mean)] == [
        "a: acc",
        "b: acc",
        "mean of the tasks",
    ]
    assert [strip.name for strip in first.strips] == ["movement", "magnitude"]
    movement, magnitude = first.strips
    assert movement.seeds[3.0] == [73.0, 74.0, 75.0] and movement.over[10.0] == []
    assert magnitude.seeds[10.0] == [70.0, 71.0] and magnitude.over[10.0] == [72.0]
    assert mean.strips[0].seeds[3.0] == [75.0, 76.0, 77.0]
    assert mean.strips[1].seeds[10.0] == [72.0, 73.0]
    drawn = str(strip_chart([first, second, mean], {"movement": "<m>", "magnitude": "magnitude"}))
    assert drawn.count("<path d=") == 2 + 2 * (6 + 5 + 1) + 6 + 5
    assert ", 10 %: 70.0, 71.0</title>" in drawn
    assert drawn.count('class="seed over c0"') == 2 and drawn.count("median") == 3 * 4 + 1
    assert "&lt;m&gt;" in drawn and "<m>" not in drawn
    assert strip_chart([], {}) == ""

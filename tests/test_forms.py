"""Forms of trained models on the leaderboard: tables, columns and figures, and nothing without."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaderboard import write
from leaderboard.claims import ELSEWHERE
from leaderboard.collect import collect
from leaderboard.figures.draw import FIGURE, figures
from leaderboard.figures.fronts import FORM_MARKS, colours_of, round_ticks
from leaderboard.formats import Quantity, comma_separated, latex, markdown
from leaderboard.forms import speed_entry, three_digits
from leaderboard.fronts import byte_fronts, latency_fronts, latency_shapes, mac_fronts, pareto
from leaderboard.html.rows import columns_of, rows_of
from leaderboard.looks import looks_of
from leaderboard.view import View
from tests.helpers import a_remaining, a_result, a_trial
from zoo.records.codec import from_json
from zoo.records.facts import MethodFacts
from zoo.records.forms import (
    COMPACT,
    FORMS,
    INT8,
    PACKED,
    SPARSE,
    STOCK,
    ZEROS,
    Form,
    Timing,
    Units,
)
from zoo.records.result import Matrix, Remaining, Result
from zoo.records.storage import load_result, save


def a_timing(speedup: float, **changes) -> Timing:
    """A call of 8 x 128 tokens that takes the dense model 20 ms; the interval is 4 % wide."""
    about = {"batch": 8, "tokens": 128, "threads": 1, "dense_seconds": 0.02, "device": "cpu x86_64"}
    about |= {"seconds": 0.02 / speedup, "low": speedup - 0.02, "high": speedup + 0.02}
    return Timing(speedup=speedup, packages={"torch": "2.13.0"}, **about | changes)


def fill(folder: Path, label: str = "") -> Path:
    """Dense and movement at 10 % on two tasks with two seeds; the first seed's models measured."""
    for task in ("a", "b"):
        for seed in range(2):
            at = {"task": task, "seed": seed}
            dense = a_trial(method="dense", density=1.0, hyper={}, **at)
            stock = (Form(STOCK, 400_000, metrics={"acc": 90.0}),) if not seed else ()
            got = a_result(dense, metrics={"acc": 90.0 + seed}, forms=stock)
            save(replace(got, remaining=a_remaining(1.0)), folder)
            facts = {"facts": MethodFacts(label=label)} if label else {}
            forms = _pruned(1.37 if task == "a" else 1.5) if not seed else ()
            metrics = {"acc": 80.0 + seed}
            save(a_result(a_trial(**at), metrics=metrics, forms=forms, **facts), folder)
    return folder


def _pruned(speed: float) -> tuple[Form, ...]:
    own = {"metrics": {"acc": 80.0}}
    other = a_timing(3.0, batch=1)
    return (
        Form(SPARSE, 100_000, timings=(a_timing(speed + 0.5), other), **own),
        Form(ZEROS, 400_000, timings=(a_timing(1.01),), **own),
        Form(COMPACT, 200_000, timings=(a_timing(speed),), **own),
        Form(COMPACT, 150_000, 10, {"acc": 79.1}, (a_timing(1.76),)),
        Form(PACKED, 4_120, **own),
    )


def view_of(folder: Path) -> View:
    board = collect(folder)
    return View(board, board.tables[0])


def texts(grid) -> list[list[str]]:
    return [[str(entry) for entry in row] for row in grid.rows]


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> View:
    return view_of(fill(tmp_path_factory.mktemp("forms") / "suite"))


def test_a_board_without_forms_shows_nothing_new(tmp_path):
    folder = tmp_path / "s"
    for seed in range(2):
        save(a_result(a_trial(seed=seed)), folder)
    view = view_of(folder)
    assert not {"forms", "forms-published"} & set(view.grids)
    assert view.form_columns[0] == [] and view.forms.rows == []
    assert not {"latency", "bytes"} & {name for name, *_ in figures(view.series)}
    page = write(folder, figures=False).read_text() + (folder / "leaderboard.html").read_text()
    for words in ("Trained models", "Speed-up", "speed-up", "no difference:", "Forms of"):
        assert words not in page


@pytest.mark.parametrize(
    ("timings", "told"),
    [
        ([(1.37, 1.31, 1.42)], "1.37 (1.31 to 1.42)"),
        ([(1.01, 0.99, 1.03)], "no difference"),
        ([(0.5, 0.4, 0.6)], "0.50 (0.40 to 0.60)"),
        ([(1.002, 1.001, 1.003)], "1.002 (1.001 to 1.003)"),
        ([(2.0, 1.9, 2.1), (8.0, 7.0, 9.0)], "4.00 (1.90 to 9.00)"),
        ([(2.0, 1.9, 2.1), (1.0, 0.9, 1.1), (2.0, 1.9, 2.1)], "faster in 2 of 3"),
        ([(2.0, 1.9, 2.1), (0.5, 0.4, 0.6)], "faster in 1, slower in 1 of 2"),
        ([(1.0, 0.9, 1.1), (1.0, 0.8, 1.1)], "no difference"),
        ([(1.0, 1.0, 1.1)], "no difference"),
        ([], "-"),
    ],
)
def test_a_ratio_is_shown_where_its_interval_leaves_out_1(timings, told):
    found = [a_timing(speed, low=low, high=high) for speed, low, high in timings]
    entry = speed_entry(found)
    assert str(entry) == told
    assert isinstance(entry, Quantity) == ("(" in told)


def test_names_and_digits():
    assert Form("onnx_compact", 1).label == "onnx compact"
    assert Form(COMPACT, 1, 10).label == "compact, ≥ 10 a row"
    shown = [three_digits(n) for n in (0.00412, 0.4, 5.234, 52.34, 100.0, 440.2, 1340.0)]
    assert shown == ["0.00412", "0.400", "5.23", "52.3", "100", "440", "1340"]


def test_every_form_has_a_line_per_timing(view):
    grid = view.grids["forms"]
    shown = [row for row in texts(grid) if row[0] == "movement" and row[3] == "a"]
    start, shape = ["movement", "10", "10.00", "a", "0"], ["8 × 128", "1"]
    assert shown == [
        [
            *start,
            "sparse",
            "0.100",
            "25.0",
            "acc 80.0",
            "exact",
            *shape,
            "10.7",
            "1.87 (1.85 to 1.89)",
            "cpu x86_64",
        ],
        [
            *start,
            "sparse",
            "0.100",
            "25.0",
            "acc 80.0",
            "exact",
            "1 × 128",
            "1",
            "6.67",
            "3.00 (2.98 to 3.02)",
            "cpu x86_64",
        ],
        [
            *start,
            "zeros",
            "0.400",
            "100.0",
            "acc 80.0",
            "exact",
            *shape,
            "19.8",
            "no difference",
            "cpu x86_64",
        ],
        [
            *start,
            "compact",
            "0.200",
            "50.0",
            "acc 80.0",
            "exact",
            *shape,
            "14.6",
            "1.37 (1.35 to 1.39)",
            "cpu x86_64",
        ],
        [
            *start,
            "compact, ≥ 10 a row",
            "0.150",
            "37.5",
            "acc 79.1",
            "-0.9",
            *shape,
            "11.4",
            "1.76 (1.74 to 1.78)",
            "cpu x86_64",
        ],
        [*start, "packed", "0.00412", "1.0", "acc 80.0", "exact", "-", "-", "-", "-", "-"],
    ]
    assert texts(grid)[0][:10] == [
        "dense",
        "100",
        "100.00",
        "a",
        "0",
        "stock",
        "0.400",
        "100.0",
        "acc 90.0",
        "exact",
    ]


def test_a_form_is_exact_only_if_its_metric_confirms_it(tmp_path):
    forms = (
        Form(INT8, 1, metrics={"acc": 80.0}),
        Form(SPARSE, 1, metrics={"acc": 79.9}),
        Form(COMPACT, 1, 10, {"acc": 80.0}),
        Form(PACKED, 1),
    )
    save(a_result(forms=forms), tmp_path / "s")
    grid = view_of(tmp_path / "s").grids["forms"]
    assert [row[grid.header.index("Change")] for row in texts(grid)] == [
        "+0.0",
        "-0.1",
        "+0.0",
        "-",
    ]
    assert {row[grid.header.index("% of stock")] for row in texts(grid)} == {"-"}


def test_ours_stand_beside_published_claims(view):
    rows = texts(view.grids["forms-published"])
    ours = [row for row in rows if row[0] == "movement"]
    assert [row[1:7] for row in ours] == [
        ["10", "compact", "50.0", "file", "1.43 (1.35 to 1.52)", "exact"],
        ["10", "compact, ≥ 10 a row", "37.5", "file", "1.76 (1.74 to 1.78)", "-0.9"],
        ["10", "sparse", "25.0", "file", "1.93 (1.85 to 2.02)", "exact"],
    ]
    assert ours[0][7] == "here, scale tiny: a, b; 8 × 128 tokens, 1 thread, cpu x86_64"
    theirs = [row for row in rows if row[0] != "movement"]
    assert all(row[7].endswith(ELSEWHERE) for row in theirs)
    smp = [row for row in theirs if "SMP" in row[0]]
    assert [row[1:7] for row in smp] == [
        ["3", "without fully pruned rows", "47.43", "not stated", "1.37", "0"],
        ["3", "without rows of fewer than 10 weights", "25.19", "not stated", "1.76", "-0.9"],
    ]
    coreset = [(row[1], row[5]) for row in theirs if row[0] == "Coreset"]
    speeds = ("1", "1.026", "1.184", "1.485", "1.809", "2.367")
    assert coreset == list(zip(("100", "90", "70", "50", "30", "10"), speeds, strict=True))


def test_the_summary_names_the_fastest_exact_form(view):
    dense, movement = texts(view.forms)
    assert list(view.forms.header)[3:] == [
        "Fastest exact form",
        *("stock MB", "zeros MB", "compact MB", "compact, ≥ 10 a row MB", "sparse MB", "packed MB"),
    ]
    assert dense[3:5] == ["-", "0.400"]
    assert movement[3:] == [
        "sparse 1.93 (1.85 to 2.02)",
        "-",
        "0.400",
        "0.200",
        "0.150",
        "0.100",
        "0.00412",
    ]


def test_columns_are_behind_the_switch(view):
    columns = columns_of(view)
    own = {
        column.header: number
        for number, column in enumerate(columns)
        if column.header in view.form_columns[0]
    }
    assert set(own) == {
        *("stock MB", "zeros MB", "zeros speed-up", "compact MB", "compact speed-up"),
        *("compact, ≥ 10 a row MB", "compact, ≥ 10 a row speed-up", "sparse MB", "sparse speed-up"),
        "packed MB",
    }
    assert all(columns[number].more for number in own.values())
    row = next(row for row in rows_of(view.board, view, columns) if row.method == "movement")
    assert str(row.entries[own["compact speed-up"]]) == "1.43 (1.35 to 1.52); 13.3 to 14.6 ms"
    assert row.entries[own["zeros speed-up"]] == "no difference; 19.8 ms"
    assert str(row.entries[own["packed MB"]]) == "0.00412" and row.entries[own["stock MB"]] == "-"
    assert any("8 × 128 tokens, 1 thread, cpu x86_64 (torch 2.13.0)" in note for note in view.notes)


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([], []),
        ([(1.0, 80.0)], [0]),
        ([(3.0, 90.0), (1.0, 80.0), (2.0, 85.0)], [1, 2, 0]),
        ([(1.0, 80.0), (2.0, 80.0), (2.0, 79.0)], [0]),  # as good and dearer is beaten
        ([(1.0, 80.0), (1.0, 81.0)], [1]),  # as cheap and worse is beaten
        ([(1.0, 80.0), (1.0, 80.0), (0.5, 70.0)], [2, 0, 1]),  # equal ones do not beat each other
        ([(2.0, 80.0), (1.0, 90.0)], [1]),
    ],
)
def test_the_pareto_front(points, best):
    assert pareto(points) == best


def test_fronts_are_of_one_shape_and_of_costs_beside_the_dense_model(view):
    first, second = latency_shapes(view.series)
    assert (first.batch, second.batch) == (8, 1)
    a, b = latency_fronts(view.series, first)
    assert (a.title, b.title) == ("a: acc", "b: acc") and a.dense == pytest.approx(20.0)
    found = {spot.words: (round(spot.x, 3), spot.y, spot.exact) for spot in a.spots}
    assert found == {
        "sparse": (10.695, 80.0, True),
        "zeros": (19.802, 80.0, True),
        "compact": (14.599, 80.0, True),
        "compact, ≥ 10 a row": (11.364, 79.1, False),
    }
    assert [[a.spots[place].words for place in step] for step in a.steps] == [["sparse"]]
    compact = next(spot for spot in a.spots if spot.words == "compact")
    assert (compact.low, compact.high) == pytest.approx((20 / 1.39, 20 / 1.35))
    (alone, _) = latency_fronts(view.series, second)
    assert [spot.words for spot in alone.spots] == ["sparse"]
    (sizes, _), unit = byte_fronts(view.series)
    assert unit == "kB"
    best = [(sizes.spots[p].words, sizes.spots[p].x) for step in sizes.steps for p in step]
    assert best == [("packed", 4.12), ("stock", 400.0)]


def counted(folder: Path) -> Path:
    """The suite of `fill` with counts: the dense model's are 8 million for 128 tokens, and forms
    whose name says nothing of a gain have as many."""
    counts = {COMPACT: 4_000_000, SPARSE: 1_500_000}
    for path in fill(folder).glob("*-seed0-*.json"):
        result = load_result(path)
        forms = [
            replace(
                form,
                timings=tuple(
                    replace(timing, macs=counts.get(form.name, 8_000_000) - 1000 * form.least)
                    for timing in form.timings
                ),
            )
            for form in result.forms
        ]
        if result.trial.density < 1:
            stock = Form(STOCK, 400_000, timings=(a_timing(1.0, macs=8_000_000),))
            forms.append(stock)
        save(replace(result, forms=tuple(forms)), folder)
    return folder


def test_counts_are_shown_where_a_result_has_them(tmp_path):
    view = view_of(counted(tmp_path / "s"))
    grid = view.grids["forms"]
    place = grid.header.index("MMACs")
    assert grid.header[place - 1 : place + 2] == ("Threads", "MMACs", "ms")
    shown = {row[5]: row[place] for row in texts(grid) if row[0] == "movement" and row[3] == "a"}
    assert shown == {
        **{"sparse": "1.50", "zeros": "8.00", "compact": "4.00", "packed": "-", "stock": "8.00"},
        "compact, ≥ 10 a row": "3.99",
    }
    dense, movement = texts(view.forms)
    assert view.forms.header[4] == "Fewest MMACs, exact form"
    assert dense[4] == "-" and movement[4] == "sparse 1.50 (18.8 % of stock)"
    headers, by_line = view.form_columns
    columns = by_line[-1]
    assert headers[headers.index("compact MB") + 1] == "compact MMACs"
    assert str(columns["compact MMACs"]) == "4.00" and "packed MMACs" not in headers
    assert any("MMACs are millions" in note and "128 tokens" in note for note in view.notes)
    (a, b), unit = mac_fronts(view.series, 128)
    assert (unit, a.title, a.dense, b.dense) == ("MMACs", "a: acc", 8.0, 8.0)
    found = {spot.words: (spot.x, spot.y, spot.exact) for spot in a.spots}
    assert found == {
        "sparse": (1.5, 80.0, True),
        "zeros": (8.0, 80.0, True),
        "compact": (4.0, 80.0, True),
        "compact, ≥ 10 a row": (3.99, 79.1, False),
    }
    assert [[a.spots[place].words for place in step] for step in a.steps] == [["sparse"]]
    assert mac_fronts(view.series, 64) == ([], "MMACs")
    drawn = {name: (caption, make) for name, caption, make in figures(view.series)}
    assert "128 tokens" in drawn["macs"][0] and re.fullmatch(FIGURE, "macs")
    assert len(drawn["macs"][1]().axes) == 2


def with_units(folder: Path, method: str, *left: tuple[int, ...]) -> None:
    """A measured trial whose compact form has attention heads and neurons left, layer by layer."""
    units = tuple(map(Units, ("attention heads", "neurons"), (4, 10), left))
    lossy = Form(COMPACT, 1, 10, {"acc": 70.0}, units=(Units("neurons", 10, (1, 1)),))
    forms = (Form(COMPACT, 2, metrics={"acc": 80.0}, units=units), lossy)
    save(masked(a_result(a_trial(method=method, task="a"), forms=forms)), folder)


def masked(result: Result) -> Result:
    """The result with a matrix that has attention heads, as one that was masked."""
    matrix = Matrix(10_000, 100_000, 0, "V", (0.1,) * 4)
    return replace(result, remaining=Remaining(0.1, 0.1, {"encoder.layer.0.v": matrix}))


def test_units_left_are_a_map_of_methods_by_layer(tmp_path):
    folder = tmp_path / "s"
    with_units(folder, "movement", (4, 1), (10, 5))
    with_units(folder, "magnitude", (2, 3), (0, 2))
    save(masked(a_result(a_trial(method="smp_s", task="a"))), folder)  # it was not measured
    series = view_of(folder).series
    heads, neurons = series.units("a")
    assert (heads.name, neurons.name) == ("attention heads", "neurons")
    assert heads.columns == neurons.columns == ["1", "2"]
    assert dict(zip(heads.lines, heads.values, strict=True)) == {
        "movement": [100.0, 25.0],
        "magnitude": [50.0, 75.0],
    }
    assert dict(zip(neurons.lines, neurons.values, strict=True)) == {
        "movement": [100.0, 50.0],
        "magnitude": [0.0, 20.0],
    }
    drawn = {name: make for name, _, make in figures(series)}
    assert re.fullmatch(FIGURE, "units-a")
    figure = drawn["units-a"]()
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written.count("movement") == written.count("magnitude") == 1
    assert figure.axes[1].get_ylabel() == "units left (%)"
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    every = [value for one in (heads, neurons) for line in one.values for value in line]
    assert sorted(shown[~np.isnan(shown)]) == sorted(every)


def test_a_model_of_fewer_layers_has_a_shorter_line(tmp_path):
    folder = tmp_path / "s"
    with_units(folder, "movement", (4, 1, 2), (10, 5, 0))
    with_units(folder, "magnitude", (2, 3), (0, 2))
    heads, _ = view_of(folder).series.units("a")
    lines = dict(zip(heads.lines, heads.values, strict=True))
    assert lines["movement"] == [100.0, 25.0, 50.0]
    assert lines["magnitude"][:2] == [50.0, 75.0] and np.isnan(lines["magnitude"][2])
    for name, _, make in figures(view_of(folder).series):
        if name == "units-a":
            assert make().axes


def test_a_board_without_units_draws_none(view):
    assert view.series.units("a") == []
    assert not [name for name, *_ in figures(view.series) if name.startswith("units")]


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ([{"kind": "values", "total": 4, "left": [5]}], "left must be in"),
        ([{"kind": "values", "total": 4, "left": [-1]}], "left must be in"),
        ([{"kind": "values", "total": 0, "left": []}], "at least 1"),
        ([{"kind": "values", "total": 4, "left": [1.5]}], "left"),
        ([{"kind": "values", "total": 4, "left": [1] * 501}], "more than 500 layers"),
        ([{"kind": "values", "total": 4, "left": [1]}] * 2, "different kinds"),
        (
            [{"kind": k, "total": 4, "left": [1] * n} for n, k in enumerate("ab")],
            "equally many layers",
        ),
    ],
)
def test_units_that_cannot_be_are_refused(units, says):
    with pytest.raises(ValueError, match=says):
        from_json(Form, {"name": COMPACT, "bytes": 1, "units": units})


def test_without_counts_nothing_is_said_of_them(view):
    assert "macs" not in {name for name, *_ in figures(view.series)}
    grids = (view.forms, view.grids["forms"], view.main.grid)
    told = [*(header for grid in grids for header in grid.header), *view.form_columns[0]]
    assert not [text for text in (*told, *view.notes) if "MAC" in text]


def test_a_distilled_table_shows_the_dense_model_of_its_twin(tmp_path):
    folder = fill(tmp_path / "s")
    forms = (Form(COMPACT, 200_000, metrics={"acc": 82.0}, timings=(a_timing(1.5),)),)
    save(a_result(a_trial(task="a", distill=True), metrics={"acc": 82.0}, forms=forms), folder)
    board = collect(folder)
    view = next(View(board, table) for table in board.tables if table.key.distill)
    (sizes,), _ = byte_fronts(view.series)
    assert [spot.words for spot in sizes.spots] == ["stock", "compact"]
    assert texts(view.grids["forms"])[0][7] == "50.0"
    assert view.form_columns[0] == ["stock MB", "compact MB", "compact speed-up"]


def test_ticks_are_round():
    assert round_ticks(2.0, 450.0) == [3.0, 10.0, 30.0, 100.0, 300.0]
    assert round_ticks(15.0, 60.0) == [15.0, 20.0, 30.0, 40.0, 50.0]


def test_all_is_written(tmp_path):
    folder = fill(tmp_path / "s")
    page = write(folder).read_text()
    assert "could not be drawn" not in page and "Trained models: sizes" in page
    drawn = [f"tiny-mmmmmm-released-plain-{name}" for name in ("latency", "latency-2", "bytes")]
    for name in drawn:
        assert f"figures/{name}.png" in page and (folder / "figures" / f"{name}.svg").exists()
        assert re.fullmatch(FIGURE, name.split("plain-")[1])
    with (folder / "tables" / "tiny-mmmmmm-released-plain-forms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    zeros = next(row for row in rows if row["Form"] == "zeros")
    assert zeros["Speed-up"] == "" and zeros["Speed-up note"] == "no difference"
    assert zeros["Batch × tokens batch"] == "8" and zeros["MB"] == "0.4"
    for path in (folder / "tables").glob("*-forms*.tex"):
        assert path.read_text().isascii()
    before = {path: path.read_bytes() for path in (folder / "figures").glob("*.svg")}
    write(folder)
    assert {path: path.read_bytes() for path in (folder / "figures").glob("*.svg")} == before


@pytest.mark.parametrize("label", ["<img src=x>", "a|b", "$\\frac$", "_x", "=1+1", "x" * 200])
def test_odd_names_are_safe(tmp_path, label):
    folder = fill(tmp_path / "s", label=label)
    odd = Form("new|<form>", 10_000, metrics={"acc": 80.0}, timings=(a_timing(1.2),))
    save(a_result(a_trial(task="a", seed=2), facts=MethodFacts(label=label), forms=(odd,)), folder)
    view = view_of(folder)
    for grid in (view.forms, view.grids["forms"], view.grids["forms-published"]):
        lines = markdown(grid).splitlines()
        assert {line.count("|") for line in lines} == {len(grid.header) + 1}
        assert "<" not in "".join(lines) and len(lines) == len(grid.rows) + 2
        assert latex(grid, "x", "y") and comma_separated(grid)
    write(folder, figures=False)
    text = (folder / "leaderboard.html").read_text()
    assert "<img src=x>" not in text and "<form>" not in text
    for name, _, make in figures(view.series):
        if name.startswith("latency") or name == "bytes":
            figure = make()
            figure.savefig(tmp_path / f"{name}.svg")
            assert len(figure.axes) == 2
            figure.clear()


def test_every_form_has_a_mark():
    assert set(FORM_MARKS) == set(FORMS) and len(set(FORM_MARKS.values())) == len(FORMS)


def test_as_many_methods_as_a_figure_can_show_have_colours_of_their_own():
    names = [f"method {number}" for number in range(24)]
    assert len(set(colours_of(looks_of(dict.fromkeys(names, False))).values())) == len(names)

"""The leaderboard: a pure function of result files that mixes nothing and hides nothing."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from leaderboard import write
from leaderboard.__main__ import main
from leaderboard.collect import collect
from leaderboard.formats import amount, plain_text
from leaderboard.page import in_a_fence
from tests.helpers import a_remaining, a_result, a_training, a_trial
from zoo.records.facts import MethodFacts
from zoo.records.result import Best, Divergence, Environment, Failure, Judgement, Plan, Point
from zoo.records.storage import save, save_plan

ROOT = Path(__file__).resolve().parent.parent


def fill(folder: Path) -> Path:
    """Dense and movement with three seeds, one of them missing, failed or diverged."""
    planned = []
    for seed in range(3):
        dense = a_trial(method="dense", density=1.0, seed=seed, hyper={})
        save(a_result(dense, metrics={"acc": 90.0 + seed}), folder)
        planned.append(dense)
        for density in (0.1, 0.03):
            planned.append(a_trial(density=density, seed=seed))
    save(a_result(planned[1], metrics={"acc": 80.0}), folder)
    save(a_result(planned[4], metrics={"acc": 82.0}), folder)
    save(Failure(planned[7], "out of luck | really"), folder)
    diverged = {"status": "diverged", "diverged": Divergence(7, "nan")}
    save(a_result(planned[2], metrics={"acc": None}, **diverged), folder)
    save_plan(Plan(tuple(planned)), folder)
    return folder


def rows(page: str) -> dict[tuple[str, str], list[str]]:
    """(method, target) -> the entries of a row of the page's first table of metrics, names not
    stressed."""
    blocks = [block for block in page.split("\n\n") if block.startswith("| Method")]
    lines = next(b for b in blocks if "New per task" in b.splitlines()[0]).splitlines()
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(cells[0].strip("*"), cells[1]): cells for cells in split}


def test_cells_show_what_became_of_every_seed(tmp_path):
    page = write(fill(tmp_path / "suite"), figures=False).read_text()
    got = rows(page)
    assert got["dense", "100"][3:5] == ["91.0 ± 1.0 (3/3 at 100.00 %)", ""]
    assert got["movement", "10"][3:5] == ["81.0 ± 1.4 (2/3 at 10.00 %; 1 failed)", "-10.0"]
    assert got["movement", "3"][3:5] == ["1 diverged", "-"]
    assert got["constant answer", ""][3] == "50.0"
    assert "failed: t-movement-0.1-seed2" in page and "out of luck &#124; really" in page
    assert "diverged: t-movement-0.03-seed0" in page and "step 7 (value nan)" in page
    assert "not run yet: movement at 3 % on t, seed 1, 2" in page
    assert "6 results, 1 failed, 2 planned and not run yet" in page


def test_the_page_is_a_pure_function_of_the_files(tmp_path):
    folder = fill(tmp_path / "a" / "suite")
    first = write(folder).read_bytes()
    figures = {p.name: p.read_bytes() for p in (folder / "figures").iterdir()}
    assert write(folder).read_bytes() == first
    again = fill(tmp_path / "b" / "suite")
    for path in sorted(again.glob("*.json"), reverse=True):  # another order of directory entries
        path.write_bytes(path.read_bytes())
    assert write(again).read_bytes() == first
    assert {p.name: p.read_bytes() for p in (again / "figures").iterdir()} == figures
    names = {"tiny-mmmmmm-released-plain-quality.png", "tiny-mmmmmm-released-plain-seeds.svg"}
    assert names <= set(figures)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": "base"},
        {"model_sha": "other"},
        {"recipe": "paper"},
        {"distill": True},
        {"train": a_training(max_steps=5)},
        {"train": a_training(precision="bfloat16")},
        {"train": a_training(compile=True)},
        {"data_sha": "other"},
    ],
)
def test_what_differs_never_shares_a_table(tmp_path, change):
    folder = tmp_path / "suite"
    save(a_result(a_trial()), folder)
    save(a_result(a_trial(**change)), folder)
    board = collect(folder)
    assert len(board.tables) == 2
    assert [len(table.results) for table in board.tables] == [1, 1]


def test_two_files_of_one_plugin_have_two_rows(tmp_path):
    folder = tmp_path / "suite"
    for sha in ("a" * 64, "b" * 64):
        save(a_result(a_trial(method="mine", plugin_sha=sha)), folder)
    page = write(folder, figures=False).read_text()
    assert "mine (mine@aaaaaa)" in page and "mine (mine@bbbbbb)" in page


def test_seeds_with_other_settings_are_separate_rows(tmp_path):
    """Neither the method's nor the teacher's: they are never averaged, in whatever cell they are."""
    folder = tmp_path / "suite"
    for seed, stop in ((0, 0.5), (1, 0.5), (0, 0.9)):
        save(a_result(a_trial(seed=seed, hyper={"start": 0.1, "stop": stop})), folder)
    table = collect(folder).tables[0]
    assert sorted(len(table.of_row(row)) for row in table.rows) == [1, 2]
    assert len({row.variant for row in table.rows}) == 2 and all(row.variant for row in table.rows)

    folder = tmp_path / "distilled"
    for rate in (1e-3, 2e-3):
        train = a_training(lr_weights=rate)
        dense = a_trial(method="dense", density=1.0, hyper={}, train=train)
        save(a_result(dense), folder)
        save(a_result(a_trial(distill=True, teacher=dense.id)), folder)
    assert all(len(table.rows) == 2 for table in collect(folder).tables)


def test_the_table_with_distillation_shows_its_teacher(tmp_path):
    folder = tmp_path / "suite"
    save(a_result(a_trial(method="dense", density=1.0, hyper={}), metrics={"acc": 90.0}), folder)
    save(a_result(a_trial(distill=True), metrics={"acc": 85.0}), folder)
    page = write(folder, figures=False).read_text()
    distilled = rows(page[page.index("with distillation") :])
    assert distilled["dense", "100"][3] == "90.0 (1/1 at 100.00 %)"
    assert distilled["movement", "10"][3:5] == ["85.0 (1/1 at 10.00 %)", "-5.0"]


def test_a_metric_that_is_undefined_at_the_last_step_stops_no_page(tmp_path):
    folder = tmp_path / "suite"
    best = Best(2, 150, {"pearson": 70.0})
    first = Point(150, 0.1, 0.5, remaining=0.1, metrics=best.metrics)
    for density, last in ((0.1, None), (0.03, 71.0)):
        got = a_result(a_trial(density=density), metrics={"pearson": last}, best=best, majority={})
        save(replace(got, curve=(first, *got.curve)), folder)
    page = write(folder).read_text()
    assert rows(page)["movement", "10"][3] == "1 undefined"


def test_a_mean_whose_interval_reaches_the_constant_answer_is_flagged(tmp_path):
    folder = tmp_path / "suite"
    for seed, (low, high) in enumerate(((50.9, 51.0), (51.2, 51.0))):
        save(a_result(a_trial(seed=seed), metrics={"acc": low}), folder)
        save(a_result(a_trial(seed=seed, density=0.03), metrics={"acc": high}), folder)
    got = rows(write(folder, figures=False).read_text())
    assert got["movement", "10"][3] == "51.0 ± 0.2 (2/2 at 10.00 %) ▽"  # 49.1 to 53.0
    assert got["movement", "3"][3] == "51.0 ± 0.0 (2/2 at 3.00 %)"


def test_measured_remaining_weights_are_a_range_where_they_differ(tmp_path):
    folder = tmp_path / "suite"
    for seed, density in enumerate((0.0990, 0.101)):
        trial = a_trial(method="l0", seed=seed)
        save(a_result(trial, remaining=a_remaining(density)), folder)
    assert rows(write(folder, figures=False).read_text())["l0", "10"][2] == "9.90 to 10.10"


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "`code`",
        "a\nb",
        "\u202ex",
        "**x**",
    ],
)
def test_names_change_no_column_tag_or_link(tmp_path, text):
    folder = tmp_path / "suite"
    save(a_result(facts=MethodFacts(label=text), notes=(text,)), folder)
    save(Failure(a_trial(seed=1), text), folder)
    page = write(folder, figures=False).read_text()
    for table in page.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert "<img" not in page and "](javascript" not in page and "\u202e" not in page
    assert "\n" not in plain_text(text)


def test_diverged_seeds_are_in_no_measured_column(tmp_path):
    folder = tmp_path / "suite"
    save(a_result(a_trial(seed=0)), folder)
    lost = {"status": "diverged", "diverged": Divergence(3, "nan"), "remaining": a_remaining(0.7)}
    save(a_result(a_trial(seed=1), metrics={"acc": None}, **lost), folder)
    assert rows(write(folder, figures=False).read_text())["movement", "10"][2] == "10.00"


def test_one_model_under_two_names_is_one_table(tmp_path):
    folder = tmp_path / "suite"
    save(a_result(a_trial(seed=0, model="here")), folder)
    elsewhere = tuple(a_trial(seed=seed, model="there") for seed in (0, 1))
    save_plan(Plan(elsewhere), folder)
    (table,) = collect(folder).tables
    assert [group.missing for group in table.groups.values()] == [[1]]


def test_an_unreadable_file_is_named(tmp_path):
    folder = fill(tmp_path / "suite")
    (folder / "t-x.json").write_text("{")
    page = write(folder, figures=False).read_text()
    assert "Warning: t-x.json cannot be read" in page


def test_an_empty_folder_gives_a_page(tmp_path):
    (tmp_path / "suite").mkdir()
    assert "0 results" in write(tmp_path / "suite").read_text()


def test_a_table_can_be_run_again(tmp_path):
    page = write(fill(tmp_path / "suite"), figures=False).read_text()
    expected = (
        "python run_benchmark.py --suite suite --scale tiny --recipe released --distill off"
        " --methods dense,movement --densities 0.1,0.03 --tasks t --seeds 0,1,2"
    )
    assert expected in page
    other = a_trial(train=a_training(precision="bfloat16", compile=True))
    save(a_result(other), tmp_path / "suite")
    page = write(tmp_path / "suite", figures=False).read_text()
    assert "--seeds 0 --precision bfloat16 --compile\n" in page
    assert "trained in bfloat16, compiled" in page


def test_a_command_cannot_end_its_block_of_code():
    assert in_a_fence("--model 'a```b\n# c'") == "--model 'a'''b?# c'"


def test_amounts():
    assert [amount(n) for n in (950, 12_300, 109_482_240)] == ["0.9k", "12.3k", "109.48M"]
    assert math.isclose(float(amount(2_654_208)[:-1]), 2.65)


def test_the_command_needs_no_torch_and_no_ray(tmp_path):
    folder = fill(tmp_path / "suite")
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'ray', 'transformers', 'datasets'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from leaderboard.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "LEADERBOARD.md").exists()
    assert not (folder / "LEADERBOARD.md").exists()


def test_a_check_says_what_is_not_up_to_date(tmp_path, capsys):
    from leaderboard.__main__ import main

    folder = fill(tmp_path / "suite")
    assert main([str(folder)]) == 0
    assert main([str(folder), "--check"]) == 0
    assert main([str(folder), "--check", "--reference", "movement"]) == 0  # it is the default
    capsys.readouterr()
    save(a_result(a_trial(seed=1, density=0.03)), folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main([str(folder), "--check"]) == 6
    said = capsys.readouterr().err
    assert "LEADERBOARD.md" in said and "are not what the result files give" in said
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_pixel_of_difference_is_not_out_of_date(tmp_path, capsys):
    """Another processor rounds a colour differently; the SVG beside the PNG is compared instead."""
    from PIL import Image

    from leaderboard.__main__ import main

    folder = fill(tmp_path / "suite")
    assert main([str(folder)]) == 0
    (png,) = (folder / "figures").glob("*-quality.png")
    image = Image.open(png)
    image.putpixel((5, 5), (1, 2, 3, 255))
    image.save(png)
    assert main([str(folder), "--check"]) == 0
    svg = png.with_suffix(".svg")
    svg.write_text(svg.read_text().replace("movement", "moved", 1))
    capsys.readouterr()
    assert main([str(folder), "--check"]) == 6
    assert "-quality.svg" in capsys.readouterr().err


def test_another_machines_settings_change_no_file(tmp_path):
    """Fonts, locale, time zone and matplotlib's settings of another machine."""
    folder = fill(tmp_path / "suite")
    write(folder)
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.family: serif\nfont.size: 20\nsvg.fonttype: none\naxes.grid: True\n")
    elsewhere = {
        "MATPLOTLIBRC": str(settings),
        "LC_ALL": "C",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "3",
    }
    command = [sys.executable, "-m", "leaderboard", str(folder), "--check"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_page_alone_is_written_and_checked(tmp_path, capsys):
    from leaderboard.__main__ import main

    folder = fill(tmp_path / "suite")
    assert main([str(folder), "--page-only"]) == 0
    written = {p.name for p in folder.iterdir() if p.suffix != ".json"}
    assert written == {"LEADERBOARD.md", "COSTS.md"}
    assert "(COSTS.md)" in (folder / "LEADERBOARD.md").read_text()
    assert main([str(folder), "--check"]) == 0
    (folder / "LEADERBOARD.md").unlink()
    assert main([str(folder), "--check"]) == 6


def test_a_missing_folder_is_named(tmp_path, capsys):
    from leaderboard.__main__ import main

    assert main([str(tmp_path / "absent")]) == 2
    assert "is not a folder of results" in capsys.readouterr().err


def test_one_file_without_facts_changes_no_others(tmp_path):
    """A field with a default may be missing; the others of the method still state it."""
    folder = tmp_path / "s"
    for seed in range(3):
        facts = MethodFacts() if seed == 2 else MethodFacts(family="controls", teaches=True)
        dense = a_trial(method="mine", density=1.0, hyper={}, seed=seed)
        save(a_result(dense, facts=facts), folder)
    (table,) = collect(folder).tables
    assert table.teacher is not None and table.facts["mine"].family == "controls"


def test_a_caveat_stays_without_a_plan(tmp_path):
    environment = Environment({}, "cpu", caveat="only a laboratory")
    save(a_result(environment=environment), tmp_path / "s")
    assert "only a laboratory" in write(tmp_path / "s", figures=False).read_text()


def test_unknown_conditions_have_a_table_of_their_own(tmp_path):
    """A later version's condition is not known here; its trials never join others."""
    folder = tmp_path / "s"
    save(a_result(a_trial()), folder)
    train = replace(a_training(), extra={"sparse_kernels": "on"})
    save(a_result(a_trial(train=train)), folder)
    tables = collect(folder).tables
    assert len(tables) == 2 and "sparse_kernels on" in write(folder, figures=False).read_text()


@pytest.mark.parametrize("text", ["x", "1000000000000:AA==", "9:AA=="])
def test_bits_that_are_none_make_a_result_unreadable(tmp_path, text):
    path = save(a_result(), tmp_path / "s")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "correct": {"validation": text}}))
    page = write(tmp_path / "s", figures=False).read_text()
    assert "correct.validation holds no bits" in page


def test_a_method_that_lost_every_weight_stops_no_page(tmp_path):
    folder = tmp_path / "s"
    save(a_result(a_trial(method="l0"), remaining=a_remaining(0.0)), folder)
    assert write(folder).exists()


def test_every_trial_and_metric_is_a_row_of_one_table(tmp_path):
    folder = fill(tmp_path / "suite")
    write(folder, figures=False)
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 6
    one = next(r for r in found if r["id"].startswith("t-movement-0.1-seed0"))
    assert (one["method"], one["density"], one["kept"], one["seed"]) == (
        "movement",
        "0.1",
        "0.1",
        "0",
    )
    assert (one["metric"], one["value"], one["status"], one["distilled"]) == (
        "acc",
        "80.0",
        "ok",
        "no",
    )
    assert [r["value"] for r in found if r["status"] == "diverged"] == [""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "movment"], "unknown reference 'movment'; did you mean 'movement'?"),
        (["--reference", "dense"], "unknown reference 'dense'"),
    ],
)
def test_an_unknown_reference_is_an_error(tmp_path, capsys, arguments, message):
    assert main([str(fill(tmp_path / "s")), "--page-only", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no results; give a suite's folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_methods_that_were_not_judged_apart_are_named(tmp_path):
    own = a_trial(method="mine", plugin_sha="1" * 64)
    said = Judgement(apart=False, claims={"acc": 80.0}, reason="its head is a plugin's own code")
    save(a_result(own, judgement=said), tmp_path)
    save(a_result(a_trial(), judgement=Judgement(apart=True, claims={"acc": 80.0})), tmp_path)
    page = write(tmp_path).read_text()
    assert "Not judged apart from training: mine (its head is a plugin's own code)." in page
    save(a_result(own), tmp_path)
    assert (
        "Not judged apart from training: mine (older than the judge)."
        in write(tmp_path).read_text()
    )


def test_seeds_that_pruned_one_dense_model_are_told(tmp_path):
    """Of every seed its own says nothing."""
    for seed in (0, 1):
        of_one, of_each = f"sst2-dense-1-seed0-{'a' * 12}", f"sst2-dense-1-seed{seed}-{'b' * 12}"
        save(a_result(a_trial(method="movement", seed=seed, teacher=of_one)), tmp_path)
        save(a_result(a_trial(method="magnitude", seed=seed, teacher=of_each)), tmp_path)
    assert "All seeds pruned one dense model: movement. Their spread" in write(tmp_path).read_text()

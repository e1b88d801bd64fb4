"""The command line: its options are fixed, and every wrong input gets a line and an exit code."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.helpers import save_checkpoint, write_parquet
from zoo.inputs.hub import TIMEOUT
from zoo.runs.command import make_parser
from zoo.runs.judging import Judge

ROOT = Path(__file__).resolve().parent.parent


def test_the_options_are_fixed():
    options = {o for action in make_parser()._actions for o in action.option_strings}
    assert options == {
        *("--checkpoint-minutes", "--trial-timeout"),
        *("--suite", "--scale", "--model", "--data-dir", "--tasks", "--methods", "--densities"),
        *("--seeds", "--distill", "--recipe", "--plugin", "--results", "--executor", "--jobs"),
        *("--gpus-per-trial", "--cpus-per-trial", "--max-steps", "--precision", "--compile"),
        *("--tune", "--search", "--save", "--latency", "--beside"),
        *("--dry-run", "--list"),
        *("-h", "--help"),
    }


@pytest.fixture
def local(checkpoint, sst2):
    """Options of a suite on the small checkpoint and data."""
    return (
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)),
        *("--tasks", "sst2", "--methods", "dense,movement", "--seeds", "0"),
    )


def fails(run, *options, code=2):
    """Run a command that must fail with a single line; returns the line."""
    got, out, err = run(*options)
    assert got == code, err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert "Traceback" not in out + err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--suite", "hihg_sparsity"],
            "unknown suite 'hihg_sparsity'; did you mean 'high_sparsity'?",
        ),
        (
            ["--suite", "smoke", "--methods", "movment"],
            "unknown method 'movment'; did you mean 'movement'?",
        ),
        (["--suite", "smoke", "--tasks", "mnly"], "unknown task 'mnly'; did you mean 'mnli'?"),
        (["--suite", "smoke", "--scale", "tny"], "unknown scale 'tny'; did you mean 'tiny'?"),
        (
            ["--suite", "smoke", "--recipe", "papre"],
            "argument --recipe: invalid choice: 'papre' (choose from",
        ),
        (
            ["--suite", "smoke", "--distill", "yes"],
            "argument --distill: invalid choice: 'yes' (choose from",
        ),
        (
            ["--suite", "smoke", "--precision", "bfloat"],
            "argument --precision: invalid choice: 'bfloat' (choose from",
        ),
        (["--sute", "smoke"], "unknown option '--sute'; did you mean '--suite'?"),
        (
            ["--suite", "smoke", "--gpus-per-trial", "1"],
            "--gpus-per-trial belongs to --executor ray; inline uses what torch sees",
        ),
        (["--suite", "smoke", "--model", ""], "argument --model: is empty; give a folder"),
        (["--suite"], "argument --suite: expected one argument"),
        ([], "give --suite NAME; --list shows the suites"),
        (
            ["--suite", "smoke", "--densities", "10"],
            "must be in (0, 1], got 10.0; did you mean 0.1?",
        ),
        (["--suite", "smoke", "--densities", "0"], "must be in (0, 1], got 0.0"),
        (["--suite", "smoke", "--densities", "-0.1"], "must be in (0, 1], got -0.1"),
        (["--suite", "smoke", "--densities", "nan"], "must be in (0, 1], got nan"),
        (
            ["--suite", "smoke", "--densities", "3%"],
            "argument --densities: must be fractions such as 0.5,0.1, got '3%'",
        ),
        (
            ["--suite", "smoke", "--seeds", "a"],
            "argument --seeds: must be whole numbers such as 0,1,2, got 'a'",
        ),
        (["--suite", "smoke", "--seeds", "1.5"], "argument --seeds: must be whole numbers"),
        (["--suite", "smoke", "--seeds", "-1"], "--seeds must be 0 or more, got -1"),
        (
            ["--suite", "smoke", "--max-steps", "0"],
            "argument --max-steps: must be a whole number of at least 1",
        ),
        (
            ["--suite", "smoke", "--cpus-per-trial", "x"],
            "argument --cpus-per-trial: must be a whole number",
        ),
        (
            ["--suite", "smoke", "--jobs", "0"],
            "argument --jobs: must be a whole number of at least 1",
        ),
        (
            ["--suite", "smoke", "--gpus-per-trial", "-1"],
            "argument --gpus-per-trial: must be a number of at least 0",
        ),
    ],
)
def test_a_wrong_option_is_rejected(run, options, message):
    assert message in fails(run, *options)


def test_an_unknown_executor_is_rejected(capsys):
    from run_benchmark import main

    assert main(["--suite", "smoke", "--executor", "rayy"]) == 2
    assert "argument --executor: invalid choice: 'rayy'" in capsys.readouterr().err


def test_jobs_belong_to_inline(capsys):
    from run_benchmark import main

    assert main(["--suite", "smoke", "--jobs", "4"]) == 2
    error = "error: --jobs belongs to --executor inline; ray fills the machine by itself\n"
    assert capsys.readouterr().err == error


def test_wrong_options_are_found_before_anything_is_loaded():
    """Neither ray nor data sets nor figures: the check is quick."""
    code = (
        "import sys; from run_benchmark import main;"
        "code = main(['--suite', 'smok']);"
        "loaded = {'ray', 'datasets', 'evaluate', 'matplotlib.pyplot'} & set(sys.modules);"
        "sys.exit(code if not loaded else str(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr


def test_a_schedule_that_does_not_fit_is_rejected(run, local):
    line = fails(run, *local, "--max-steps", "1")
    assert "the schedule cannot fit 1 steps" in line and "give at least" in line


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [5] * 48}, "train.parquet: column 'label', row 0: got 5; expected 0 to 1"),
        ({"label": [-1] * 48}, "got -1; expected 0 to 1"),
        ({"label": [None] * 48}, "got None; expected 0 to 1"),
        ({"label": ["1"] * 48}, "got '1'; expected 0 to 1"),
        ({"sentence": ["cat", None] * 24}, "column 'sentence', row 1: got None; expected a text"),
        ({"sentence": [7] * 48}, "column 'sentence', row 0: got 7; expected a text"),
    ],
)
def test_malformed_rows_are_rejected_before_anything_is_planned(run, local, sst2, columns, message):
    columns = {"sentence": ["great cat"] * 48, "label": [0, 1] * 24} | columns
    write_parquet(sst2 / "glue/sst2/train.parquet", columns)
    assert message in fails(run, *local)
    assert not list((sst2.parent / "results").glob("*/plan-*"))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (None, "row 0: expected at least one text with a start"),
        ({"text": [], "answer_start": []}, "row 0: expected at least one text with a start"),
        ({"text": ["dog"], "answer_start": [90]}, "answer_start 90 is outside its context"),
        (
            {"text": ["dog"], "answer_start": [0]},
            "12 of 12 answers are not where answer_start says",
        ),
    ],
)
def test_malformed_answers_are_rejected(run, local, tmp_path, answers, message):
    columns = {"context": ["cat dog"] * 12, "question": ["dog"] * 12, "answers": [answers] * 12}
    for split in ("train", "validation"):
        write_parquet(tmp_path / "data" / "squad" / f"{split}.parquet", columns)
    assert message in fails(run, *local, "--tasks", "squad", "--methods", "dense")


def test_a_missing_column_is_named(run, local, sst2):
    write_parquet(sst2 / "glue/sst2/train.parquet", {"text": ["a"], "label": [0]})
    line = fails(run, *local)
    assert (
        "train.parquet has no column 'sentence'; expected sentence, label, found text, label"
        in line
    )


def test_an_empty_split_is_rejected(run, local, sst2):
    import pyarrow

    empty = {
        "sentence": pyarrow.array([], pyarrow.string()),
        "label": pyarrow.array([], pyarrow.int64()),
    }
    write_parquet(sst2 / "glue/sst2/validation.parquet", empty)
    assert "validation.parquet has no rows; expected at least one" in fails(run, *local)


def test_a_missing_file_and_a_file_that_is_no_parquet_are_named(run, local, sst2):
    path = sst2 / "glue/sst2/train.parquet"
    path.write_bytes(b"hello")
    assert "train.parquet cannot be read as parquet" in fails(run, *local)
    path.unlink()
    line = fails(run, *local)
    assert "train.parquet is missing; expected parquet with the columns sentence, label" in line


def test_a_task_runs_without_one_of_its_evaluation_sets(run, checkpoint, tmp_path):
    columns = {"premise": ["a cat"] * 12, "hypothesis": ["a dog"] * 12, "label": [0, 1, 2] * 4}
    for split in ("train", "validation_matched"):
        write_parquet(tmp_path / "data" / "glue" / "mnli" / f"{split}.parquet", columns)
    code, out, err = run(
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(tmp_path / "data")),
        *("--tasks", "mnli", "--methods", "dense"),
    )
    assert code == 0, err
    assert "mnli: no validation_mismatched set here, its metric is missing" in out
    assert "mnli: train has 12 of 392,702 rows" in out
    page = (tmp_path / "results/smoke/LEADERBOARD.md").read_text()
    assert "train has 12 of 392,702 rows" in page and "acc_mm" not in page


def test_a_label_word_that_is_not_a_single_token_is_rejected(run, local, tmp_path):
    odd = save_checkpoint(tmp_path / "odd", words=["cat", "dog"])
    options = [*local, "--model", str(odd), "--methods", "smp_l"]
    assert "task sst2: label word 'terrible' is ['[UNK]'] for the tokeniser of odd" in fails(
        run, *options
    )


def test_penalties_that_are_not_known_are_rejected_together(run, local):
    line = fails(run, *local, "--methods", "soft_movement,l0")
    assert "method soft_movement on sst2: no run is known that gives its penalty" in line
    assert "method l0 on sst2" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_this\n", "mine.py:1: ModuleNotFoundError"),
        ("x = (\n", "mine.py:1: SyntaxError"),
        ("import sys\nsys.exit()\n", "mine.py:2: SystemExit"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_line(
    run, local, tmp_path, text, message
):
    (tmp_path / "mine.py").write_text(text)
    assert message in fails(run, *local, "--plugin", str(tmp_path / "mine.py"))


def test_a_plugin_that_takes_a_known_name_is_rejected(run, local, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from zoo import register_method\n@register_method('dense')\ndef f(density):\n    '''F.'''\n"
    )
    line = fails(run, *local, "--plugin", str(tmp_path / "mine.py"))
    assert "methods/controls.py:" in line and "mine.py:2" in line


BROKEN = '''
from dataclasses import replace
import torch
from methods.movement import movement
from zoo import register_method

def make(name, mask):
    @register_method(name, recipe="movement")
    def method(density, *, start, stop):
        """A method that breaks."""
        return replace(movement(density, start=start, stop=stop), mask=mask)

def boom(scores, level):
    raise RuntimeError("boom\\nwith a second line")

make("raises", boom)
make("wrong_shape", lambda scores, level: {k: v[:1] > 0 for k, v in scores.items()})
make("wrong_type", lambda scores, level: {k: 3 for k in scores})
make("wrong_values", lambda scores, level: {k: torch.full_like(v, 0.5) for k, v in scores.items()})
make("too_many", lambda scores, level: {k: torch.ones_like(v, dtype=torch.bool) for k, v in scores.items()})
make("quits", lambda scores, level: exit(0))

@register_method("never_made", recipe="dense")
def never_made(density):
    """  """
    raise KeyError("nothing")

@register_method("no_level", recipe="movement")
def no_level(density, *, start, stop):
    return replace(movement(density, start=start, stop=stop), level=lambda step, total: 1 / 0)
'''


def test_methods_that_raise_fail_alone(run, local, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    names = ("raises", "wrong_shape", "wrong_type", "wrong_values", "too_many", "quits")
    names += ("never_made", "no_level")
    options = [
        *local,
        "--plugin",
        str(tmp_path / "broken.py"),
        "--methods",
        ",".join((*names, "dense")),
    ]
    code, out, err = run(*options)
    assert code == 3 and not err
    for name, reason in (
        ("raises", "RuntimeError: boom with a second line"),
        ("wrong_shape", "must be a tensor of shape (32, 32), got (1, 32)"),
        ("wrong_type", "got int"),
        ("wrong_values", "must hold only 0 and 1, got 0.5"),
        ("too_many", "rejected: 100.00 % kept, allowed 10.00 %"),
        ("quits", "SystemExit: 0"),
        ("never_made", "broken.py:23): KeyError: 'nothing'"),
        ("no_level", "ZeroDivisionError: division by zero"),
    ):
        lines = [line for line in out.splitlines() if f"sst2-{name}-" in line]
        assert lines and all(
            reason in line for line in lines if "FAILED" in line or "failed:" in line
        )
    page = (tmp_path / "results/smoke/LEADERBOARD.md").read_text()
    assert "boom with a second line" in page and "1 failed" in page
    assert len(list((tmp_path / "results/smoke").glob("*.failed.json"))) == len(names)
    assert len([p for p in (tmp_path / "results/smoke").glob("sst2-dense-*.json")]) == 1


def test_a_method_without_recipe_is_rejected_with_the_choices(run, local, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from zoo import Method, register_method\n"
        "@register_method('mine')\ndef f(density):\n    return Method()\n"
    )
    line = fails(run, *local, "--plugin", str(tmp_path / "mine.py"), "--methods", "mine")
    assert "mine.py:2) has no recipe: register it with" in line
    assert "NAME one of dense," in line and "smp_l" in line


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("return {}['x'], {}", "KeyError: 'x'"),
        ("return {'batch': 8}, {}", "must return zoo.Value(value, source) for batch"),
        ("return None", "TypeError: "),
    ],
)
def test_a_recipe_that_fails_is_one_line(run, local, tmp_path, recipe, message):
    (tmp_path / "mine.py").write_text(
        f"from zoo import Method, register_method\ndef recipe(request):\n    {recipe}\n"
        "@register_method('mine', recipe=recipe)\ndef f(density):\n    return Method()\n"
    )
    line = fails(run, *local, "--plugin", str(tmp_path / "mine.py"), "--methods", "mine")
    assert "the recipe of method mine (" in line and message in line


OWN_RECIPE = """
from zoo import Method, Value, register_method
from methods.movement import movement_recipe
def recipe(request):
    train, hyper = movement_recipe(request)
    {change}
    return train, {{}}
@register_method("mine", recipe=recipe)
def mine(density):
    return Method()
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train['lr_wieghts'] = Value(1, '')", "training value 'lr_wieghts'; did you mean 'lr_wei"),
        ("return train, {'strat': Value(1, '')}", "its recipe gives strat, which its factory"),
        ("return {'batch': Value(8, '')}, {}", "must give warmup, lr_weights, lr_head, lr_scores"),
    ],
)
def test_the_names_of_a_recipe_are_checked(run, local, tmp_path, change, message):
    (tmp_path / "mine.py").write_text(OWN_RECIPE.format(change=change))
    line = fails(run, *local, "--plugin", str(tmp_path / "mine.py"), "--methods", "mine")
    assert "method mine (" in line and "mine.py:" in line and message in line


def test_a_recipe_without_chosen_rates_keeps_its_own_in_the_laboratory(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        OWN_RECIPE.format(change="train['lr_head'] = Value(0.05, 'me')")
    )
    options = ["--plugin", str(tmp_path / "mine.py"), "--methods", "mine", "--tasks", "tiny_span"]
    _, out, _ = run("--suite", "smoke", *options, "--dry-run")
    assert re.search(r"lr_head +0\.05 +me", out) and re.search(r"batch +32 +ours", out)


BAD_VALUES = """
from zoo import Cell, Method, OURS, Scale, Value, register_method, register_scale, register_suite
from methods.movement import movement_recipe
def recipe(request):
    train, hyper = movement_recipe(request)
    return train, {"x": Value(float("nan"), OURS)}
@register_method("not_a_number", recipe=recipe)
def not_a_number(density, x):
    return Method()
def recipe2(request):
    train, hyper = movement_recipe(request)
    return {**train, "batch": Value(8, 5)}, {}
@register_method("source_is_a_number", recipe=recipe2)
def source_is_a_number(density):
    return Method()
@register_suite("a_list")
def a_list(scale, **given):
    return [Cell("dense", "sst2", 1.0, False, 0, (("betas", [0.8, 0.98]),))]
@register_suite("seed_is_a_text")
def seed_is_a_text(scale, **given):
    return [Cell("dense", "sst2", 1.0, False, "0")]
@register_suite("a_dict")
def a_dict(scale, **given):
    return [Cell("dense", "sst2", 1.0, False, 0, (("betas", {"first": 0.8}),))]
@register_suite("times_alone")
def times_alone(scale, **given):
    return [Cell("kwon", "sst2", 0.5, False, 0, (("heads_each", 0.7),))]
@register_suite("no_cells")
def no_cells(scale, **given):
    return ["dense"]
@register_scale("no_scale")
def no_scale():
    return 5
"""


def test_values_that_cannot_be_written_down_are_rejected(run, local, tmp_path):
    """Before a trial runs, since its result could not be read back."""
    (tmp_path / "v.py").write_text(BAD_VALUES)
    plugin = (*local[2:], "--plugin", str(tmp_path / "v.py"))
    for name in ("not_a_number", "source_is_a_number"):
        line = fails(run, "--suite", "smoke", *plugin, "--methods", name)
        assert f"method {name} (" in line and "a value cannot be written down" in line
    data = plugin[:4]
    assert "seed is '0', not a whole number" in fails(run, "--suite", "seed_is_a_text", *data)
    assert "must return a list of zoo.Cell, got 'dense'" in fails(run, "--suite", "no_cells", *data)
    said = fails(run, "--suite", "a_dict", *data)
    assert "cell of 'dense': values are numbers, texts or lists of them" in said
    said = fails(run, "--suite", "times_alone", *data)
    assert "heads_each: times count with constraint='latency' alone" in said
    assert "must return a zoo.Scale" in fails(run, "--suite", "smoke", "--scale", "no_scale")
    code, *_ = run("--suite", "a_list", *data, "--max-steps", "1")
    assert code == 0


BAD_TASKS = """
from dataclasses import replace
from zoo import register_task
from tasks.glue import sst2
@register_task("raises", recipes_of="sst2")
def raises():
    raise RuntimeError("not today")
@register_task("no_split", recipes_of="sst2")
def no_split():
    return replace(sst2(), name="no_split", evaluation=("dev",))
@register_task("other_metric", recipes_of="sst2")
def other_metric():
    return replace(sst2(), name="other_metric", metrics=("f1",))
"""


def test_faults_of_a_task_are_said(run, local, tmp_path):
    (tmp_path / "t.py").write_text(BAD_TASKS)
    plugin = (*local, "--plugin", str(tmp_path / "t.py"), "--methods", "dense")
    line = fails(run, *plugin, "--tasks", "raises")
    assert "task raises (" in line and "t.py:5): RuntimeError: not today" in line
    assert "reads the split train and one of dev; its data has" in fails(
        run, *plugin, "--tasks", "no_split"
    )
    code, out, _ = run(*plugin, "--tasks", "other_metric", "--max-steps", "1")
    assert code == 3 and "unknown metric of task other_metric 'acc'" in out


def test_a_plan_says_which_methods_will_fail(run, local, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from zoo import register_method\n"
        "@register_method('mine', recipe='dense')\ndef f(density):\n    raise OSError('oh')\n"
    )
    plugin = ("--plugin", str(tmp_path / "mine.py"), "--methods", "mine", "--dry-run")
    code, out, _ = run(*local, *plugin)
    assert code == 0
    assert re.search(r"warning: method mine .*mine.py:2.: OSError: oh; its trials will fail", out)


def test_a_plugin_is_a_file(run, local):
    assert "give the path of a .py file" in fails(run, *local, "--plugin", "my_module")


def test_results_name_no_folders_of_this_machine(run, local, tmp_path):
    """Absolute paths are shortened to their last name, in results and on pages."""
    code, *_ = run(*local, "--methods", "dense", "--seeds", "0", "--max-steps", "1")
    assert code == 0
    for path in (tmp_path / "results").rglob("*"):
        if path.suffix in (".json", ".md", ".html") and ".cache" not in path.parts:
            assert str(tmp_path) not in path.read_text(), path.name


SUITES = """
from zoo import grid, register_suite
@register_suite("misspelt")
def misspelt(scale, **given):
    return grid(scale, given, method=("dense",), densities=(0.1,))
@register_suite("raises")
def raises(scale, **given):
    raise RuntimeError("no cells today")
@register_suite("without_axes")
def without_axes(scale):
    return []
"""


def test_suites_that_raise_are_named(run, tmp_path):
    (tmp_path / "s.py").write_text(SUITES)
    plugin = ("--plugin", str(tmp_path / "s.py"), "--seeds", "0")
    assert "s.py:6): RuntimeError: no cells today" in fails(run, "--suite", "raises", *plugin)
    assert "unknown axis 'method'; did you mean 'methods'?" in fails(run, "--suite", "misspelt")
    assert "unexpected keyword argument 'seeds'" in fails(run, "--suite", "without_axes", *plugin)


def test_the_page_is_complete_without_masks_and_without_figures(run, local, tmp_path, monkeypatch):
    (tmp_path / "plain.py").write_text(
        "from zoo import Method, register_method\n"
        "@register_method('my_first', recipe='dense')\ndef f(density, **hyper):\n    return Method()\n"
    )
    options = (*local, "--plugin", str(tmp_path / "plain.py"), "--methods", "dense,my_first")
    assert run(*options)[0] == 0
    page = tmp_path / "results/smoke/LEADERBOARD.md"
    assert "| my_first " in page.read_text() and "could not be drawn" not in page.read_text()

    import leaderboard.files

    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(leaderboard.files, "draw", broken)
    assert run(*options)[0] == 0
    assert "The figures could not be drawn: RuntimeError: no ink" in page.read_text()
    assert "| my_first " in page.read_text()


def test_a_model_without_a_tokeniser_is_rejected(run, local, tmp_path):
    bare = save_checkpoint(tmp_path / "bare")
    for file in ("vocab.txt", "tokenizer.json"):
        (bare / file).unlink()
    assert "no tokeniser in it; expected tokenizer.json" in fails(run, *local, "--model", str(bare))


def test_a_model_of_few_positions_shortens_the_input(run, local, tmp_path):
    assert run(*local, "--methods", "dense")[0] == 0
    (path,) = (tmp_path / "results/smoke").glob("sst2-dense-*.json")
    assert json.loads(path.read_text())["trial"]["train"]["max_length"] == 64  # not 128


def test_a_teacher_runs_again_only_for_students_that_are_to_run(run, local, tmp_path):
    options = (*local, "--distill", "on")
    assert "2 to run" in run(*options)[1]
    shutil.rmtree(tmp_path / "results" / ".cache")
    assert "2 done, 0 to run" in run(*options)[1]
    out = run(*options, "--densities", "0.1,0.5")[1]
    assert "1 done, 2 to run" in out and "runs again, students need its outputs" in out


DIVERGES = '''
import torch
from zoo import LossTerm, Method, register_method, task_loss

class Blow:
    steps = 0
    def __call__(self, step):
        self.steps += 1
        return task_loss(step) * (float("nan") if self.steps > 3 else 1.0)

@register_method("diverges", prunes=False, recipe="dense")
def diverges(density):
    """Its loss is not a number at the fourth step."""
    return Method(losses=(LossTerm(Blow()),))
'''


def test_a_loss_that_is_not_finite_is_a_result(run, local, tmp_path):
    (tmp_path / "d.py").write_text(DIVERGES)
    options = [*local, "--plugin", str(tmp_path / "d.py"), "--methods", "diverges,dense"]
    code, out, _ = run(*options)
    assert code == 0
    assert "diverged: sst2-diverges-1-seed0" in out and "at step 3" in out
    (path,) = (tmp_path / "results/smoke").glob("sst2-diverges-*.json")
    content = json.loads(path.read_text())
    assert content["status"] == "diverged" and content["diverged"] == {"step": 3, "value": "nan"}
    assert content["metrics"] == {"acc": None}
    assert "1 diverged" in (tmp_path / "results/smoke/LEADERBOARD.md").read_text()
    assert "0 to run" in run(*options)[1]


def test_a_results_folder_that_cannot_be_written_is_an_error(local, tmp_path, capsys):
    from run_benchmark import main

    (tmp_path / "file").write_text("in the way")
    code = main([*local, "--executor", "inline", "--results", str(tmp_path / "file")])
    err = capsys.readouterr().err
    assert code == 4 and err.startswith("error: cannot write") and str(tmp_path / "file") in err
    assert len(err.strip().splitlines()) == 1


def test_a_full_disk_loses_no_finished_trial(run, local, tmp_path, monkeypatch):
    ask, asked = Judge.ask, []

    def full(judge, request):
        asked.append(request)
        full = len(asked) > 1
        return (
            {"storage_error": "x: No space left on device; finished trials are safe"}
            if full
            else ask(judge, request)
        )

    monkeypatch.setattr(Judge, "ask", full)
    line = fails(run, *local, code=4)
    assert "No space left on device; finished trials are safe" in line
    monkeypatch.undo()
    code, out, _ = run(*local)
    assert code == 0 and "2 trials: 1 done, 1 to run" in out


def test_an_unreadable_result_is_named_and_kept(run, local, tmp_path):
    assert run(*local)[0] == 0
    (path,) = (tmp_path / "results/smoke").glob("sst2-movement-*.json")
    path.write_text("{ not json")
    code, out, _ = run(*local, "--dry-run")
    assert code == 0 and path.read_text() == "{ not json"
    code, out, _ = run(*local)
    assert code == 0
    assert f"{path.name} cannot be read" in out and "its trial is run again" in out
    assert "2 trials: 1 done, 1 to run" in out
    assert path.with_name(path.name + ".unreadable").read_text() == "{ not json"
    assert json.loads(path.read_text())["status"] == "ok"


def test_a_result_that_contradicts_itself_is_run_again(run, local, tmp_path):
    """Its bits say another accuracy; a file of somebody else's has no checksum."""
    assert run(*local)[0] == 0
    (path,) = (tmp_path / "results/smoke").glob("sst2-movement-*.json")
    content = json.loads(path.read_text())
    assert content["shares"] == {"validation": "acc"}
    honest = content["metrics"]["acc"]
    for metrics in (
        content["metrics"],
        content["best"]["metrics"],
        content["curve"][-1]["metrics"],
    ):
        metrics["acc"] = 99.5
    content["best"]["step"] = content["curve"][-1]["step"]
    del content["checksum"]
    path.write_text(json.dumps(content))
    code, out, _ = run(*local, "--dry-run")
    assert code == 0 and "metrics.acc is 99.5, but correct.validation has" in out
    assert run(*local)[0] == 0
    assert json.loads(path.read_text())["metrics"]["acc"] == honest
    assert json.loads(path.with_name(path.name + ".unreadable").read_text()) == content


def hub_command(results: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """A run that needs the hub, at this endpoint."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(results / "empty"),
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "run_benchmark.py", "--suite", "smoke", "--scale", "base"]
    return subprocess.run(
        [*command, "--results", str(results)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], float]:
    """A run whose hub cannot be reached, and its seconds."""
    start = time.monotonic()
    done = hub_command(tmp_path_factory.mktemp("hub"), "http://127.0.0.1:9")
    return done, time.monotonic() - start


def test_a_hub_that_cannot_be_reached_is_an_error_on_one_line(unreachable):
    done, _ = unreachable
    assert done.returncode == 5, done.stderr
    assert "cannot download model bert-base-uncased" in done.stderr
    assert "--model DIR and --data-dir DIR, or --scale tiny, work offline" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_hub_that_does_not_answer_is_given_up_soon(unreachable, tmp_path):
    """It accepts connections and stays silent. That takes only a few seconds more than a hub that
    cannot be reached."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: [server.accept() for _ in range(9)], daemon=True).start()
    start = time.monotonic()
    done = hub_command(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}")
    seconds = time.monotonic() - start
    server.close()
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert seconds - unreachable[1] < 2 * TIMEOUT + 3  # it is asked twice


def test_a_dry_run_shows_the_trials_and_runs_nothing(run, local, tmp_path):
    code, out, _ = run(*local, "--dry-run")
    assert code == 0
    assert out.count("to run  sst2-") == 2 and "cost of what is left" in out
    assert not (tmp_path / "results").exists()
    assert "with 3 workers (" in run(*local, "--dry-run", "--jobs", "3")[1]
    run(*local)
    out = run(*local, "--dry-run")[1]
    assert out.count("done    sst2-") == 2 and "from trials that ran" in out


def test_a_dry_run_shows_the_defaults_of_a_method(run, local):
    out = run(*local, "--methods", "smp_s", "--dry-run")[1]
    (power,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["power"]]
    assert power[1:3] == ["3", "SMP,"]  # given by the recipe
    (own,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["redistribute"]]
    assert own[1] == "no" and "default," in own


def test_a_fallback_to_another_head_is_noted(run, local, headless):
    note = "headless has no MLM head; the head is the paper's label_words, not the released"
    options = (*local, "--methods", "smp_l,movement", "--dry-run")
    assert note not in run(*options)[1]
    out = run(*options, "--model", str(headless))[1]
    assert note in out and "mlm_label_words (smp_l)" in out
    assert note not in run(*options, "--model", str(headless), "--recipe", "paper")[1]


def test_a_list_has_a_line_for_everything_and_methods_by_family(run):
    code, out, _ = run("--list")
    assert code == 0
    lines = out.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == ["methods", "tasks", "suites", "scales"]
    families = [line.strip() for line in lines if line[:2] == "  " and line[2] != " "]
    assert families[:2] == ["controls", "magnitude"]
    for name in ("movement", "smp_s", "mnli", "squad", "high_sparsity", "sweep", "tiny", "base"):
        (line,) = [line for line in lines if line.split()[:1] == [name] and line.strip() != name]
        assert len(line.split()) > 3 and len(line) < 130


def test_only_new_seeds_and_methods_are_run(run, local, sst2):
    assert "2 to run" in run(*local)[1]
    assert "2 done, 0 to run" in run(*local)[1]
    assert "2 done, 2 to run" in run(*local, "--seeds", "0,1")[1]
    out = run(*local, "--seeds", "0,1", "--methods", "dense,movement,magnitude")[1]
    assert "4 done, 2 to run" in out


def test_another_suite_takes_results_over(run, local, tmp_path):
    run(*local)
    code, out, _ = run(*local, "--suite", "sweep", "--densities", "0.1")
    assert code == 0 and out.count("taken over from smoke") == 2
    assert "2 done, 0 to run" in out
    assert len(list((tmp_path / "results/sweep").glob("sst2-*.json"))) == 2


def test_shortened_trials_have_a_table_of_their_own(run, local, tmp_path):
    run(*local)
    code, out, _ = run(*local, "--max-steps", "5")
    assert code == 0 and "SHORTENED to at most 5 steps" in out
    page = (tmp_path / "results/smoke/LEADERBOARD.md").read_text()
    assert page.count("\n## scale base") == 2
    assert "SHORTENED to at most 5 steps" in page


def test_another_precision_has_a_table_of_its_own(run, local, tmp_path):
    run(*local)
    code, out, _ = run(*local, "--precision", "bfloat16")
    assert code == 0 and "0 done, 2 to run" in out
    page = (tmp_path / "results/smoke/LEADERBOARD.md").read_text()
    assert page.count("\n## scale base") == 2 and "trained in bfloat16" in page
    assert "--precision bfloat16" in page  # in the command that runs it again

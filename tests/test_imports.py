"""Who imports whom: the direction is read from the source and held."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("zoo", "methods", "tasks", "leaderboard", "tests", "run_benchmark")
ALLOWED = {
    "zoo": {"zoo"},
    "methods": {"methods", "zoo"},
    "tasks": {"tasks", "zoo"},
    "leaderboard": {"leaderboard", "zoo"},
    "run_benchmark": {"leaderboard", "zoo"},
}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room):
    for path in files(room):
        used = {name.split(".")[0] for name in imports(path)} & set(ROOMS)
        assert used <= ALLOWED[room], f"{path.name} imports {used - ALLOWED[room]}"


def test_the_leaderboard_knows_of_the_zoo_only_records_and_errors():
    for path in files("leaderboard"):
        used = {name for name in imports(path) if name.startswith("zoo.")}
        assert {name.split(".")[1] for name in used} <= {"trial", "errors"}, path.name


def test_records_need_the_standard_library_alone():
    import sys

    for name in ("trial", "errors"):
        tops = {n.split(".")[0] for n in imports(ROOT / "zoo" / f"{name}.py")}
        assert tops <= {*sys.stdlib_module_names, "zoo"}


def test_ray_is_imported_in_one_file_and_inside_functions():
    users = {path.name for room in ALLOWED for path in files(room) if "ray" in imports(path)}
    assert users == {"launch.py"}
    for node in ast.parse((ROOT / "zoo" / "launch.py").read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "ray" not in ast.unparse(node)


def test_no_method_is_named_in_the_engine():
    """The loop and what it calls know no method; only what chooses, teaches or times names any."""
    from zoo.registry import methods

    names = {entry.name for entry in methods}
    for path in files("zoo"):
        if path.name in ("recipes.py", "suites.py", "plan.py", "calibrate.py", "bench.py"):
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & names, f"{path.name} names {strings & names}"


def test_the_reference_shares_nothing_with_what_it_checks():
    used = {name.split(".")[0] for name in imports(ROOT / "tests" / "reference.py")}
    assert not used & set(ROOMS)


def test_nothing_unsafe_is_called():
    """No pickle, no torch.load, no eval, no shell, no code from checkpoints."""
    forbidden = ("pickle", "torch.load(", "yaml.load(", "shell=True", "trust_remote_code")
    for room in ALLOWED:
        for path in files(room):
            text = path.read_text().replace("allow_pickle=False", "")
            for word in forbidden:
                assert word not in text, f"{path.name} has {word}"
            calls = [
                n.func.id
                for n in ast.walk(ast.parse(text))
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            ]
            assert not {"eval", "exec"} & set(calls), path.name

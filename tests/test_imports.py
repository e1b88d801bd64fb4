"""Who imports whom, and how long files and functions are: read from the source."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "zoo": {"zoo"},
    "methods": {"methods", "zoo"},
    "tasks": {"tasks", "zoo"},
    "leaderboard": {"leaderboard", "zoo"},
    "run_benchmark": {"leaderboard", "zoo"},
}
"""What each package may import of this project."""

SHARED = {"zoo.ends", "zoo.errors", "zoo.status", "zoo.registry", "zoo.plugins"}
"""Beside the rooms of the zoo: `errors` and `status` import nothing, `ends` errors, `registry` records and errors."""

ROOMS = {
    "records": {"errors"},
    "inputs": {"errors", "status", "records"},
    "kernels": {"errors", "inputs"},
    "parts": {"errors", "records", "inputs", "kernels"},
    "engine": {"errors", "status", "records", "inputs", "kernels", "parts", "registry", "plugins"},
    "runs": {
        *("ends", "errors", "status", "records", "inputs", "kernels", "parts", "engine"),
        *("registry", "plugins"),
    },
    "tools": {
        *("ends", "errors", "records", "inputs", "kernels", "parts", "engine", "runs"),
        *("registry", "plugins"),
    },
}
"""What each room of the zoo may import beside itself, in the direction of the data."""

LONGEST_FILE, LONGEST_FUNCTION = 320, 45


def files(package: str) -> list[Path]:
    """The source files of a package, or of a single module."""
    single = ROOT / f"{package}.py"
    return [single] if single.exists() else sorted((ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    """The full name of the module in a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCE = {module(path): path for package in ALLOWED for path in files(package)}


def imports(path: Path) -> set[str]:
    """Full names that a file imports, at the top or inside functions: modules, and names in them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of(path: Path) -> set[str]:
    """The modules of this project that a file imports; a package only where nothing in it is."""
    names = imports(path)
    deepest = {name for name in names if name in SOURCE}
    return {name for name in deepest if not any(n.startswith(f"{name}.") for n in deepest)}


def strings(tree: ast.AST) -> Iterator[str]:
    """Strings of the code, without docstrings."""
    told = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package):
    for path in files(package):
        used = {name.split(".")[0] for name in imports(path)} & {*ALLOWED, "tests"}
        assert used <= ALLOWED[package], f"{path.name} imports {used - ALLOWED[package]}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_lies_before_them(room):
    for path in files(f"zoo/{room}"):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("zoo.")}
        assert used <= {room, *ROOMS[room]}, f"{path.name} imports {used - ROOMS[room]}"
        assert "zoo" not in imports(path), f"{path.name} enters by the front door"


def test_every_file_of_the_zoo_is_in_a_room():
    beside = {name for name in SOURCE if name.count(".") == 1 and name.startswith("zoo.")}
    assert beside - {f"zoo.{room}" for room in ROOMS} == SHARED
    known = {"zoo.records.codec", "zoo.records.facts", "zoo.records.trial"}
    known |= {"zoo.parts.ranges", "zoo.errors"}
    assert modules_of(SOURCE["zoo.registry"]) == known


def test_there_is_no_circle():
    """`prepare` raises CycleError with the modules of a circle, imports inside functions too."""
    graph = {name: modules_of(path) - {name, "zoo"} for name, path in SOURCE.items()}
    TopologicalSorter(graph).prepare()


def test_the_leaderboard_knows_of_the_zoo_only_records_errors_and_ends():
    for path in files("leaderboard"):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("zoo.")}
        assert used <= {"records", "errors", "ends"}, path.name


def test_records_need_the_standard_library_alone():
    """But for arrays in results and files of masks, which are numpy's."""
    shared = [SOURCE[f"zoo.{name}"] for name in ("errors", "ends", "registry")]
    for path in (*files("zoo/records"), *shared):
        tops = {name.split(".")[0] for name in imports(path)}
        more = {"numpy"} if path.name in ("packed.py", "rans.py", "mask_file.py") else set()
        assert tops <= {*sys.stdlib_module_names, "zoo", *more}, path.name


def test_ray_is_imported_in_one_file_and_inside_functions():
    assert {name for name, path in SOURCE.items() if "ray" in imports(path)} == {
        "zoo.runs.ray_tune"
    }
    for node in ast.parse(SOURCE["zoo.runs.ray_tune"].read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "ray" not in [alias.name.split(".")[0] for alias in node.names]
            assert not (getattr(node, "module", "") or "").startswith("ray")


def test_the_zoo_names_no_method():
    """The code below `methods/` compares no method's name: what it must know of a method is a fact
    of its registration or part of its `Method`."""
    from zoo.registry import methods

    names = {entry.name for entry in methods}
    for path in files("zoo"):
        told = set(strings(ast.parse(path.read_text())))
        assert not told & names, f"{path.name} names {told & names}"
        assert not [text for text in told if text.startswith("smp")], path.name


def test_tasks_and_scales_are_named_only_by_tools_and_as_defaults_of_the_command_line():
    from zoo.registry import scales, tasks

    names = {entry.name for entry in tasks} | {entry.name for entry in scales}
    past = SOURCE["zoo.records.earlier"]  # converts results that said less about their scale
    exempt = {past, SOURCE["zoo.runs.command"], *files("zoo/tools")}
    for path in {*files("zoo"), *files("run_benchmark")} - exempt:
        told = set(strings(ast.parse(path.read_text()))) & names
        assert not told, f"{path.name} names {told}"


def test_the_second_implementation_shares_nothing_with_what_it_checks():
    path = ROOT / "tests" / "second_implementation.py"
    assert not {name.split(".")[0] for name in imports(path)} & {*ALLOWED, "tests"}


def test_files_and_functions_are_short():
    for name, path in SOURCE.items():
        lines = path.read_text().splitlines()
        assert len(lines) < LONGEST_FILE, f"{name} has {len(lines)} lines"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{name}.{node.name} has {length} lines"


def test_nothing_unsafe_is_called():
    """No pickle, no torch.load of anything but tensors, no eval, no shell, no code from
    checkpoints."""
    forbidden = ("pickle", "torch.load(", "yaml.load(", "shell=True", "trust_remote_code")
    for name, path in SOURCE.items():
        text = path.read_text().replace("allow_pickle=False", "")
        text = re.sub(r"torch\.load\([^()]*weights_only=True\)", "None", text)
        for word in forbidden:
            assert word not in text, f"{name} has {word}"
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert not {"eval", "exec"} & set(calls), name

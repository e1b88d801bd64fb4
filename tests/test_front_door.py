"""What a method's author imports from `zoo`: complete, documented, and its examples run."""

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).resolve().parent.parent
NAMES = dir(zoo)
PUBLIC = [name for name in NAMES if inspect.isfunction(getattr(zoo, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(zoo, name))]


@pytest.mark.parametrize("name", PUBLIC + CLASSES)
def test_examples_run(name):
    """Every public function shows how it is used; classes may."""
    thing = getattr(zoo, name)
    finder = doctest.DocTestFinder(recurse=inspect.isclass(thing))
    tests = [test for test in finder.find(thing, name, globs={}) if test.examples]
    assert tests or inspect.isclass(thing), f"zoo.{name} has no example"
    said: list[str] = []
    for test in tests:
        result = doctest.DocTestRunner().run(test, out=said.append)
        assert result.failed == 0, "".join(said)


def test_built_in_methods_and_tasks_enter_by_the_front_door():
    """No method needs a deeper import, so a user's plugin needs none either."""
    deeper = re.compile(r"^\s*from (zoo\.\S+) import", re.MULTILINE)
    for path in (*(ROOT / "methods").glob("[a-z]*.py"), ROOT / "tasks" / "glue.py"):
        assert set(deeper.findall(path.read_text())) <= {"zoo.errors"}, path.name


def test_the_door_opens_without_torch():
    """Only names that are used are loaded: reading results needs no torch."""
    code = (
        "import sys, zoo, leaderboard, zoo.records.storage\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "zoo.Method; assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'topk'"):
        _ = zoo.topk

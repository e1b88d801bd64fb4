"""Names, plugins, and what is said when they are wrong."""

from pathlib import Path

import pytest

from zoo.errors import ConfigError
from zoo.registry import Registry, find_plugin, load_plugin, methods, one_line


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_an_unknown_name_gets_the_nearest_and_all():
    with pytest.raises(ConfigError) as error:
        methods["smp_z"]
    assert "unknown method 'smp_z'; did you mean 'smp_" in str(error.value)
    assert "movement" in str(error.value)


def test_a_taken_name_names_both_origins():
    registry = Registry("method")

    @registry.register("one")
    def first(density):
        """First."""

    with pytest.raises(
        ConfigError, match=r"'one' exists already: .*test_registry.py:\d+ and again"
    ):

        @registry.register("one")
        def second(density):
            """Second."""

    assert registry["one"].make is first
    assert registry["one"].summary == "First."


@pytest.mark.parametrize("name", ["../x", "", "a b", "A", "x" * 65, "a/b", "a\nb", "_a", 3, "ä"])
def test_names_are_slugs(name):
    with pytest.raises(ConfigError, match="must be 1 to 64"):
        Registry("method").register(name)


def test_a_plugin_registers_and_loads_once(tmp_path):
    path = write(
        tmp_path,
        "from zoo.registry import register_method\n"
        "@register_method('mine')\n"
        "def mine(density):\n"
        "    '''Mine.'''\n",
    )
    plugin = find_plugin(str(path))
    load_plugin(plugin)
    load_plugin(plugin)
    assert methods["mine"].summary == "Mine."
    assert methods["mine"].origin.endswith("mine.py:2")


def test_a_plugin_that_breaks_says_where_and_leaves_nothing(tmp_path):
    path = write(
        tmp_path,
        "from zoo.registry import register_method\n"
        "@register_method('half')\n"
        "def half(density):\n"
        "    '''Half.'''\n"
        "raise ValueError('no\\x1b[31m good')\n",
    )
    with pytest.raises(ConfigError, match=r"mine\.py:5: ValueError: no\?\[31m good"):
        load_plugin(find_plugin(str(path)))
    assert "half" not in methods


def test_a_syntax_error_names_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.py:2: SyntaxError"):
        load_plugin(find_plugin(str(write(tmp_path, "x = 1\ndef (:\n"))))


def test_a_plugin_that_takes_a_name_names_both(tmp_path):
    path = write(
        tmp_path,
        "from zoo.registry import register_method\n"
        "@register_method('movement')\n"
        "def movement(density):\n"
        "    '''Not that one.'''\n",
    )
    with pytest.raises(ConfigError, match=r"methods/movement.py:\d+ and again at .*mine.py:2"):
        load_plugin(find_plugin(str(path)))


def test_a_missing_plugin_and_a_changed_one(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        find_plugin(str(tmp_path / "absent.py"))
    plugin = find_plugin(str(write(tmp_path, "x = 1\n")))
    write(tmp_path, "x = 2\n")
    with pytest.raises(ConfigError, match="changed since the run was planned"):
        load_plugin(plugin)


def test_one_line_is_one_short_line():
    text = one_line("a\nb\x00c\u202e" + "x" * 1000)
    assert text.startswith("a b?c?x")
    assert len(text) == 200

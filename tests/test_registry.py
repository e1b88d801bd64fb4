"""Names and plugins, and errors about them."""

import sys
from itertools import groupby
from pathlib import Path

import pytest

from zoo import ConfigError, register_method, register_task
from zoo.errors import one_line, unknown
from zoo.plugins import Plugin, find_plugin, load_plugin, plugin_of
from zoo.records.facts import MethodFacts
from zoo.registry import Registry, methods, tasks


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    """Write a plugin."""
    (folder / name).write_text(text)
    return folder / name


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others():
    with pytest.raises(ConfigError) as error:
        methods["smp_z"]
    assert "unknown method 'smp_z'; did you mean 'smp_" in str(error.value)
    assert "movement" in str(error.value)


def test_a_taken_name_is_rejected_with_both_places():
    registry = Registry("method", MethodFacts)

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
def test_names_that_are_no_slugs_are_rejected(name):
    with pytest.raises(ConfigError, match="must be 1 to 64"):
        Registry("method", MethodFacts).register(name)


def test_a_plugin_registers_its_methods_and_is_loaded_once(tmp_path):
    path = write(
        tmp_path,
        "from zoo import register_method\n"
        "@register_method('mine')\n"
        "def mine(density):\n"
        "    '''Mine.'''\n",
    )
    plugin = find_plugin(str(path))
    load_plugin(plugin)
    load_plugin(plugin)
    assert methods["mine"].summary == "Mine."
    assert methods["mine"].origin.endswith("mine.py:2")


def test_a_plugin_that_raises_is_named_with_its_line_and_leaves_no_name(tmp_path):
    path = write(
        tmp_path,
        "from zoo import register_method\n"
        "@register_method('half')\n"
        "def half(density):\n"
        "    '''Half.'''\n"
        "raise ValueError('no\\x1b[31m good')\n",
    )
    with pytest.raises(ConfigError, match=r"mine\.py:5: ValueError: no \[31m good"):
        load_plugin(find_plugin(str(path)))
    assert "half" not in methods


def test_a_syntax_error_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.py:2: SyntaxError"):
        load_plugin(find_plugin(str(write(tmp_path, "x = 1\ndef (:\n"))))


def test_a_plugin_that_takes_a_known_name_is_rejected_with_both_places(tmp_path):
    path = write(
        tmp_path,
        "from zoo import register_method\n"
        "@register_method('movement')\n"
        "def movement(density):\n"
        "    '''Not that one.'''\n",
    )
    with pytest.raises(ConfigError, match=r"methods/movement.py:\d+ and again at .*mine.py:2"):
        load_plugin(find_plugin(str(path)))


def test_a_missing_plugin_and_a_changed_one_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        find_plugin(str(tmp_path / "absent.py"))
    plugin = find_plugin(str(write(tmp_path, "x = 1\n")))
    write(tmp_path, "x = 2\n")
    with pytest.raises(ConfigError, match="changed since the run was planned"):
        load_plugin(plugin)


def test_a_file_that_a_plugin_imports_and_nobody_can_read_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, "import further\n")
    (tmp_path / "further.py").write_text("x = 1\n")
    read = Path.read_bytes

    def refused(self: Path) -> bytes:
        if self.name == "further.py":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ConfigError, match=r"further\.py: Permission denied"):
        find_plugin(str(path))


def test_files_that_a_plugin_imports_from_its_folder_count(tmp_path):
    """Also through each other and in packages; other files, and other folders, do not."""
    path = write(tmp_path, "import helper\nfrom rules.some import one\nimport torch\n")
    first = find_plugin(str(path))
    (tmp_path / "rules").mkdir()
    files = ("helper.py", "further.py", "rules/some.py", "rules/__init__.py")
    (tmp_path / "helper.py").write_text("import further, helper\n")
    seen = {first.sha256}
    for name in files:
        (tmp_path / name).write_text(f"# {name}\nimport further\n")
        found = find_plugin(str(path)).sha256
        assert found not in seen, name
        seen.add(found)
    (tmp_path / "other.py").write_text("x = 1\n")
    assert find_plugin(str(path)).sha256 == found
    (tmp_path / "further.py").write_text("x = (\n")
    with pytest.raises(ConfigError, match="changed since the run was planned"):
        load_plugin(first)


def test_a_plugin_is_the_one_whose_file_registered_the_entry(tmp_path):
    text = (
        "from zoo import register_method\n"
        "@register_method('mine')\n"
        "def mine(density):\n"
        "    '''Mine, in a file of its own.'''\n"
    )
    own = find_plugin(str(write(tmp_path, text)))
    other = find_plugin(str(write(tmp_path, "x = 1\n", "other.py")))
    load_plugin(own)
    plugins = (Plugin("methods"), other, own)
    assert plugin_of(methods["mine"], plugins) == own
    assert plugin_of(methods["movement"], plugins) is None


def test_an_unknown_fact_is_rejected():
    with pytest.raises(ConfigError, match="method mine: unknown fact 'colour'. Known: control,"):
        methods.register("mine", colour="red")


def test_facts_of_a_wrong_kind_are_rejected():
    with pytest.raises(ConfigError, match="method mine: order is 'first', not a number"):
        methods.register("mine", order="first")
    with pytest.raises(ConfigError, match="method mine: drives must be density or penalty"):
        methods.register("mine", drives="penality")


def test_methods_are_listed_by_order_and_then_by_name():
    for name, order in (("z", 2.0), ("b", 3.0), ("a", 3.0)):
        register_method(name, order=order)(lambda density: None)
    assert [entry.name for entry in methods][:3] == ["z", "a", "b"]


def test_a_family_is_listed_in_one_place():
    """A plugin's method stands beside its family's, whatever its order."""
    register_method("mine", family="movement")(lambda density: None)
    families = [family for family, _ in groupby(methods, lambda entry: entry.facts.family)]
    assert len(families) == len(set(families))
    assert "mine" in [entry.name for entry in methods if entry.facts.family == "movement"]


def test_exactly_one_method_teaches():
    assert methods.teacher == "dense"
    register_method("second", teaches=True)(lambda density: None)
    with pytest.raises(ConfigError, match="teaches=True, 2 are: dense, second"):
        methods.teacher  # noqa: B018


def test_an_entry_knows_what_its_factory_takes_by_default():
    @register_method("mine")
    def mine(density, *, start, power=3):
        """Mine."""

    entry = methods["mine"]
    assert entry.defaults == {"power": 3}
    assert [entry.takes(name) for name in ("start", "power", "penalty")] == [True, True, False]
    assert methods["smp_s"].takes("penalty")  # by **hyper


def test_a_task_keeps_the_name_of_the_task_whose_recipes_it_follows():
    register_task("mine", recipes_of="mnli")(lambda: None)
    assert tasks["mine"].recipe == "mnli" and tasks["mnli"].recipe is None


def test_an_error_is_one_short_line():
    text = one_line("a\nb\x00c\u202e" + "x" * 1000, 200)
    assert text.startswith("a b c x")
    assert len(text) == 200


def test_a_name_that_is_like_no_other_gets_the_list_alone():
    assert unknown("fruit", "aple", ["pear", "apple"]) == (
        "unknown fruit 'aple'; did you mean 'apple'? Known: apple, pear"
    )
    assert unknown("fruit", "zzz", ["pear", "apple"]) == "unknown fruit 'zzz'. Known: apple, pear"


def test_a_function_from_a_helper_belongs_to_the_plugin_that_registers_it(tmp_path):
    """What counts is the file whose import registered it."""
    (tmp_path / "helper_of_mine.py").write_text("def f(density):\n    return None\n")
    path = write(
        tmp_path,
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from zoo import register_method\nfrom helper_of_mine import f\n"
        "register_method('mine')(f)\n",
    )
    plugin = find_plugin(str(path))
    load_plugin(plugin)
    sys.path.remove(str(tmp_path))
    assert plugin_of(methods["mine"], [plugin]) == plugin


@pytest.mark.parametrize("text", ["import no_such_module_here\n", "x = (\n"])
def test_a_fault_in_a_file_of_a_package_is_named(tmp_path, monkeypatch, text):
    package = tmp_path / "some_methods"
    package.mkdir()
    load = "from zoo.plugins import load_modules\nload_modules(__name__, __path__)\n"
    (package / "__init__.py").write_text(load)
    (package / "zz.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"some_methods/zz\.py:1: "):
        load_plugin(Plugin("some_methods"))


@pytest.mark.parametrize("label", ["Magnitude", "movement"])
def test_a_label_that_is_another_methods_is_refused(label):
    with pytest.raises(
        ConfigError, match=r"its name or label .* is that of (magnitude|movement) \("
    ):
        register_method("better", label=label)

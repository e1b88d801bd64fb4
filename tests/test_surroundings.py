"""What is around a run: a home that cannot be written, odd temporary folders and addresses of Ray,
terminals that lack characters, files in the place of folders, two models of one name."""

import ast
import importlib
import io
import os
import socket
import sys
import tempfile
from contextlib import contextmanager
from threading import Thread

import pytest

from leaderboard import write
from tests.helpers import a_result, a_trial, start_command
from tests.test_imports import SOURCE
from zoo.ends import command
from zoo.errors import ConfigError, ResourceError, unknown
from zoo.records.storage import save
from zoo.runs import cluster
from zoo.runs.command import make_parser


@pytest.fixture
def local(checkpoint, sst2):
    """Options of a suite on the small checkpoint and data."""
    return (
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)),
        *("--tasks", "sst2", "--methods", "dense", "--seeds", "0"),
    )


def refused(capsys, *options):
    """Run a command that is refused before anything is planned: the exit code and its line."""
    from run_benchmark import main

    code = main(options)
    out, err = capsys.readouterr()
    assert "to run" not in out and len(err.splitlines()) == 1, out + err
    return code, err.removeprefix("error: ").rstrip()


# --------------------------------------------------------------------- a home, temporary folders


def test_trials_and_figures_need_no_home_and_no_temporary_folder(here):
    """A path below a file cannot be made by anybody, root included."""
    below = str(here / "data" / "glue" / "sst2" / "train.parquet" / "below")
    names = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR")
    options = ("--methods", "movement", "--densities", "0.1", "--seeds", "0")
    options += ("--executor", "inline", "--jobs", "2")
    process = start_command(here, "homeless", *options, **dict.fromkeys(names, below))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and err == "", out + err
    assert list((here / "homeless" / "smoke" / "figures").glob("*.png"))


def test_the_longest_path_of_a_socket_is_that_of_this_system(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for bytes_, fits in ((cluster.LONGEST, True), (cluster.LONGEST + 1, False)):
            path = f"{short}/{'a' * bytes_}"[:bytes_]
            with socket.socket(socket.AF_UNIX) as made:
                if fits:
                    made.bind(path)
                else:
                    with pytest.raises(OSError, match="too long"):
                        made.bind(path)


def test_a_folder_is_as_long_as_rays_sockets_allow():
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        room = cluster.LONGEST - len(cluster.SOCKET.format(os.getpid())) - len("/")
        longest = f"{short}/{'a' * room}"[:room]
        assert cluster.unusable(longest) == ""
        assert "too long" in cluster.unusable(longest + "a")


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/tmp/" + "a" * 95, "too long, a socket's path may have"),
        ("relative/x", "not an absolute path"),
        ("", "not an absolute path"),
        ("/proc/version/x", "Not a directory"),
    ],
)
def test_ray_gets_another_folder_where_it_cannot_use_the_given_one(
    monkeypatch, capsys, folder, why
):
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(cluster, "SHORT", ("/proc/version/y", short))
        cluster.choose_folder()
        assert os.environ["RAY_TMPDIR"] == short
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: Ray cannot use RAY_TMPDIR={folder}") and why in line
    assert line.endswith(f"it uses {short} instead")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setattr(cluster, "SHORT", ("/proc/version/y",))
    with pytest.raises(ResourceError, match="set RAY_TMPDIR to a short path"):
        cluster.choose_folder()


# --------------------------------------------------------------------------------- RAY_ADDRESS


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "is not an address, expected auto or host:port"),
        ("a b:6379", "is not an address"),
        ("host:0", "is not an address"),
        ("host:99999", "is not an address"),
        ("http://host:8265", "is not an address"),
        (":6379", "is not an address"),
        ("ray://127.0.0.1:10001", "is an address of Ray Client, which cannot report trials"),
    ],
)
def test_an_odd_address_is_refused_before_ray_is_loaded(
    local, tmp_path, monkeypatch, capsys, address, message
):
    from run_benchmark import main

    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main([*local, "--results", str(tmp_path / "r")]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: RAY_ADDRESS={address} {message}")
    assert line.endswith("unset it to use this machine alone, or give --executor inline")
    assert main([*local, "--results", str(tmp_path / "r"), "--dry-run"]) == 0


@contextmanager
def server(answer):
    """A server that says `answer` to whoever connects, "" for nothing; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            kept = []
            while True:
                try:
                    kept.append(listening.accept()[0])
                    kept[-1].sendall(answer)
                except OSError:
                    return

        Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it answers, but not as Ray does"),
        (b"", r"no answer in 0.5 s|timed out"),
        (b"\0\0\0\4\0\0\0\0\0", None),
    ],
)
def test_a_server_that_is_not_ray_is_given_up_soon(monkeypatch, answer, message):
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5 if not answer else cluster.TIMEOUT)
    with server(answer) as address:
        if message is None:
            cluster.check_address(address)
        else:
            with pytest.raises(ResourceError, match=rf"no Ray cluster at .*\(.*({message})"):
                cluster.check_address(address)


def test_a_port_where_nobody_listens_is_refused():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ResourceError, match="refused"):
            cluster.check_address(f"127.0.0.1:{bound.getsockname()[1]}")


def test_no_address_a_local_one_and_auto_are_left_to_ray():
    for address in ("", "local", "auto"):
        cluster.check_address(address)


# ----------------------------------------------------------------------------- terminals, texts


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_a_character_gets_an_escape(tmp_path, monkeypatch, encoding):
    from run_benchmark import main

    (tmp_path / "arrow.py").write_text(
        f"# {encoding}\nfrom zoo import Method, register_method\n"
        "@register_method('arrow', recipe='dense')\n"
        "def arrow(density):\n    '''Denser \u2192 better.'''\n    return Method()\n",
        encoding="utf-8",
    )
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setattr(sys, "stderr", written)
    assert main(["--list", "--plugin", str(tmp_path / "arrow.py")]) == 0
    assert main(["--suite", "\u2192"]) == 2
    written.flush()
    said = written.buffer.getvalue().decode(encoding)
    assert "Denser \\u2192 better." in said and "unknown suite '\\u2192'" in said


def test_every_command_line_shows_errors_and_characters_alike():
    """All files with a `main` use `zoo.errors.command`, which this one does too."""
    mains = [
        name
        for name, path in SOURCE.items()
        if any(getattr(n, "name", "") == "main" for n in ast.parse(path.read_text("utf-8")).body)
    ]
    assert {"run_benchmark", "leaderboard.__main__", "zoo.tools.bench"} <= set(mains)
    own = command(lambda: 0).__code__
    for name in mains:
        assert importlib.import_module(name).main.__code__ is own, name


def test_files_of_text_name_their_encoding():
    """Whatever the locale is: reads and writes of text say utf-8."""
    for path in SOURCE.values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(getattr(node, "func", None), "attr", "")
            if name in ("read_text", "write_text", "open"):
                words = ast.unparse(node)
                binary = name == "open" and ("b'" in words or words.startswith("os."))
                assert binary or "utf-8" in words, f"{path}:{node.lineno}"


def test_a_path_that_the_locale_cannot_read_is_refused():
    """What Python makes of 'd\u00e4ta' in the locale C without its UTF-8 mode."""
    for option in ("--model", "--data-dir", "--results"):
        with pytest.raises(ConfigError, match=r"not readable in this locale; set LC_ALL=C.UTF-8"):
            make_parser().parse_args([option, "d\udcc3\udca4ta"])


# ------------------------------------------------------------- files in the place of folders


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("file", "{}/file is not a folder"),
        ("file/below", "{}/file is not a folder"),
        ("link", "{}/link is a link to nothing"),
        ("link/below", "{}/link is a link to nothing"),
        ("loop", "{}/loop is a link to nothing"),
        ("cache", "{}/cache/.cache is not a folder"),
        ("suite", "{}/suite/smoke is not a folder"),
    ],
)
def test_results_that_are_no_folder_are_refused(local, tmp_path, capsys, results, message, more):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("cache/.cache", "suite/smoke"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    code, line = refused(capsys, *local, "--results", str(tmp_path / results), *more)
    assert code == 4 and line.startswith("cannot write in ")
    assert line.endswith(message.format(tmp_path))
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_cannot_be_made_is_refused_first(local, capsys):
    code, line = refused(capsys, *local, "--results", "/proc/results")
    assert code == 4 and line.startswith("cannot write in /proc/results/smoke: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data-dir", "file"), "argument --data-dir: file is not a folder; give a folder with"),
        (("--data-dir", "no"), "argument --data-dir: no does not exist; give a folder with glue/"),
        (("--model", "file"), "model file: is a file; give the folder of it, or a hub name"),
        (("--model", "no/such/dir"), "model no/such/dir: neither a folder nor a hub name"),
        (("--model", "link"), "model link: no such folder"),
    ],
)
def test_a_model_or_data_that_is_no_folder_is_refused(
    local, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    code, line = refused(capsys, *local, *options, "--results", "r")
    assert code == 2 and line.startswith(message)


# ---------------------------------------------------------------------------------------- names


def test_two_models_of_one_name_are_told_apart_everywhere(tmp_path):
    for sha in ("abc123", "def456"):
        for method, density in (("dense", 1.0), ("movement", 0.1)):
            trial = a_trial(model="bert", model_sha=sha * 8, method=method, density=density)
            save(a_result(trial), tmp_path / "two" / "suite")
            if sha == "abc123":
                save(a_result(trial), tmp_path / "one" / "suite")
    folder = tmp_path / "two" / "suite"
    headings = [
        line for line in write(folder).read_text("utf-8").splitlines() if line.startswith("## sc")
    ]
    assert ["model bert@abc123" in headings[0], "model bert@def456" in headings[1]] == [True] * 2
    texts = [path for path in folder.rglob("*") if path.suffix in (".html", ".tex", ".md", ".csv")]
    for path in texts:
        said = path.read_text("utf-8").replace("\\@", "@")
        assert "model bert," not in said and ",bert," not in said, path.name
    names = [path.name for path in (*folder.glob("tables/*"), *folder.glob("figures/*"))]
    assert len(names) > 10 and all("-abc123-" in name or "-def456-" in name for name in names)
    alone = write(tmp_path / "one" / "suite", figures=False).read_text("utf-8")
    assert "model bert," in alone and "bert@" not in alone


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SST-2", "sst2"), ("STS_B", "stsb"), ("Soft Movement", "soft_movement"), ("ab", "a-b")],
)
def test_case_dashes_underscores_and_blanks_do_not_hide_a_name(name, meant):
    known = ["sst2", "stsb", "soft_movement", "a-b", "abc"]
    assert f"; did you mean {meant!r}?" in unknown("task", name, known)

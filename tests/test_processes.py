"""Worker processes: the same results, a death costs one trial, and nothing is left running."""

import os
import signal
import subprocess
import time

import pytest

from tests.helpers import command, results_of

PLUGIN = '''
import os, pathlib, time
from dataclasses import replace
from methods.movement import movement
from zoo import register_method, topk_local
from zoo.errors import StorageError

HERE = pathlib.Path(__file__).parent
TRIES = HERE / "tries"

def make(name, mask):
    @register_method(name, recipe="movement")
    def method(density, *, start, stop):
        """Movement with a mask function of its own."""
        return replace(movement(density, start=start, stop=stop), mask=mask)

def dies(scores, level):
    with TRIES.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    os._exit(1)

def outlives(scores, level):
    """Wait until the one beside it has died twice."""
    end = time.monotonic() + 120
    while not TRIES.exists() or len(TRIES.read_text().split()) < 2:
        if time.monotonic() > end:
            raise RuntimeError("nothing died")
        time.sleep(0.02)
    return topk_local(scores, level)

def raises(scores, level):
    raise RuntimeError("boom")

def stays(scores, level):
    (HERE / "stays").touch()
    time.sleep(600)

def no_disk(scores, level):
    raise StorageError("no disk")

for function in (dies, outlives, raises, stays, no_disk):
    make(function.__name__, function)
'''


@pytest.fixture
def local(checkpoint, sst2):
    """Options of a suite on the small checkpoint and data, with the plugin, as a module of its own."""
    (sst2.parent / "mine.py").write_text(f"# {sst2}\n{PLUGIN}")
    return (
        *("--suite", "smoke", "--model", str(checkpoint), "--data-dir", str(sst2)),
        *("--tasks", "sst2", "--plugin", str(sst2.parent / "mine.py"), "--seeds", "0"),
    )


def test_two_processes_give_what_one_does_and_a_dead_one_costs_one_trial(run, local, tmp_path):
    """A teacher and its student; and beside them a method that ends its process, one that runs
    through both of its ends, and one that raises."""
    options = (*local, "--distill", "on", "--methods")
    code, out, err = run(*options, "dense,movement", results=tmp_path / "one")
    assert code == 0, out + err
    own = "dense,movement,dies,outlives,raises"
    code, out, err = run(*options, own, "--jobs", "2", results=tmp_path / "two")
    assert code == 3, out + err
    one, two = (results_of(tmp_path / name / "smoke") for name in ("one", "two"))
    (beside,) = [name for name in two if "outlives" in name]
    assert len(one) == 2 and one.keys() == two.keys() - {beside}
    for name in one:
        for part in ("cost", "environment", "checksum"):
            one[name].pop(part), two[name].pop(part)
        assert one[name] == two[name]
    # and perhaps how much memory it had, if it lived long enough to be seen
    ended = "its worker process ended twice without a result (exit code 1)"
    for method, reason in (("dies", ended), ("raises", "RuntimeError: boom")):
        (line,) = [x for x in out.splitlines() if x.startswith(f"failed: sst2-{method}-")]
        assert reason in line
    tries = (tmp_path / "tries").read_text().split()
    assert len(tries) == len(set(tries)) == 2  # twice, in processes of their own


def test_a_disk_that_cannot_be_written_stops_the_run(run, local, tmp_path):
    code, _, err = run(*local, "--methods", "no_disk", "--jobs", "2")
    assert code == 4 and err == "error: no disk\n"
    assert not list((tmp_path / "results" / "smoke").glob("sst2-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_run(here, number, code):
    """Nor one in the middle of a trial. Ctrl-C goes to all processes, as a terminal sends it."""
    (here / "mine.py").write_text(PLUGIN)
    (here / "stays").unlink(missing_ok=True)
    options = ("--executor", "inline", "--jobs", "2", "--plugin", "mine.py", "--seeds", "0")
    process = subprocess.Popen(
        command(number.name, *options, "--methods", "stays"),
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Python does not listen to SIGINT where it was ignored before, as in a shell's jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (here / "stays").exists():
        assert process.poll() is None
        time.sleep(0.02)
    (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=30)  # to the end: nobody has its output open any more
    assert process.returncode == code, out + err
    assert "Traceback" not in err and (code < 0 or "finished trials are kept" in err)
    assert not list((here / number.name / "smoke").glob("sst2-*"))

"""Claims: drivers on one folder share its trials; a dead one loses them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers import ROOT, command, finished, results_of
from zoo.runs import claims
from zoo.runs.claims import CLAIMS, LEASE, claimed

GRID = ("--methods", "dense,movement,smp_l", "--seeds", "0,1,2", "--executor", "inline")


def test_one_has_a_claim_at_a_time(tmp_path):
    with claimed(tmp_path, "a") as first, claimed(tmp_path, "a") as second:
        assert first and not second
        with claimed(tmp_path, "b") as other:
            assert other
    assert not list((tmp_path / CLAIMS).iterdir())
    with claimed(tmp_path, "a") as again:
        assert again


def elsewhere(path: Path, age: float) -> None:
    """A claim of a process on another machine, last touched so long ago."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"owner": "x", "place": "another", "process": 1}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_claim_lasts_as_long_as_it_is_touched(tmp_path):
    path = tmp_path / CLAIMS / "a"
    elsewhere(path, LEASE - 30)
    with claimed(tmp_path, "a") as ours:
        assert not ours
    elsewhere(path, LEASE + 30)
    with claimed(tmp_path, "a") as ours, claimed(tmp_path, "a") as second:
        assert ours and not second
    assert not path.exists()


def test_the_owner_touches_its_claim_and_no_other_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "TOUCH", 0.05)
    path = tmp_path / CLAIMS / "a"
    with claimed(tmp_path, "a") as ours:
        assert ours
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        elsewhere(path, 5.0)  # another took it over: this process is no longer its owner
        before = path.stat().st_mtime
        time.sleep(0.2)
        assert path.stat().st_mtime == before
    assert path.exists()


def test_a_process_that_died_here_loses_its_claim_at_once(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom zoo.runs.claims import claimed\n"
        "with claimed(Path(sys.argv[1]), 'a') as ours:\n    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL and (tmp_path / CLAIMS / "a").exists()
    if claims._place():
        with claimed(tmp_path, "a") as ours:
            assert ours


@pytest.mark.parametrize("content", ["", "[]", "{", '{"owner": 3, "place": {}, "process": "x"}'])
def test_a_claim_that_says_nothing_counts_until_its_lease_ends(tmp_path, content):
    path = tmp_path / CLAIMS / "a"
    path.parent.mkdir()
    path.write_text(content)
    with claimed(tmp_path, "a") as ours:
        assert not ours
    os.utime(path, (0, 0))
    with claimed(tmp_path, "a") as ours:
        assert ours


def test_where_nothing_can_be_written_every_trial_is_free(tmp_path):
    (tmp_path / CLAIMS).write_text("a file")
    with claimed(tmp_path, "a") as ours:
        assert ours


def test_of_many_that_take_over_one_gets_it(tmp_path):
    """Processes that start at the same moment beside a claim that has ended."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom zoo.runs.claims import claimed\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "with claimed(Path(sys.argv[1]), 'a') as ours:\n"
        "    print(int(ours), flush=True)\n    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(5):
        elsewhere(tmp_path / CLAIMS / "a", LEASE + 30)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        many = [subprocess.Popen(command, env=environment, **pipes) for _ in range(6)]
        assert all(one.stdout.readline() == "ready\n" for one in many)
        for one in many:
            one.stdin.write("\n")
            one.stdin.flush()
        assert sum(int(one.stdout.readline()) for one in many) == 1
        for one in many:
            one.communicate("\n", timeout=30)


def test_four_drivers_share_a_folder_and_one_of_them_dies(here):
    """Nothing is run twice and nothing is lost: as in a job array of a cluster."""
    (here / "starts.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import run_benchmark, zoo.runs.inline as inline\n"
        "plain = inline.run_trial\n"
        "def counted(trial, resources):\n"
        "    with open('starts.txt', 'a') as file: file.write(f'{trial.id} {os.getpid()}\\n')\n"
        "    return plain(trial, resources)\n"
        "inline.run_trial = counted\n"
        "sys.exit(run_benchmark.main())\n"
    )
    given = command("shared", *GRID)
    given[1] = "starts.py"
    drivers = [subprocess.Popen(given, cwd=here, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    deadline = time.monotonic() + 240
    while len(results_of(here / "shared" / "smoke")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    drivers[0].kill()
    drivers[0].communicate()
    for driver in drivers[1:]:
        finished(driver)
    starts = [line.split() for line in (here / "starts.txt").read_text().splitlines()]
    living = [trial for trial, process in starts if int(process) != drivers[0].pid]
    assert max(Counter(living).values()) == 1 and len(results_of(here / "shared" / "smoke")) == 9
    assert len(starts) <= 10  # that which the dead driver was in began twice
    assert not list((here / "shared" / "smoke" / CLAIMS).iterdir())

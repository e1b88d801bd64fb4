"""The judge: what it finds in a model's files, and what it does where they contradict a claim."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.scales import base
from tests.helpers import CLASSES, ROOT, a_result
from tests.test_save import root  # noqa: F401 - a fixture
from zoo import Cell
from zoo.engine.build import Resources
from zoo.engine.handover import ENCODER, HEAD, MASKS
from zoo.engine.judge import judge
from zoo.engine.train import run_trial
from zoo.errors import StorageError, TrialError
from zoo.records.result import Failure, Judgement, Result
from zoo.records.storage import SUMS, load, seal
from zoo.records.trial import Conditions
from zoo.registry import tasks
from zoo.runs import judging
from zoo.runs.judges import judges_at_hand
from zoo.runs.plan import Planner
from zoo.runs.watch import children

MATRIX = "encoder.layer.1.output.dense"
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def handed_over(folder, kind, method, task, recipe="released"):
    """The claim of a short trial that handed over its files, and what it ran with."""
    data = str(folder / "data")
    planner = Planner(base(), recipe, str(folder / kind), data, conditions=Conditions(max_steps=4))
    given = (("batch", 8), ("max_length", 48))
    density = 1.0 if method == "dense" else 0.3
    trial = planner.plan(Cell(method, task, density, False, 0, given)).trial
    files = folder / "files" / trial.id
    resources = Resources(str(folder / kind), data, str(folder / "cache"), handover=str(files))
    return run_trial(trial, resources), resources


GIVEN = (("dense", "mnli"), ("smp_l", "sst2", "paper"), ("movement", "squad"))


@pytest.mark.parametrize(
    ("kind", "given"), [(kind, GIVEN[i % 3]) for i, kind in enumerate(CLASSES)]
)
def test_every_kind_of_checkpoint_is_judged_as_it_claims(root, kind, given):  # noqa: F811
    claim, resources = handed_over(root, kind, *given)
    found = judge(claim, Path(resources.handover), resources)
    assert found.judgement == Judgement(apart=True, claims=claim.metrics)
    assert replace(found, judgement=None, cost=claim.cost) == claim


@pytest.fixture
def claimed(root):  # noqa: F811
    """The claim of an SMP-L trial, whose weights are frozen, and what it ran with."""
    return handed_over(root, "bert", "smp_l", "sst2")


def altered(resources, file, change):
    """The folder of the files after `change` of the tensors of one of them."""
    path = Path(resources.handover) / file
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return Path(resources.handover)


def _unprune(tensors):
    matrix = tensors[f"{MATRIX}.weight"]
    matrix[matrix == 0] = 0.5


def _train(tensors):
    matrix = tensors[f"{MATRIX}.weight"]
    matrix[matrix != 0] += 0.5


def _train_bias(tensors):
    tensors[f"{MATRIX}.bias"] += 0.5


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            ENCODER,
            _unprune,
            r"claims [\d,]+ weights of .*, its model has [\d,]+ more that are not zero",
        ),
        (
            ENCODER,
            _train,
            r"claims 0 trained values in matrices and 0 others; judged [\d,]+ and 0 that",
        ),
        (
            ENCODER,
            _train_bias,
            r"claims 0 trained values in matrices and 0 others; judged 0 and 32 that",
        ),
        (
            MASKS,
            lambda bits: bits[MATRIX].fill_(255),
            r"claims [\d,]+ remaining weights, judged [\d,]+",
        ),
        (
            MASKS,
            lambda bits: bits.update(x=bits[MATRIX].clone()),
            "it handed over no model: 'x.weight'",
        ),
        (
            MASKS,
            lambda bits: bits.update({MATRIX: bits[MATRIX][:3]}),
            "it handed over no model: the mask of .* has 3 bytes",
        ),
    ],
)
def test_files_that_contradict_a_claim_are_named(claimed, file, change, message):
    claim, resources = claimed
    with pytest.raises(TrialError, match=message):
        judge(claim, altered(resources, file, change), resources)


def test_a_metric_that_the_model_does_not_have_is_named(claimed):
    claim, resources = claimed
    for said, shown in ((12.34, "12.3"), (None, "-")):
        message = f"acc: claims {shown}, judged {claim.metrics['acc']:.1f}"
        with pytest.raises(TrialError, match=message):
            judge(replace(claim, metrics={"acc": said}), Path(resources.handover), resources)


def test_what_needs_the_code_of_a_plugin_is_marked(claimed, monkeypatch):
    claim, resources = claimed
    folder = Path(resources.handover)
    own = replace(claim, head=replace(claim.head, name="mine"))
    found = judge(own, folder, resources)
    reason = "its head is a plugin's own code"
    assert found == replace(own, judgement=Judgement(False, claim.metrics, reason))
    more = altered(resources, HEAD, lambda tensors: tensors.update(more=torch.zeros(2)))
    reason = "its network has other tensors than the checkpoint and its head"
    assert judge(claim, more, resources).judgement == Judgement(False, claim.metrics, reason)
    monkeypatch.setattr(tasks, "_entries", {})
    reason = "its task is a plugin's own code"
    assert judge(claim, folder, resources).judgement == Judgement(False, claim.metrics, reason)


def test_the_judge_writes_the_record_and_removes_the_files(claimed, tmp_path):
    claim, resources = claimed
    record = judging.judged(claim, resources, tmp_path)
    assert isinstance(record, Result) and record.judgement.apart
    assert load(tmp_path / f"{claim.trial.id}.json") == record
    assert not Path(resources.handover).exists()
    assert isinstance(judging.judged(claim, resources, tmp_path), Failure)  # there are no files
    diverged = a_result(status="diverged")
    assert judging.judged(diverged, resources, tmp_path) is diverged


def test_a_judge_that_is_killed_is_started_again(claimed, tmp_path, monkeypatch):
    claim, resources = claimed
    os.kill(judging.start().process, signal.SIGKILL)
    assert isinstance(judging.judged(claim, resources, tmp_path), Result)

    def ended(judge, request):
        raise EOFError

    monkeypatch.setattr(judging.Judge, "ask", ended)
    record = judging.judged(claim, resources, tmp_path)
    assert record.reason == judging.ENDED and load(tmp_path / f"{claim.trial.id}.failed.json")


def alive(process):
    """Whether a process runs; one that has ended may wait for its parent."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def no_judge():
    """This process has no judge before and after."""
    judging._end()
    yield
    judging._end()


@linux
def test_judges_are_at_hand_and_end_with_who_asked(claimed, tmp_path, no_judge):
    claim, resources = claimed
    before = set(children(os.getpid()))
    with judges_at_hand(tmp_path) as address:
        assert not os.stat(address).st_mode & 0o077
        (server,) = set(children(os.getpid())) - before
        record = judging.judged(claim, replace(resources, judges=address), tmp_path)
        assert record == load(tmp_path / f"{claim.trial.id}.json") and record.judgement.apart
        assert len(children(server)) == 1 and set(children(os.getpid())) - before == {server}
        judging._end()
        wait_for(lambda: children(server) == [])
    assert not alive(server)


@linux
def test_a_judge_ends_in_the_middle_of_its_work_with_who_asked():
    """`_answer` never returns."""
    code = (
        "import sys, threading\n"
        "from zoo.runs import judging\n"
        "judging.from_json = lambda *_: None\n"
        "judging._answer = lambda request: print('at work', flush=True) or threading.Event().wait()\n"
        "judging.serve(int(sys.argv[1]))\n"
    )
    ours, theirs = Pipe()
    number = theirs.fileno()
    command = [sys.executable, "-c", code, str(number)]
    with subprocess.Popen(command, cwd=ROOT, pass_fds=[number], stdout=-1, text=True) as process:
        theirs.close()
        ours.send_bytes(b"{}")
        assert process.stdout.readline() == "at work\n"
        ours.close()
        assert process.wait(20) == 0


@linux
def test_where_no_judges_are_at_hand_each_process_starts_its_own(
    claimed, tmp_path, no_judge, monkeypatch
):
    claim, resources = claimed
    before = set(children(os.getpid()))
    with judges_at_hand(tmp_path) as address:
        judging.start(address)
        (server,) = set(children(os.getpid())) - before
        os.kill(server, signal.SIGKILL)
        assert isinstance(
            judging.judged(claim, replace(resources, judges=address), tmp_path), Result
        )
        assert judging.start().process is not None
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / ("long" * 30)):
        with judges_at_hand(folder) as address:
            assert address == ""
    monkeypatch.setattr("zoo.runs.judges.usual_device", lambda: torch.device("cuda"))
    with judges_at_hand(tmp_path) as address:
        assert address == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from zoo.runs.judges import judges_at_hand
from zoo.runs.watch import children
with judges_at_hand(Path(sys.argv[1])):
    print(*children(os.getpid()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@linux
def test_a_killed_run_leaves_no_server_of_judges(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    (server,) = done.stdout.split()
    wait_for(lambda: not alive(int(server)))


def test_a_folder_that_cannot_be_written_is_an_error_of_storage(claimed, tmp_path):
    claim, resources = claimed
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        judging.judged(claim, resources, tmp_path / "file")


def test_examples_in_the_cache_that_are_not_the_datas_are_removed(claimed, tmp_path):
    claim, resources = claimed
    cache = tmp_path / "cache"
    resources = replace(resources, cache=str(cache))
    judge(claim, Path(resources.handover), resources)
    for file in cache.glob("*/labels.npy"):
        np.save(file, 1 - np.load(file))
        (file.parent / SUMS).unlink()
        seal(file.parent)
    with pytest.raises(
        TrialError, match=r"the cache's examples of sst2 \(train, validation\) were"
    ):
        judge(claim, Path(resources.handover), resources)
    assert not list(cache.glob("*/labels.npy"))
    found = judge(claim, Path(resources.handover), replace(resources, cache=""))
    assert found.metrics == claim.metrics

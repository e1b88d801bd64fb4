"""What is read of a file at all: JSON within bounds, as it was written."""

import json
import os
import random
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.helpers import a_result, a_trial
from tests.mutations import flipped
from zoo.records.content import DEEPEST, LARGEST, MOST_VALUES, encoded, read, with_checksum
from zoo.records.forms import Form
from zoo.records.result import Failure, Plan
from zoo.records.storage import load, load_folder, load_result, save, save_plan

BEYOND = {
    "[1" + "0" * 20 + "]": "it holds 100000000000000000000, which does not fit 64 bits",
    "[9223372036854775808]": "it holds 9223372036854775808, which does not fit 64 bits",
    "[1e999]": "it holds 1e999, which does not fit 64 bits",
    "[NaN]": "it holds NaN, which is no number of JSON",
    '["\\ud800"]': "surrogates not allowed",
    "[" * DEEPEST + "0" + "]" * DEEPEST: f"it is nested in more than {DEEPEST} levels",
    "[" + "0," * MOST_VALUES + "0]": "it has more than 400,000 values",
    '"' + "a" * LARGEST + '"': "it has more than 8,388,608 bytes",
}


@pytest.mark.parametrize("text", BEYOND, ids=BEYOND.values())
def test_what_is_beyond_the_bounds_is_not_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=BEYOND[text]):
        read(tmp_path / "a.json")


def test_what_is_within_the_bounds_is_read(tmp_path):
    content = [2**63 - 1, -(2**63 - 1), 1e308, "😀"]
    for _ in range(DEEPEST - 2):
        content = [content]
    (tmp_path / "a.json").write_bytes(encoded(content))
    assert read(tmp_path / "a.json") == content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_read(tmp_path, make):
    path = tmp_path / f"{a_trial().id}.json"
    make(path)
    with pytest.raises(ValueError, match="it is not a regular file"):
        load_result(path)
    assert [f.reason for f in load_folder(tmp_path).unreadable] == [
        "ValueError: it is not a regular file"
    ]


def test_what_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="it has more than 8,388,608 bytes"):
        save(a_result(extra={"more": "a" * LARGEST}), tmp_path)
    deep: object = 0
    for _ in range(DEEPEST):
        deep = [deep]
    with pytest.raises(ValueError, match="nested in more than"):
        save(a_result(extra={"more": deep}), tmp_path)
    assert not list(tmp_path.iterdir())


# Checksums --------------------------------------------------------------------------------------


def test_a_checksum_is_the_sha256_of_the_other_fields():
    text = b'{"a":[1,2.5],"b":null}'
    expected = {"a": [1, 2.5], "b": None, "checksum": f"sha256:{sha256(text).hexdigest()}"}
    assert with_checksum({"b": None, "a": [1, 2.5]}) == expected


def test_a_file_that_was_laid_out_anew_is_as_it_was_written(tmp_path):
    path = save(a_result(), tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert load_result(path) == a_result()


def test_a_record_that_was_edited_is_named_and_so_is_the_way_to_keep_the_edit(tmp_path):
    path = save(a_result(), tmp_path)
    path.write_text(path.read_text().replace('"seconds": 5.0', '"seconds": 4.0'))
    (file,) = load_folder(tmp_path).unreadable
    told = 'it was changed after it was written; if that is meant, delete its field "checksum"'
    assert file.reason == f"ValueError: {told}"
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))
    assert load_result(path).cost.seconds == 4.0


def test_what_an_edit_broke_is_named_first(tmp_path):
    path = save(Failure(a_trial(), "rain"), tmp_path)
    path.write_text(path.read_text().replace('"reason": "rain"', '"reason": 1'))
    with pytest.raises(ValueError, match="^reason is 1, not a text; it was changed after"):
        load(path)


def test_forms_that_are_added_later_are_part_of_a_new_checksum(tmp_path):
    path = save(a_result(), tmp_path)
    before = path.read_text()
    again = save(replace(load_result(path), forms=(Form("packed", 7),)), tmp_path)
    assert again == path and load_result(path).forms == (Form("packed", 7),)
    assert load_result(path).extra == {}
    changed = {line for line in path.read_text().splitlines() if line not in before.splitlines()}
    assert sum("checksum" in line for line in changed) == 1 and len(changed) < 12


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path):
    path = save(a_result(), tmp_path)
    content = json.loads(path.read_text())
    del content["checksum"], content["shares"]
    path.write_text(json.dumps(content))
    assert load_result(path) == a_result()


def test_a_flipped_bit_in_every_byte_of_a_record_is_named(tmp_path):
    """Of a failure; tests/faults.py flips bits of results and plans too."""
    path = save(Failure(a_trial(hyper={}), "x"), tmp_path)
    data, kept = path.read_bytes(), []
    record = load(path)
    for place in range(0, len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert load(path) == record  # 1e-05 as 1E-05
            kept.append(place)
        except (ValueError, KeyError, TypeError):
            pass
    assert len(kept) < 5


def test_a_plan_is_named_by_its_content(tmp_path):
    (path,) = save_plan(Plan((a_trial(),)), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"seed":0', b'"seed":1'))
    (file,) = load_folder(tmp_path).unreadable
    assert "it was changed after it was written: its name has another checksum" in file.reason
    assert save_plan(Plan((a_trial(),)), tmp_path) == [path] and path.read_bytes() == data
    path.write_bytes(flipped(data, random.Random(0)))
    assert load_folder(tmp_path).planned == []


def test_a_large_plan_is_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.records.storage.MOST_TRIALS", 2)
    trials = tuple(a_trial(seed=seed) for seed in range(5))
    assert len(save_plan(Plan(trials), tmp_path)) == 3
    assert {trial.seed for trial in load_folder(tmp_path).planned} == {0, 1, 2, 3, 4}

"""A sample of the faults that `python -m tests.faults` injects."""

import pytest

from tests import damaged_files, faults, injection
from tests.mutations import FORGERIES

SAMPLE = {
    faults.records: 15,
    faults.plans: 8,
    faults.bits: 10,
    faults.forged: len(FORGERIES),
    faults.bombs: 10,
}
"""How many of each class."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without figures and without tracing memory, which take most of the time of a full run."""
    monkeypatch.setattr(damaged_files, "DRAWN", ())
    monkeypatch.setattr(injection, "TRACED", False)


def test_every_class_has_a_sample():
    assert {*SAMPLE} == {inject for inject, _ in faults.CLASSES}


@pytest.mark.parametrize("inject", SAMPLE, ids=lambda inject: inject.__name__)
def test_faults_are_survived(inject, monkeypatch):
    monkeypatch.setattr(injection, "TRACED", inject is faults.bombs)
    (row,) = inject(SAMPLE[inject])
    assert not row.lost
    assert row.injected == row.survived == SAMPLE[inject]
    assert (1 < row.megabytes < 100) == (inject is faults.bombs)


def test_a_forgery_that_is_not_found_is_lost(monkeypatch):
    monkeypatch.setattr("zoo.records.reading.check_consistent", lambda result: None)
    monkeypatch.setattr("leaderboard.folders.contradictions", lambda results: {})
    (row,) = faults.forged(len(FORGERIES))
    assert row.survived == 1  # an accuracy of a million is no percentage
    assert "not named" in row.lost[0]


def test_a_flipped_bit_that_is_not_found_is_lost(monkeypatch):
    monkeypatch.setattr("zoo.records.reading.without_checksum", lambda content: (content, True))
    (row,) = faults.bits(10)
    assert row.survived < 10


def test_what_is_raised_and_what_takes_too_long_is_lost(monkeypatch):
    def fails(*_, **__):
        raise KeyError("x")

    damaged_files.whole()
    monkeypatch.setattr(damaged_files, "write_board", fails)
    (row,) = faults.plans(2)
    assert row.survived == 0 and "KeyError: 'x'" in row.lost[0]

    def hangs(*_, **__):
        while True:
            pass

    monkeypatch.setattr(damaged_files, "LONGEST", 1)
    monkeypatch.setattr(damaged_files, "write_board", hangs)
    (row,) = faults.plans(1)
    assert "it took more than 1 seconds" in row.lost[0]


def test_the_command_prints_a_row_per_class(capsys):
    assert faults.main(["--classes", "bits,plans", "--share", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("| ")] == [
        "class",
        "plans",
        "bits",
    ]

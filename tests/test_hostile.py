"""Plugins that cheat: a sample of tests/hostile.py."""

from tests import hostile

SAMPLE = (
    "caller",
    "trained_in_observe",
    "exit_in_mask",
    "interrupt",
    "trainer_stream",
    "more_tensors",
)


def test_plugins_that_cheat_change_nothing_beside_them(tmp_path):
    """Several in one command: each trial in a process that loads its own plugin alone."""
    folder = hostile.prepared(tmp_path)
    honest = hostile.run([], folder)["magnitude"]
    (folder / "results").rename(folder / "before")
    found = hostile.run(SAMPLE, folder)
    said = {name: hostile.verdict(name, found.get(name)) for name in SAMPLE}
    assert hostile.same(found["magnitude"], honest)
    assert honest["judgement"] == {"apart": True, "claims": honest["metrics"], "reason": ""}
    assert said["trainer_stream"] == "judged apart"
    assert said["more_tensors"].startswith("not judged apart: its network has other tensors")

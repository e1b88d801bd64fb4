"""Schedules against the published figures."""

import pytest

from zoo import ConfigError, Constant, Ramp, Staircase, never
from zoo.parts.schedules import check_fits, settled

T = 73632


@pytest.mark.parametrize(
    ("step", "density"), [(0, 1), (12000, 1), (12001, 0.999946), (36816, 0.2125), (61632, 0.1)]
)
def test_the_density_of_movement_on_mnli(step, density):
    """Sanh 2020, Eq. 5 with w = 12,000, i = f = 1, density 0.1."""
    ramp = Ramp(1.0, 0.1, 12000 / T, 1 - 12000 / T, 3)
    assert ramp(step, T) == pytest.approx(density, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "density"),
    [(0, 1), (1000, 0.934823), (10000, 0.474237), (21816, 0.15125), (43632, 0.03)],
)
def test_the_density_of_smp_on_mnli(step, density):
    assert Ramp(1.0, 0.03, 0.0, 43632 / T, 3)(step, T) == pytest.approx(density, abs=1e-6)


@pytest.mark.parametrize(("step", "density"), [(875, 0.884375), (1750, 0.825), (3500, 0.8)])
def test_the_density_of_smp_at_80_percent(step, density):
    assert Ramp(1.0, 0.8, 0.0, 3500 / T, 3)(step, T) == pytest.approx(density)


def test_a_run_of_another_length_keeps_the_fractions():
    ramp = Ramp(1.0, 0.1, 12000 / T, 1 - 12000 / T, 3)
    assert ramp(50, 100) == ramp(T // 2, T)


def test_the_last_level_is_exact():
    for total in (7, 100, T):
        assert Ramp(1.0, 0.03, 0.1, 0.6, 3)(total - 1, total) == 0.03


def test_linear_constant_and_never_by_hand():
    assert Ramp(1.0, 0.0, 0.0, 1.0, 1)(25, 100) == 0.75
    assert Constant(0.3)(5, 9) == 0.3
    assert never(5, 9) is None


def test_a_schedule_may_prune_once():
    def once(step, total):
        return 0.1 if step == total // 2 else None

    assert settled(once, 10) == 0.1


@pytest.mark.parametrize(("start", "stop"), [(0.6, 0.6), (0.7, 0.2), (-0.1, 0.5), (0.1, 1.2)])
def test_a_ramp_that_ends_before_it_begins_is_rejected(start, stop):
    with pytest.raises(ConfigError, match="shorten the warm-up or the cool-down"):
        Ramp(1.0, 0.1, start, stop, 3)


def test_a_schedule_that_does_not_fit_says_how_many_steps_it_needs():
    ramp = Ramp(1.0, 0.1, 0.0, 0.9, 3)
    check_fits(ramp, 100)
    with pytest.raises(
        ConfigError, match=r"cannot fit 3 steps: .* instead of 0\.1 .* at least 5 steps"
    ):
        check_fits(ramp, 3)
    check_fits(ramp, 5)
    check_fits(never, 1)


@pytest.mark.parametrize("times", [(0.0,), (0.0, 0.5), (0.3, 0.31, 0.9), (0.5, 0.97)])
def test_the_last_level_of_a_staircase_is_that_of_its_last_step_that_has_one(times):
    """In runs so short that moments fall together or behind the end, too."""
    stairs = Staircase(tuple((time, 1 - time) for time in times))
    for total in range(1, 60):
        levels = [stairs(step, total) for step in range(total)]
        made = [level for level in levels if level is not None]
        assert settled(stairs, total) == (made[-1] if made else None)
